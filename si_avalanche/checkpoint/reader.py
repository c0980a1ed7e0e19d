"""Nodes back to values, on the objects of a fresh strategy: first all checks, then all changes."""

from collections import defaultdict, deque
from collections.abc import Callable, Container, Mapping
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn

from si_avalanche.checkpoint.document import Node, Value
from si_avalanche.checkpoint.kinds import (
    CODE,
    CONSTANTS,
    CONSTRUCTED,
    FACTORIES,
    GENERATORS,
    MAPPINGS,
    SEQUENCES,
    attributes,
    class_name,
    code_name,
    is_stateful,
)
from si_avalanche.checkpoint.leaves import LEAVES, built, fill_mapping, fill_sequence, fill_set
from si_avalanche.checkpoint.modules import read_module
from si_avalanche.checkpoint.nodes import (
    ABSENT,
    alike,
    check_number,
    described,
    field,
    malformed,
    misfit,
    pairs,
)

_TYPES: Mapping[str, type] = {name: cls for cls, name in {**SEQUENCES, **MAPPINGS}.items()}


class Reader:
    """Decodes nodes against the objects that are there; changes these only in :meth:`apply`.

    No class, function or module is ever looked up by a name of the file.

    :param tensors: the tensors of the document; they are copied.
    :param references: the objects that nodes may refer to, by name.
    :param device: where tensors go that were not on the CPU and replace nothing.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        references: Mapping[str, Any] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self._tensors = tensors
        self._references = references or {}
        self._device = torch.device(device)
        self._known: dict[int, Any] = {}
        self._claimed: dict[int, Any] = {}
        self._changes: list[Callable[[], object]] = []

    def later(self, change: Callable[[], object]) -> None:
        """Put off a change of an object in use until :meth:`apply`."""
        self._changes.append(change)

    def apply(self) -> None:
        """Make all changes that decoding has put off, in its order."""
        for change in self._changes:
            change()

    def read(self, node: Node, live: Value, path: str) -> Value:
        """Return the value of a node: ``live`` itself if it takes the state over, or a new value.

        :param node: what :class:`~si_avalanche.checkpoint.writer.Writer` made; it is only read.
        :param live: what stands at this place now, or ``ABSENT``.
        :param path: the place, for messages.
        :raises CheckpointError: if the node is malformed.
        :raises StateDictError: if it does not fit what stands at this place.
        """
        if node is None or type(node) in (bool, int, float, str):
            return node
        kind = field(node, "is", str, path)
        if kind in _TYPES:
            container = self._mapping if _TYPES[kind] in MAPPINGS else self._sequence
            return container(node, live, path, _TYPES[kind])
        if kind in LEAVES:
            return LEAVES[kind](node, path)
        method = _METHODS.get(kind)
        if method is None:
            raise malformed(path, f"there is no kind {kind!r}")
        return method(self, node, live, path)

    def stored(self, node: Node, path: str) -> Tensor:
        """Return the tensor of a node as the document has it.

        :raises CheckpointError: if the document lacks it.
        """
        name = field(node, "at", str, path)
        if name not in self._tensors:
            raise malformed(path, f"there is no tensor {name!r}")
        return self._tensors[name]

    def tensor(self, node: Node, live: Value, path: str) -> Tensor:
        """Return a tensor of its own on the device of what it replaces."""
        value = self.stored(node, path)
        on_cpu = field(node, "on", str, path) == "cpu"
        device = torch.device("cpu") if on_cpu else self._device
        wanted = field(node, "requires_grad", bool, path)
        if wanted and not (value.is_floating_point() or value.is_complex()):
            raise malformed(path, f"a tensor of {value.dtype} cannot require gradients")
        copy = value.to(live.device if isinstance(live, Tensor) else device, copy=True)
        if not field(node, "parameter", bool, path):
            return self.know(node, copy.requires_grad_(wanted), path)
        if not isinstance(live, nn.Parameter) or not alike(live, value):
            return self.know(node, nn.Parameter(copy, requires_grad=wanted), path)
        self.later(lambda: live.data.copy_(copy))
        self.later(lambda: live.requires_grad_(wanted))
        return self.know(node, live, path)

    def members(self, nodes: Node, target: object, path: str, fixed: Container[str] = ()) -> None:
        """Put off setting the attributes of an object.

        :raises CheckpointError: for what is no attribute that holds state, or one of ``fixed``.
        """
        values = {}
        for name, node in pairs(nodes, path):
            method = getattr(type(target), str(name), None)
            method = name in fixed or callable(method) or hasattr(method, "__get__")
            if type(name) is not str or method:
                raise malformed(path, f"{name!r} is not an attribute that holds state")
            old = vars(target).get(name, ABSENT)
            values[name] = self.read(node, old, f"{path}.{name}")
            check_number(values[name], old, f"{path}.{name}")
        self.later(lambda: vars(target).update(values))

    def know(self, node: Node, value: Value, path: str) -> Value:
        """Return a value and remember it as the object that later nodes mean by this number."""
        self._known[field(node, "id", int, path)] = value
        return value

    def _claim(self, node: Node, live: Value, path: str) -> bool:
        # One object in use cannot become two objects of the file.
        number = field(node, "id", int, path)
        return self._claimed.setdefault(id(live), (number, live))[0] == number

    def _same(self, node: Node, live: Value, path: str) -> Value:
        number = field(node, "id", int, path)
        if number not in self._known:
            raise malformed(path, f"there is no object {number}")
        return self._known[number]

    def _reference(self, node: Node, live: Value, path: str) -> Value:
        name = field(node, "to", str, path)
        if name not in self._references:
            raise misfit(path, f"refers to {name}", "this strategy has no such object")
        return self._references[name]

    def _device_of(self, node: Node, live: Value, path: str) -> torch.device:
        try:
            device = torch.device(field(node, "name", str, path))
        except RuntimeError as error:
            raise malformed(path, str(error)) from error
        if isinstance(live, torch.device):
            return live
        return device if device.type == "cpu" else self._device

    def _array(self, node: Node, live: Value, path: str) -> Value:
        array = self.tensor(field(node, "tensor", dict, path), ABSENT, path).numpy()
        return self.know(node, array if node["is"] == "array" else array[()], path)

    def _sequence(self, node: Node, live: Value, path: str, cls: type) -> Value:
        nodes = field(node, "items", list, path)
        in_place = type(live) is cls and self._claim(node, live, path)
        old = list(live) if in_place and cls in (list, tuple, deque) else []
        items: list[Any] = []
        mutable = cls in (list, set, deque)
        made: Any = _new_deque(node, path) if cls is deque else cls() if mutable else None
        target = live if in_place and mutable else made
        self.know(node, target, path)
        for index, (item, there) in enumerate(zip_longest(nodes, old[: len(nodes)])):
            there = ABSENT if index >= len(old) else there
            items.append(self.read(item, there, f"{path}[{index}]"))
        if not mutable:
            return self.know(node, built(cls, items, path), path)
        fill = fill_set if cls is set else fill_sequence
        checked: Any = built(set, items, path) if cls is set else items
        if target is live:
            self.later(lambda: fill(target, checked))
        else:
            fill(target, checked)
        return target

    def _mapping(self, node: Node, live: Value, path: str, cls: type) -> Value:
        in_place = type(live) is cls and self._claim(node, live, path)
        target = live if in_place else self._new_mapping(node, path, cls)
        self.know(node, target, path)
        old = dict(live) if in_place else {}
        make = target.default_factory if isinstance(target, defaultdict) else None
        items: dict[Any, Any] = {}
        for key_node, value_node in pairs(node.get("items"), path):
            key = self.read(key_node, ABSENT, path)
            built(set, [key], path)
            there = old.get(key, ABSENT)
            if there is ABSENT and make is not None:
                there = make()
            items[key] = self.read(value_node, there, f"{path}[{key!r}]")
        if in_place:
            self.later(lambda: fill_mapping(target, items))
        else:
            fill_mapping(target, items)
        return target

    def _new_mapping(self, node: Node, path: str, cls: type) -> Value:
        if cls is not defaultdict:
            return cls()
        name = field(node, "factory", str, path)
        if name not in FACTORIES:
            raise misfit(
                path, "holds a defaultdict with a function", "here is none to take it from"
            )
        return defaultdict(FACTORIES[name])

    def _handle(self, node: Node, live: Value, path: str) -> Value:
        return None if live is ABSENT else live

    def _code(self, node: Node, live: Value, path: str) -> Value:
        name = field(node, "name", str, path)
        if not isinstance(live, CODE) or code_name(live) != name:
            raise misfit(path, f"has {name}", f"this strategy has {described(live)} there")
        return live

    def _constant(self, node: Node, live: Value, path: str) -> Value:
        text = field(node, "text", str, path)
        if not isinstance(live, CONSTANTS) or repr(live) != text:
            raise misfit(path, f"has {text}", f"this strategy has {described(live)} there")
        return live

    def _generator(self, node: Node, live: Value, path: str) -> Value:
        cls, _, put = GENERATORS.get(field(node, "kind", str, path), (type(None), None, None))
        if put is None or not isinstance(live, cls):
            raise misfit(path, "holds a random generator", f"this strategy has {described(live)}")
        state = self.read(node.get("state"), ABSENT, path)
        self.later(lambda: put(live, state))
        return self.know(node, live, path)

    def _stateful(self, node: Node, live: Value, path: str) -> Value:
        self._expect(node, live, path, is_stateful(live))
        self.know(node, live, path)
        state = self.read(node.get("state"), ABSENT, path)
        self.later(lambda: live.load_state_dict(state))
        return live

    def _object(self, node: Node, live: Value, path: str) -> Value:
        make = CONSTRUCTED.get(field(node, "class", str, path))
        usable = class_name(live) == node["class"] and self._claim(node, live, path)
        if make is not None and not usable:
            live = make()
        self._expect(node, live, path, hasattr(live, "__dict__"))
        self.know(node, live, path)
        saved = {name for name, _ in pairs(node.get("state"), path)}
        lacking = attributes(live).keys() - saved
        if lacking:
            raise misfit(path, f"lacks {', '.join(sorted(lacking))}", "this strategy has it")
        self.members(node["state"], live, path)
        return live

    def _expect(self, node: Node, live: Value, path: str, able: bool) -> None:
        name = field(node, "class", str, path)
        if class_name(live) != name or not able or not self._claim(node, live, path):
            raise misfit(path, f"holds a {name}", f"this strategy has {described(live)} there")

    def module(self, node: Node, live: Value, path: str) -> Value:
        """Return the module that stands there; its parameters, buffers and attributes change."""
        if not isinstance(live, nn.Module) or is_stateful(live):
            raise misfit(path, "holds a module", f"this strategy has {described(live)} there")
        self.know(node, live, path)
        read_module(self, node, live, path)
        return live


_METHODS: Mapping[str, Callable[[Reader, Node, Any, str], Any]] = {
    "array": Reader._array,
    "code": Reader._code,
    "constant": Reader._constant,
    "device": Reader._device_of,
    "generator": Reader._generator,
    "handle": Reader._handle,
    "module": Reader.module,
    "object": Reader._object,
    "reference": Reader._reference,
    "same": Reader._same,
    "scalar": Reader._array,
    "stateful": Reader._stateful,
    "tensor": Reader.tensor,
}


def _new_deque(node: Node, path: str) -> deque[Any]:
    bound = node.get("maxlen")
    if bound is not None and (type(bound) is not int or not 0 <= bound < 1 << 31):
        raise malformed(path, f"{bound!r} is no length")
    return deque(maxlen=bound)
