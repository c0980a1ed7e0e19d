"""The networks: a trunk, and the head that scenario and protocol ask for."""

from __future__ import annotations

from collections.abc import Sequence

from avalanche.models.dynamic_modules import avalanche_model_adaptation
from torch import nn

from experiments.heads import MultiHeadNetwork, SeenHeadNetwork, SingleHeadNetwork, TaskHeadNetwork
from experiments.records import Network
from experiments.untyped import Experiences


def make_model(network: Network, shape: Sequence[int], experiences: Experiences) -> nn.Module:
    """Build the network of a trial with all its heads.

    Every strategy starts with all heads, because heads that appear later draw their weights from
    whatever state a strategy left the random generator in, and because Avalanche's RWalk fails
    on a head that appears as training begins (``KeyError``: it lists its parameters in
    ``before_training``, before the model is adapted). They are added in evaluation mode, which
    tells the network nothing about the tasks to come: it still regards a task as seen only once
    it trains on it.

    :param network: what to build.
    :param shape: shape of one input.
    :param experiences: the training stream, for its classes and task labels.
    :return: the network, in training mode.
    """
    trunk, width = _TRUNKS[network.kind](network, shape)
    classes = [tuple(sorted(each.classes_in_this_experience)) for each in experiences]
    outputs = 1 + max(max(each) for each in classes)
    model: nn.Module
    if network.head == "multi":
        model = MultiHeadNetwork(trunk, width, outputs)
    elif network.head == "task":
        model = TaskHeadNetwork(trunk, width, outputs, classes)
    elif network.head == "seen":
        model = SeenHeadNetwork(trunk, width, outputs)
    else:
        model = SingleHeadNetwork(trunk, width, outputs)
    model.eval()
    for experience in experiences:
        avalanche_model_adaptation(model, experience)
    _initialise(model, network)
    return model.train()


def _mlp(network: Network, shape: Sequence[int]) -> tuple[nn.Sequential, int]:
    layers: list[nn.Module] = [nn.Flatten()]
    width = 1
    for length in shape:
        width *= length
    for hidden in network.hidden:
        layers.append(nn.Linear(width, hidden))
        if network.normalised:
            layers.append(nn.BatchNorm1d(hidden))
        layers.append(nn.ReLU())
        width = hidden
    return nn.Sequential(*layers), width


def _cnn(network: Network, shape: Sequence[int]) -> tuple[nn.Sequential, int]:
    """Build the convolutional trunk of Zenke et al. (2017), appendix: two blocks, one dense layer.

    The second convolution of each block has no border, as in Keras's example that the authors
    started from.
    """
    channels, rows, columns = shape
    layers: list[nn.Module] = []
    for filters in (32, 64):
        layers += [nn.Conv2d(channels, filters, 3, padding=1), nn.ReLU()]
        layers += [nn.Conv2d(filters, filters, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.25)]
        channels, rows, columns = filters, (rows - 2) // 2, (columns - 2) // 2
    (hidden,) = network.hidden
    dense = nn.Linear(channels * rows * columns, hidden)
    return nn.Sequential(*layers, nn.Flatten(), dense, nn.ReLU(), nn.Dropout(0.5)), hidden


_TRUNKS = {"mlp": _mlp, "cnn": _cnn}


def _initialise(model: nn.Module, network: Network) -> None:
    if network.initial == "glorot":
        for module in model.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                nn.init.xavier_uniform_(module.weight)
                assert module.bias is not None
                nn.init.zeros_(module.bias)
    if network.zero_head:
        head = model.head
        assert isinstance(head, nn.Module)
        for parameter in head.parameters():
            nn.init.zeros_(parameter)
