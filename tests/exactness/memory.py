"""What a piece of code calls, reads and holds, told by PyTorch's dispatcher and the collector."""

import gc
import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

WAITS = {"_local_scalar_dense", "equal", "item", "nonzero", "is_nonzero"}
"""What makes a program wait for a GPU."""


class Touched(TorchDispatchMode):
    """Notes where the tensors lie that are read or written."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.pointers: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.pointers.update(t.data_ptr() for t in tensors_in([args, kwargs or {}]))
        return func(*args, **(kwargs or {}))


class Watcher(TorchDispatchMode):
    """Notes what is called, and the most bytes that new tensors hold at once."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: set[str] = set()
        self.largest = 0
        self._held = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls.add(func.overloadpacket.__name__)
        known = {t.untyped_storage().data_ptr() for t in tensors_in(args)}
        result = func(*args, **(kwargs or {}))
        for tensor in tensors_in([result]):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in known | self._known:
                self._known.add(storage.data_ptr())
                self._held += storage.nbytes()
                weakref.finalize(tensor, self._free, storage.data_ptr(), storage.nbytes())
        self.largest = max(self.largest, self._held)
        return result

    def _free(self, pointer: int, size: int) -> None:
        self._known.discard(pointer)
        self._held -= size


def tensors_in(things: Any) -> list[Tensor]:
    """All tensors in lists, tuples and dictionaries."""
    if isinstance(things, Tensor):
        return [things]
    if isinstance(things, dict):
        things = list(things.values())
    if isinstance(things, list | tuple):
        return [tensor for thing in things for tensor in tensors_in(thing)]
    return []


def living_bytes() -> int:
    """How much memory all tensors hold together, gradients included."""
    gc.collect()
    storages = {}
    for thing in gc.get_objects():
        if type(thing) in (Tensor, nn.Parameter):
            # Of a gradient that nobody has asked for, the collector does not know.
            gradient = thing.grad if thing.is_leaf else None
            for tensor in [thing] if gradient is None else [thing, gradient]:
                if tensor.layout == torch.strided and tensor.device.type == "cpu":
                    storage = tensor.untyped_storage()
                    storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def size_of(tensors: Any) -> int:
    """The bytes of some tensors."""
    return sum(t.numel() * t.element_size() for t in tensors)
