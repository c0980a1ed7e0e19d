"""Normalisation layers, and the running statistics that drift in them although no gradient does."""

import re

from torch import nn
from torch.nn.modules.batchnorm import _NormBase


def normalisation_layers(model: nn.Module) -> list[nn.Module]:
    """Return the normalisation layers of a model.

    PyTorch's by their classes, others by a class name that ends in ``Norm``, with or without a
    dimension, such as ``RMSNorm`` or ``BatchRenorm2D``.

    :param model: any module.
    """
    return [
        module
        for module in model.modules()
        if isinstance(module, _NormBase | nn.LayerNorm | nn.GroupNorm)
        or re.search(r"norm(\dd)?$", type(module).__name__, re.IGNORECASE)
    ]


def layers_with_statistics(model: nn.Module) -> list[nn.Module]:
    """Return the normalisation layers that keep running statistics.

    :param model: any module.
    """
    layers = normalisation_layers(model)
    return [layer for layer in layers if any(True for _ in layer.buffers(recurse=False))]


def statistics_can_drift(layers: list[nn.Module]) -> bool:
    """Whether a forward pass would change running statistics.

    :param layers: what :func:`layers_with_statistics` gave.
    """
    return any(layer.training for layer in layers)


def freeze_statistics(layers: list[nn.Module]) -> None:
    """Put these layers into evaluation mode, in place, until the model's next ``train()``.

    :param layers: what :func:`layers_with_statistics` gave.
    """
    for layer in layers:
        layer.eval()
