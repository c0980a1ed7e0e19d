"""A snapshot of living objects, to put everything back after a failure."""

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from si_avalanche.checkpoint.document import Value
from si_avalanche.checkpoint.kinds import CODE, CONSTANTS, DATA, GENERATORS, HANDLES


class Snapshot:
    """Copies of all state reachable from an object; samples, code and loggers are left out.

    Every object keeps its identity when it is put back, and gets its old content. A snapshot
    takes the memory of all tensors that it reaches.

    :param root: where to start; it is only read.
    """

    def __init__(self, root: object) -> None:
        self._undo: list[Callable[[], object]] = []
        self._seen: dict[int, object] = {}
        waiting: list[object] = [root]
        while waiting:
            value = waiting.pop()
            if id(value) in self._seen or isinstance(value, CODE + CONSTANTS + DATA + HANDLES):
                continue
            self._seen[id(value)] = value
            waiting.extend(self._keep(value))

    def restore(self) -> None:
        """Give every object its old content."""
        for undo in self._undo:
            undo()

    def _keep(self, value: Value) -> list[object]:
        inner: list[object] = []
        if isinstance(value, Tensor):
            self._keep_tensor(value)
        elif isinstance(value, np.ndarray):
            old = value.copy()
            self._undo.append(lambda: np.copyto(value, old))
        elif isinstance(value, dict):
            inner = self._keep_dict(value)
        elif isinstance(value, list | set | deque):
            inner = self._keep_items(value)
        elif isinstance(value, tuple | frozenset):
            inner = list(value)
        elif isinstance(value, tuple(cls for cls, *_ in GENERATORS.values())):
            self._keep_generator(value)
        members = getattr(value, "__dict__", None)
        return [*inner, *self._keep_dict(members)] if isinstance(members, dict) else inner

    def _keep_tensor(self, value: Tensor) -> None:
        if value.is_meta or value.layout != torch.strided or is_lazy(value):
            return
        # On the CPU, so that a model that fills its device can still be resumed.
        data, old = value.data, value.detach().to("cpu", copy=True)
        requires_grad = value.requires_grad

        def undo() -> None:
            # The tensor may have been given other data; the old memory may have been written to.
            value.data = data if 0 in data.stride() else data.copy_(old)
            if value.is_leaf:
                value.requires_grad_(requires_grad)

        self._undo.append(undo)

    def _keep_generator(self, value: Value) -> None:
        _, get, put = next(way for way in GENERATORS.values() if isinstance(value, way[0]))
        state = get(value)
        self._undo.append(lambda: put(value, state))

    def _keep_dict(self, value: dict[Any, Any]) -> list[object]:
        old = dict(value)

        def undo() -> None:
            value.clear()
            for key, content in old.items():
                value[key] = content

        self._undo.append(undo)
        return [*old.keys(), *old.values()]

    def _keep_items(self, value: Value) -> list[object]:
        old = list(value)
        fill = value.update if isinstance(value, set) else value.extend

        def undo() -> None:
            value.clear()
            fill(old)

        self._undo.append(undo)
        return old
