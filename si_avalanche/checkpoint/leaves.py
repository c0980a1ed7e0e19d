"""Nodes of plain values, and containers filled with what has been read."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from si_avalanche.checkpoint.document import Node, Value
from si_avalanche.checkpoint.kinds import DTYPES
from si_avalanche.checkpoint.nodes import field, malformed


def _int(node: Node, path: str) -> int:
    try:
        return int(field(node, "hex", str, path), 16)
    except ValueError as error:
        raise malformed(path, str(error)) from error


def _float(node: Node, path: str) -> float:
    text = field(node, "text", str, path)
    if text not in ("nan", "inf", "-inf"):
        raise malformed(path, f"{text!r} is not a special float")
    return float(text)


def _bytes(node: Node, path: str) -> bytes:
    try:
        return bytes.fromhex(field(node, "hex", str, path))
    except ValueError as error:
        raise malformed(path, str(error)) from error


def _dtype(node: Node, path: str) -> torch.dtype:
    name = field(node, "name", str, path)
    if name not in DTYPES:
        raise malformed(path, f"there is no dtype {name!r}")
    return DTYPES[name]


LEAVES: Mapping[str, Callable[[Node, str], Any]] = {
    "bytes": _bytes,
    "dtype": _dtype,
    "float": _float,
    "int": _int,
}
"""Kinds that need nothing but their node."""


def built(cls: type, items: list[Any], path: str) -> Value:
    """Return a container made of items.

    :raises CheckpointError: if it cannot hold them.
    """
    try:
        return cls(items)
    except TypeError as error:
        raise malformed(path, str(error)) from error


def fill_sequence(target: Value, items: list[Any]) -> None:
    """Replace the content of a list or deque."""
    target.clear()
    target.extend(items)


def fill_set(target: set[Any], items: Iterable[Any]) -> None:
    """Replace the content of a set."""
    target.clear()
    target.update(items)


def fill_mapping(target: Value, items: dict[Any, Any]) -> None:
    """Replace the content of a dictionary of any kind."""
    target.clear()
    # Not update(): a Counter's adds.
    for key, value in items.items():
        target[key] = value
