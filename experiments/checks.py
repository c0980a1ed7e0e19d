"""Checks on a whole description: parts that do not go together are refused before any work."""

from __future__ import annotations

from experiments.errors import BadValueError, require_known
from experiments.records import Description, Network, Training
from experiments.streams import input_shape, require_possible

KINDS = ("mlp", "cnn")
HEADS = ("single", "seen", "task", "multi")
INITIAL = ("torch", "glorot")
RESETS = ("all", "moments", "nothing")

# What two blocks of convolutions and poolings leave something of.
_LEAST_PIXELS = 14


def require_runnable(description: Description) -> None:
    """Check that the parts of a description go together, without reading any data.

    :param description: a trial.
    :raises UnknownNameError: for a name that does not exist.
    :raises BadValueError: saying which parts do not go together, and what would.
    """
    require_possible(description.data)
    _require_network(description.network, input_shape(description.data))
    _require_training(description.training)
    scenario, head = description.data.scenario, description.network.head
    if head in ("multi", "task") and scenario != "task":
        raise BadValueError(
            f"head {head!r} goes by task labels, and scenario {scenario!r} has none; use head "
            "'single' or 'seen'"
        )
    if scenario == "online" and description.training.epochs != 1:
        raise BadValueError(
            f"an online stream is seen once: epochs must be 1 and iterations None, not "
            f"{description.training.epochs} and {description.training.iterations}"
        )


def _require_network(network: Network, shape: tuple[int, ...]) -> None:
    require_known("kind of network", network.kind, KINDS)
    require_known("head", network.head, HEADS)
    require_known("initial weights", network.initial, INITIAL)
    if network.kind != "cnn":
        return
    if len(shape) != 3 or min(shape[1:]) < _LEAST_PIXELS:
        raise BadValueError(
            f"network 'cnn' needs images of at least {_LEAST_PIXELS} x {_LEAST_PIXELS} pixels, "
            f"not inputs of shape {shape}; use 'mlp'"
        )
    if len(network.hidden) != 1:
        raise BadValueError(
            f"network 'cnn' has one dense layer; give one width in hidden, not {network.hidden}"
        )
    if network.normalised:
        raise BadValueError("network 'cnn' has no batch normalisation; normalised is for 'mlp'")


def _require_training(training: Training) -> None:
    require_known("reset", training.reset, RESETS)
    if (training.epochs is None) == (training.iterations is None):
        raise BadValueError(
            f"training goes by epochs or by iterations; the other must be None, not "
            f"{training.epochs} and {training.iterations}"
        )
