"""Objects to a tree of plain data: what cannot be restored later is refused by name."""

import math
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from avalanche.training.plugins import EvaluationPlugin
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from si_avalanche.checkpoint.document import Node, Value
from si_avalanche.checkpoint.kinds import (
    CODE,
    CONSTANTS,
    CONSTRUCTED,
    DATA,
    FACTORIES,
    GENERATORS,
    HANDLES,
    KEEPERS,
    MAPPINGS,
    SEQUENCES,
    attributes,
    class_name,
    code_name,
    is_stateful,
)
from si_avalanche.checkpoint.results import plain_results
from si_avalanche.errors import CheckpointError

REMEDY = (
    "Give the plugin (or the object) state_dict() and load_state_dict() that put it into plain "
    "data and tensors, or train without it."
)

_INTERNAL = vars(nn.Module()).keys()
_BUILTIN = (bytearray, bytes, dict, float, frozenset, int, list, set, str, tuple)


class Writer:
    """Encodes values as nodes and gathers their tensors; copies nothing, changes nothing.

    An object met again is written as a reference to its first place.

    :param references: names of the objects that a fresh strategy has anyway, by ``id``.
    :param plain: refuse everything but plain data and tensors.
    """

    def __init__(self, references: Mapping[int, str] | None = None, *, plain: bool = False) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.needed: dict[str, str] = {}
        """Where the fresh strategy must have an object to put state into, and its class."""
        self._references = references or {}
        self._plain = plain
        self._numbers: dict[int, int] = {}
        self._alive: list[object] = []
        self._templates = 0

    def encode(self, value: Value, path: str) -> Node:
        """Return the node of a value.

        :param value: what to store; it is only read, by its ``state_dict()`` if it has one.
        :param path: where the value stands, for messages.
        :raises CheckpointError: if a part of it cannot be stored, naming that part and the remedy.
        """
        if value is None or type(value) in (bool, str):
            return value
        if type(value) is int:
            return value if abs(value) < 1 << 62 else {"is": "int", "hex": hex(value)}
        if type(value) is float:
            return value if math.isfinite(value) else {"is": "float", "text": repr(value)}
        if id(value) in self._references:
            return {"is": "reference", "to": self._references[id(value)]}
        if id(value) in self._numbers:
            return {"is": "same", "id": self._numbers[id(value)]}
        return self._leaf(value, path) or self._container(value, path) or self.thing(value, path)

    def number(self, value: object) -> int:
        """Give an object the number by which later places refer to it."""
        # Kept alive: the id of a temporary object would be given to another one.
        self._alive.append(value)
        return self._numbers.setdefault(id(value), len(self._numbers))

    def tensor(self, value: Tensor, path: str) -> Node:
        """Return the node of a tensor.

        :raises CheckpointError: if it is not a dense tensor with values.
        """
        absent = value.is_meta or is_lazy(value)
        if absent or value.layout != torch.strided or value.is_quantized:
            raise refusal(value, path, "only dense tensors that have values can be stored")
        name = f"t{len(self.tensors)}"
        self.tensors[name] = value
        return {
            "is": "tensor",
            "id": self.number(value),
            "at": name,
            "on": "cpu" if value.device.type == "cpu" else "accelerator",
            "requires_grad": value.requires_grad and value.is_leaf,
            "parameter": isinstance(value, nn.Parameter),
        }

    def _leaf(self, value: Value, path: str) -> Node:
        if isinstance(value, Tensor):
            return self.tensor(value, path)
        if isinstance(value, np.generic | np.ndarray):
            return self._array(value, path)
        if type(value) is bytes:
            return {"is": "bytes", "hex": value.hex()}
        if isinstance(value, torch.device):
            return {"is": "device", "name": str(value)}
        if isinstance(value, torch.dtype):
            return {"is": "dtype", "name": str(value)}
        return None

    def _array(self, value: Value, path: str) -> Node:
        try:
            tensor = torch.from_numpy(np.ascontiguousarray(value).reshape(np.shape(value)))
        except (TypeError, ValueError) as error:
            raise refusal(value, path, str(error)) from error
        kind = "array" if isinstance(value, np.ndarray) else "scalar"
        return {"is": kind, "id": self.number(value), "tensor": self.tensor(tensor, path)}

    def _container(self, value: Value, path: str) -> Node:
        kind = SEQUENCES.get(type(value))
        if kind is not None:
            node = {"is": kind, "id": self.number(value)}
            if isinstance(value, deque):
                node["maxlen"] = value.maxlen
            node["items"] = [self.encode(item, f"{path}[{i}]") for i, item in enumerate(value)]
            return node
        kind = MAPPINGS.get(type(value))
        if kind is None:
            return None
        node = {"is": kind, "id": self.number(value)}
        if isinstance(value, defaultdict):
            node["factory"] = self._factory(value, path)
        node["items"] = [self._item(value, key, path) for key in value]
        return node

    def _factory(self, value: defaultdict[Any, Any], path: str) -> str:
        make = value.default_factory
        name = "None" if make is None else code_name(make)
        return name if name in FACTORIES else self._need(value, path, "its own")

    def _item(self, value: Mapping[Any, Any], key: Value, path: str) -> list[Node]:
        place, content = f"{path}[{key!r}]", value[key]
        make = getattr(value, "default_factory", None)
        templated = make is not None and type(make()) is type(content)
        self._templates += templated
        nodes = [self.encode(key, place), self.encode(content, place)]
        self._templates -= templated
        return nodes

    def thing(self, value: Value, path: str) -> Node:
        """Return the node of an object itself, also of one that others may refer to.

        :raises CheckpointError: if a part of it cannot be stored.
        """
        if self._plain or isinstance(value, DATA):
            raise refusal(value, path, "samples, models and other objects are not plain data")
        if isinstance(value, HANDLES):
            return {"is": "handle"}
        if isinstance(value, CODE):
            return {"is": "code", "name": self._need(value, path, code_name(value))}
        if isinstance(value, CONSTANTS):
            return {"is": "constant", "text": self._need(value, path, repr(value))}
        for kind, (cls, get, _) in GENERATORS.items():
            if isinstance(value, cls):
                self._need(value, path)
                state = self.encode(get(value), f"{path} (random state)")
                return {"is": "generator", "id": self.number(value), "kind": kind, "state": state}
        if is_stateful(value):
            return self._stateful(value, path)
        if isinstance(value, nn.Module):
            self._need(value, path)
            return self.encode_model(value, path)
        return self._object(value, path)

    def _stateful(self, value: Value, path: str) -> Node:
        node = {"is": "stateful", "id": self.number(value), "class": self._need(value, path)}
        plain = self._plain
        self._plain = True
        try:
            node["state"] = self.encode(value.state_dict(), f"{path}.state_dict()")
        finally:
            self._plain = plain
        return node

    def _object(self, value: Value, path: str) -> Node:
        builtin = isinstance(value, (*_BUILTIN, Iterator))
        if builtin or not hasattr(value, "__dict__"):
            raise refusal(value, path, "it is neither plain data nor an object with attributes")
        refuse_keepers(value, path)
        name = class_name(value)
        templated = name in CONSTRUCTED
        if not templated:
            self._need(value, path)
        self._templates += templated
        node = {"is": "object", "id": self.number(value), "class": name}
        values = attributes(value)
        if isinstance(value, EvaluationPlugin):
            values = plain_results(values, is_plain)
        node["state"] = self.members(values, path)
        self._templates -= templated
        return node

    def members(self, values: Mapping[str, Any], path: str) -> list[list[Node]]:
        """Return name and node of every attribute."""
        return [[name, self.encode(content, f"{path}.{name}")] for name, content in values.items()]

    def encode_model(self, module: nn.Module, path: str) -> Node:
        """Return the node of a module: parameters, buffers and plain attributes by name."""
        return {
            "is": "module",
            "id": self.number(module),
            "parameters": [
                [name, self.tensor(value, f"{path}.{name}"), value.requires_grad]
                for name, value in module.named_parameters()
            ],
            "buffers": [
                [name, self.tensor(value, f"{path}.{name}")]
                for name, value in module.named_buffers()
            ],
            "modes": [[name, part.training] for name, part in module.named_modules()],
            "attributes": [
                [name, attribute, self.encode(value, f"{path}.{name}.{attribute}")]
                for name, part in module.named_modules()
                for attribute, value in vars(part).items()
                if attribute not in _INTERNAL and is_plain(value)
            ],
            "extra": [
                [name, self.encode(part.get_extra_state(), f"{path}.{name}.get_extra_state()")]
                for name, part in module.named_modules()
                if type(part).get_extra_state is not nn.Module.get_extra_state
            ],
        }

    def _need(self, value: object, path: str, name: str | None = None) -> str:
        if not self._templates:
            self.needed[path] = class_name(value)
        return class_name(value) if name is None else name


def is_plain(value: object) -> bool:
    """Tell whether a value is plain data and tensors all through."""
    try:
        Writer(plain=True).encode(value, "")
    except (CheckpointError, RecursionError):
        return False
    return True


def refuse_keepers(value: object, path: str) -> None:
    """Refuse an object that is known to hold later what cannot be stored.

    :raises CheckpointError: naming the attribute and the remedy.
    """
    for keeper, attribute in KEEPERS.items():
        if isinstance(value, keeper):
            raise CheckpointError(
                f"{path} is a {class_name(value)}, whose attribute {attribute!r} will hold samples "
                f"or a copy of the model, which a checkpoint cannot store. {REMEDY}"
            )


def refusal(value: object, path: str, why: str) -> CheckpointError:
    """Return the error for a value that cannot be stored, naming its place and the remedy."""
    return CheckpointError(
        f"{path} holds a {class_name(value)}, which a checkpoint cannot store: {why}. {REMEDY}"
    )
