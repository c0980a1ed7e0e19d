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
_COUNTS = ("tasks", "steps", "starts")


def state_to_dict(state: State) -> dict[str, Any]:
    """Return copies of all tensors by kind and parameter name, the counters and the version."""
    kinds = {kind: getattr(state, kind).items() for kind in _TENSORS}
    tensors = {kind: {name: t.clone() for name, t in items} for kind, items in kinds.items()}
    counts = {"tasks": state.tasks, "steps": state.steps, "starts": len(state.start)}
    return {"version": VERSION, **tensors, **counts}


def state_from_dict(entries: Mapping[str, Any]) -> State:
    """Return a state with copies of its own of what :func:`state_to_dict` gave.

    Entries that are missing, extra, of a wrong kind, at odds with each other, or written by a newer
    version are a ``StateDictError``.
    """
    check_entries(entries, (*_TENSORS, *_COUNTS), "SynapticIntelligence")
    for kind in _TENSORS:
        _check_tensors(kind, entries[kind], entries["importance"])
    for kind in _COUNTS:
        check_count(kind, entries[kind])
    if entries["starts"] != len(entries["start"]):
        raise StateDictError(
            f"'start' has {len(entries['start'])} of {entries['starts']} entries: the others were "
            "lost on the way. torch.distributed.checkpoint loads only what the target has; save at "
            "the end of a task, or by torch.save."
        )
    kept = ({n: t.detach().clone() for n, t in entries[kind].items()} for kind in _TENSORS)
    importance, path_integral, anchor, start = kept
    counts = entries["tasks"], entries["steps"]
    return State(importance, path_integral, anchor, start, *counts)


def check_same_parameters(loaded: State, current: State, skipped: Container[str]) -> None:
    """Refuse a state whose parameters or shapes differ from those of the object that loads it.

    It may have parameters that the model has but does not train now.
    """
    old, new = current.importance, loaded.importance
    found = {
        "missing": old.keys() - new.keys(),
        "extra": {name for name in new if name not in old and name not in skipped},
        "misshaped": {
            f"{name} is {tuple(new[name].shape)}, the model has {tuple(old[name].shape)}"
            for name in new.keys() & old.keys()
            if new[name].shape != old[name].shape
        },
    }
    if any(found.values()):
        listed = "; ".join(f"{label}: {', '.join(sorted(n))}" for label, n in found.items() if n)
        raise StateDictError(
            f"The state belongs to another model ({listed}). Load it into an object built for the "
            "model it was saved with, and with the same include and exclude."
        )


def check_entries(
    entries: object, expected: tuple[str, ...], owner: str, may_have: tuple[str, ...] = ()
) -> None:
    """Refuse what is not a dictionary with a known version and just the expected entries."""
    if not isinstance(entries, Mapping):
        raise StateDictError(f"{owner} loads a dictionary, got {type(entries).__name__}.")
    given = entries.get("version", VERSION)
    if type(given) is not int or not 1 <= given <= VERSION:
        raise StateDictError(
            f"The state for {owner} has version {given!r}; this release reads 1 to {VERSION}. Load "
            "it with the release that wrote it, or a later one."
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
    """Refuse a counter that is not an integer, 0 or more."""
    if type(count) is not int or count < 0:
        raise StateDictError(f"{name!r} must be an integer, 0 or more, got {count!r}.")


def _check_tensors(kind: str, tensors: object, importance: object) -> None:
    if not isinstance(tensors, Mapping) or not isinstance(importance, Mapping):
        raise StateDictError(f"{kind!r} must map parameter names to tensors.")
    differ = tensors.keys() - importance.keys()
    if kind != "start":  # only of parameters that do not start at their anchor
        differ |= importance.keys() - tensors.keys()
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
            shapes = f"{tuple(tensor.shape)}, its importance {tuple(importance[name].shape)}"
            raise StateDictError(f"{kind!r} of {name!r} has shape {shapes}.")
