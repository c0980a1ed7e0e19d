"""How nodes are taken apart, and what is said when they are not as they should be."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from si_avalanche.checkpoint.document import Node, Value
from si_avalanche.checkpoint.kinds import CODE, class_name, code_name
from si_avalanche.errors import CheckpointError, StateDictError

ABSENT = object()
"""Stands for an object that the fresh strategy does not have."""


def field(node: Node, name: str, cls: type, path: str) -> Value:
    """Return an entry of a node.

    :raises CheckpointError: if the node is no dictionary, lacks the entry or has another type.
    """
    if not isinstance(node, dict) or type(node.get(name)) is not cls:
        raise malformed(path, f"{name!r} must be of type {cls.__name__}")
    return node[name]


def pairs(nodes: Node, path: str, width: int = 2) -> list[Sequence[Node]]:
    """Return a list of lists of equal width.

    :raises CheckpointError: if the nodes are anything else.
    """
    if type(nodes) is not list or any(type(n) is not list or len(n) != width for n in nodes):
        raise malformed(path, f"a list of lists of {width} was expected")
    return nodes


def malformed(path: str, why: str) -> CheckpointError:
    """Return the error for content that no checkpoint has."""
    return CheckpointError(
        f"The checkpoint's content is malformed at {path}: {why}. save_training() did not write "
        "it. Resume from another copy, or delete the file to start anew."
    )


def misfit(path: str, saved: str, here: str) -> StateDictError:
    """Return the error for content that belongs to another strategy."""
    return StateDictError(
        f"The checkpoint does not fit the strategy: {path} {saved} in the checkpoint, and {here}. "
        "Build the strategy as the one that was saved, with the same model, optimiser, plugins and "
        "metrics. The strategy is as it was."
    )


def described(live: Value) -> str:
    """Return what a message calls an object in use."""
    if live is ABSENT:
        return "nothing"
    return code_name(live) if isinstance(live, CODE) else f"a {class_name(live)}"


def alike(one: Tensor, other: Tensor) -> bool:
    """Tell whether two tensors have one shape and one dtype."""
    return one.shape == other.shape and one.dtype == other.dtype


def check_number(value: Value, live: Value, path: str) -> None:
    """Refuse something that is no number where there is one.

    :raises StateDictError: naming the place.
    """
    numbers = (int, float, np.generic, Tensor, type(None))
    if type(live) in (int, float) and not isinstance(value, numbers):
        raise misfit(path, f"has {described(value)}", "this strategy has a number there")
