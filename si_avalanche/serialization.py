"""State to plain dictionaries and back: tensors and integers only, versioned, checked."""

from collections.abc import Container, Mapping
from typing import Any

import torch
from torch import Tensor

from si_avalanche.errors import StateDictError
from si_avalanche.shards import anywhere, local
from si_avalanche.state import State

VERSION = 1
"""Version of the dictionaries; raised when an older reader would misread them."""

_TENSORS = ("importance", "path_integral", "anchor", "start")
_COUNTS = ("tasks", "steps")


def state_to_dict(state: State) -> dict[str, Any]:
    """Return copies of all tensors by kind and parameter name, the counters and the version."""
    tensors = {
        kind: {name: tensor.clone() for name, tensor in getattr(state, kind).items()}
        for kind in _TENSORS
    }
    counts = {kind: getattr(state, kind) for kind in _COUNTS}
    return {"version": VERSION, **tensors, **counts}


def state_from_dict(entries: Mapping[str, Any]) -> State:
    """Return a state with copies of its own.

    :param entries: what :func:`state_to_dict` gave; it is not modified.
    :raises StateDictError: if entries are missing, extra, of a wrong kind, at odds with each
        other, or written by a newer version.
    """
    check_entries(entries, (*_TENSORS, *_COUNTS), "SynapticIntelligence")
    for kind in _TENSORS:
        _check_tensors(kind, entries[kind], entries["importance"])
    for kind in _COUNTS:
        check_count(kind, entries[kind])
    copies = {
        kind: {name: tensor.detach().clone() for name, tensor in entries[kind].items()}
        for kind in _TENSORS
    }
    return State(**copies, tasks=entries["tasks"], steps=entries["steps"])


def check_same_parameters(loaded: State, current: State, skipped: Container[str] = ()) -> None:
    """Refuse a state whose parameters or shapes differ from those of the object that loads it.

    :param loaded: the state that should replace ``current``.
    :param current: the state in use.
    :param skipped: parameters that the model has but does not train now; a state may have them.
    :raises StateDictError: naming what is missing, extra or misshaped.
    """
    extra = loaded.importance.keys() - current.importance.keys()
    misshaped = [
        f"{name} is {tuple(tensor.shape)}, the model has {tuple(now.shape)}"
        for name, tensor in loaded.importance.items()
        if (now := current.importance.get(name)) is not None and now.shape != tensor.shape
    ]
    complaints = [
        f"{label}: {', '.join(sorted(names))}"
        for label, names in (
            ("missing", current.importance.keys() - loaded.importance.keys()),
            ("extra", [name for name in extra if name not in skipped]),
            ("misshaped", misshaped),
        )
        if names
    ]
    if complaints:
        raise StateDictError(
            f"The state belongs to another model ({'; '.join(complaints)}). Load it into an object "
            "built for the model it was saved with, and with the same include and exclude."
        )


def check_entries(
    entries: object, expected: tuple[str, ...], owner: str, may_have: tuple[str, ...] = ()
) -> None:
    """Refuse what is not a dictionary with a known version and just the expected entries.

    :param entries: what should be loaded.
    :param expected: the entries that must be there, apart from ``"version"``.
    :param owner: the class that should load it, for the message.
    :param may_have: entries that may be there.
    :raises StateDictError: saying what is missing, extra or newer.
    """
    if not isinstance(entries, Mapping):
        raise StateDictError(f"{owner} loads a dictionary, got {type(entries).__name__}.")
    if "version" in entries:
        given = entries["version"]
        if type(given) is not int or not 1 <= given <= VERSION:
            raise StateDictError(
                f"The state for {owner} has version {given!r}; this release reads 1 to {VERSION}. "
                "Load it with the release that wrote it, or a later one."
            )
    wanted = {"version", *expected}
    extra = entries.keys() - wanted - set(may_have)
    for label, names in (("lacks", wanted - entries.keys()), ("has", extra)):
        if names:
            raise StateDictError(
                f"The state for {owner} {label} {', '.join(sorted(map(str, names)))}; it must have "
                f"just {', '.join(sorted(wanted))}. Load what state_dict() of {owner} gave."
            )


def check_count(name: str, count: object) -> None:
    """Refuse a counter that is not an integer, 0 or more.

    :raises StateDictError: naming the entry.
    """
    if type(count) is not int or count < 0:
        raise StateDictError(f"{name!r} must be an integer, 0 or more, got {count!r}.")


def _check_tensors(kind: str, tensors: object, importance: object) -> None:
    if not isinstance(tensors, Mapping) or not isinstance(importance, Mapping):
        raise StateDictError(f"{kind!r} must map parameter names to tensors.")
    differ = tensors.keys() ^ importance.keys()
    if kind == "start":  # only of parameters that do not start at their anchor
        differ = tensors.keys() - importance.keys()
    if differ:
        names = ", ".join(sorted(map(str, differ)))
        raise StateDictError(f"{kind!r} and 'importance' disagree on the parameters {names}.")
    for name, tensor in tensors.items():
        dense = isinstance(tensor, Tensor) and tensor.layout == torch.strided
        if not dense or not tensor.is_floating_point() or tensor.is_meta:
            raise StateDictError(f"{kind!r} of {name!r} must be a dense floating-point tensor.")
        if any(anywhere([not local(tensor).isfinite().all()], [tensor])):
            raise StateDictError(f"{kind!r} of {name!r} is not finite: load an earlier state.")
        if tensor.shape != importance[name].shape:
            raise StateDictError(
                f"{kind!r} of {name!r} has shape {tuple(tensor.shape)}, its importance "
                f"{tuple(importance[name].shape)}."
            )
