"""The state of a module by name, put into a module of the same structure."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from si_avalanche.checkpoint.document import Node, Value
from si_avalanche.checkpoint.nodes import ABSENT, alike, field, malformed, misfit, pairs

if TYPE_CHECKING:
    from si_avalanche.checkpoint.reader import Reader

_INTERNAL = vars(nn.Module()).keys()


def shapes(module: nn.Module) -> list[tuple[str, tuple[int, ...]]]:
    """Return name and shape of every parameter, in order."""
    return [(name, tuple(value.shape)) for name, value in module.named_parameters()]


def saved_shapes(reader: "Reader", node: Node, path: str) -> list[tuple[str, tuple[int, ...]]]:
    """Return name and shape of every parameter of a module's node, in order.

    :raises CheckpointError: if the node is malformed.
    """
    entries = pairs(field(node, "parameters", list, path), path, 3)
    _check_text([name for name, *_ in entries], path)
    return [(name, tuple(reader.stored(value, path).shape)) for name, value, _ in entries]


def read_module(reader: "Reader", node: Node, module: nn.Module, path: str) -> None:
    """Check a module's node against a module and put off the changes.

    Parameters keep their objects; buffers do while their shape stays. Plain attributes of all its
    parts (counters, sets of known classes) are replaced, other attributes kept.

    :raises CheckpointError: if the node is malformed.
    :raises StateDictError: if parameters, buffers, dtypes or parts differ.
    """
    _read_parameters(reader, node, module, path)
    _read_buffers(reader, node, module, path)
    parts = dict(module.named_modules())
    for name, mode in pairs(node.get("modes"), path):
        _set_later(reader, _part(parts, name, path), "training", mode is True)
    for name, attribute, value in pairs(node.get("attributes"), path, 3):
        part, place = _part(parts, name, path), f"{path}.{name}.{attribute}"
        method = getattr(type(part), str(attribute), None)
        if attribute in _INTERNAL or callable(method) or hasattr(method, "__get__"):
            raise malformed(place, "this is not an attribute that holds state")
        old = vars(part).get(attribute, ABSENT)
        _set_later(reader, part, attribute, reader.read(value, old, place))
    for name, value in pairs(node.get("extra"), path):
        part = _part(parts, name, path)
        _extra_later(reader, part, reader.read(value, ABSENT, f"{path}.{name}"))


def _read_parameters(reader: "Reader", node: Node, module: nn.Module, path: str) -> None:
    entries = pairs(field(node, "parameters", list, path), path, 3)
    live = dict(module.named_parameters())
    _check_names("parameters", [name for name, *_ in entries], list(live), path)
    for name, value, requires_grad in entries:
        place, parameter = f"{path}.{name}", live[name]
        saved = reader.stored(value, place)
        if not alike(saved, parameter):
            raise misfit(
                place,
                f"has shape {tuple(saved.shape)}, {saved.dtype}",
                f"the model has {tuple(parameter.shape)}, {parameter.dtype}",
            )
        if type(requires_grad) is not bool or (requires_grad and not _differentiable(saved)):
            raise malformed(place, "it cannot require gradients")
        _copy_later(reader, parameter, saved)
        _grad_later(reader, parameter, requires_grad)
        reader.know(value, parameter, place)


def _read_buffers(reader: "Reader", node: Node, module: nn.Module, path: str) -> None:
    entries = pairs(field(node, "buffers", list, path), path)
    live = dict(module.named_buffers())
    _check_names("buffers", [name for name, _ in entries], list(live), path)
    parts = dict(module.named_modules())
    for name, value in entries:
        place, buffer = f"{path}.{name}", live[name]
        saved = reader.tensor(value, buffer, place)
        if saved.dtype != buffer.dtype:
            raise misfit(place, f"is of {saved.dtype}", f"the model has {buffer.dtype}")
        if alike(saved, buffer):
            _copy_later(reader, buffer, saved)
            reader.know(value, buffer, place)
            continue
        owner, _, key = name.rpartition(".")
        _buffer_later(reader, parts[owner], key, saved)


def _check_names(kind: str, saved: list[Any], live: list[str], path: str) -> None:
    _check_text(saved, path)
    for label, names, here in (
        ("has", set(saved) - set(live), "this strategy's has not"),
        ("lacks", set(live) - set(saved), "this strategy's has them"),
    ):
        if names:
            raise misfit(path, f"{label} the {kind} {', '.join(sorted(names))}", here)


def _check_text(names: list[Any], path: str) -> None:
    if any(type(name) is not str for name in names) or len(set(names)) != len(names):
        raise malformed(path, "its names must be texts, none of them twice")


def _part(parts: dict[str, nn.Module], name: Value, path: str) -> nn.Module:
    if type(name) is not str or name not in parts:
        raise misfit(path, f"has a part {name!r}", "this strategy has none of that name")
    return parts[name]


def _differentiable(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


# Functions of their own: a lambda in a loop would see the last round's variables.


def _copy_later(reader: "Reader", live: Tensor, saved: Tensor) -> None:
    def change() -> None:
        with torch.no_grad():
            live.copy_(saved)

    reader.later(change)


def _grad_later(reader: "Reader", parameter: nn.Parameter, requires_grad: bool) -> None:
    reader.later(lambda: parameter.requires_grad_(requires_grad))


def _buffer_later(reader: "Reader", part: nn.Module, key: str, saved: Tensor) -> None:
    reader.later(lambda: part._buffers.update({key: saved}))


def _set_later(reader: "Reader", part: nn.Module, attribute: str, value: Value) -> None:
    reader.later(lambda: vars(part).update({attribute: value}))


def _extra_later(reader: "Reader", part: nn.Module, state: Value) -> None:
    reader.later(lambda: part.set_extra_state(state))
