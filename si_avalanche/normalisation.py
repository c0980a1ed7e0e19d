"""Normalisation layers, and the running statistics that drift in them although no gradient does."""

import re

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from si_avalanche.errors import CallOrderError


def normalisation_layers(model: nn.Module) -> list[nn.Module]:
    """Return the normalisation layers of a model.

    PyTorch's by their classes, others by a class name that ends in ``Norm``, with or without a
    dimension, such as ``RMSNorm`` or ``BatchRenorm2D``.
    """
    kinds, name = _NormBase | nn.LayerNorm | nn.GroupNorm, re.compile(r"norm(\dd)?$", re.IGNORECASE)
    return [m for m in model.modules() if isinstance(m, kinds) or name.search(type(m).__name__)]


class RunningStatistics:
    """The running statistics of a model's normalisation layers, which may be frozen."""

    def __init__(self, model: nn.Module) -> None:
        layers = normalisation_layers(model)
        self._layers = [each for each in layers if any(True for _ in each.buffers(recurse=False))]

    def freeze(self) -> None:
        """Put their layers into evaluation mode, until the model's next ``train()``."""
        for layer in self._layers:
            layer.eval()

    def refuse_drift(self) -> None:
        """Refuse a step in which a forward pass may have changed them (``CallOrderError``)."""
        if any(layer.training for layer in self._layers):
            raise CallOrderError(
                'With normalisation="freeze", call freeze_statistics() after every model.train(): '
                "running statistics have drifted in the forward pass of this step. In Avalanche, "
                "list plugins that call model.train() before SIPlugin."
            )
