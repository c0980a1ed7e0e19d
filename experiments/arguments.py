"""Checks on what a user typed: everything wrong is said before any work begins."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from experiments.errors import BadValueError, UnknownNameError, require_known

_Item = TypeVar("_Item", str, int)


def split(values: Iterable[str]) -> list[str]:
    """Split a list option, which takes commas as well as spaces.

    :param values: the option's arguments.
    :return: the items.
    """
    return [item for value in values for item in value.replace(",", " ").split()]


def names(kind: str, values: Iterable[str], allowed: Sequence[str]) -> tuple[str, ...]:
    """Check a list of names against a registry.

    :param kind: what the names are, such as ``"strategy"``.
    :param values: the option's arguments.
    :param allowed: the names that exist.
    :return: the names.
    :raises UnknownNameError: for a name that does not exist.
    :raises BadValueError: for no name, or one given twice.
    """
    given = split(values)
    for name in given:
        require_known(kind, name, allowed)
    return _distinct(kind, given)


def seeds(values: Iterable[str]) -> tuple[int, ...]:
    """Check a list of seeds.

    :param values: the option's arguments.
    :return: the seeds.
    :raises BadValueError: for no seed, one given twice, or one that is not a whole number >= 0.
    """
    return _distinct("seed", [whole("seed", value, least=0) for value in split(values)])


def whole(kind: str, value: str, *, least: int) -> int:
    """Check a whole number.

    :param kind: what the number is.
    :param value: what was typed.
    :param least: the smallest number allowed.
    :return: the number.
    :raises BadValueError: if it is not a whole number or too small.
    """
    message = f"{kind} {value!r} is not a whole number of at least {least}"
    try:
        number = int(value)
    except ValueError as error:
        raise BadValueError(message) from error
    if number < least:
        raise BadValueError(message)
    return number


def device(value: str) -> str:
    """Check a device.

    :param value: ``"cpu"``, ``"cuda"`` or ``"cuda:<number>"``.
    :return: the device.
    :raises UnknownNameError: for any other name.
    :raises BadValueError: for a GPU that is not there.
    """
    kind, _, number = value.partition(":")
    if value == "cpu":
        return value
    if kind != "cuda" or (":" in value and not number.isdecimal()):
        raise UnknownNameError("device", value, ["cpu", "cuda", "cuda:0"])
    # Only this branch needs torch, which takes seconds to import.
    import torch

    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(number or 0) >= available:
        raise BadValueError(f"device {value!r} is not available: torch sees {available} GPUs here")
    return value


def _distinct(kind: str, items: Sequence[_Item]) -> tuple[_Item, ...]:
    if not items:
        raise BadValueError(f"no {kind} given")
    twice = [item for item in items if items.count(item) > 1]
    if twice:
        raise BadValueError(f"{kind} {twice[0]!r} is given more than once")
    return tuple(items)
