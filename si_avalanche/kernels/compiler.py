"""Compiling a function of lists of tensors once, for tensors of any sizes."""

import logging
from collections.abc import Callable, Sequence
from functools import cache
from itertools import chain
from typing import TypeAlias

import torch
from torch import Tensor, fx

WIDTH = 6
"""How many tensors a list has: what compiling costs grows with it, what calling costs falls."""

_log = logging.getLogger("si_avalanche")

Flat: TypeAlias = list[Tensor]
"""``WIDTH`` tensors of one dimension, of any sizes from 2 on."""

Function: TypeAlias = Callable[[Sequence[Flat], Tensor], None]
"""What is compiled: it changes tensors of lists in place; the last argument is a number."""


class _Compiler:
    """Whether compiling works here."""

    works = True


def run_compiled(function: Function, lists: Sequence[Flat], factor: Tensor) -> bool:
    """Run a function compiled; the first time, compile it.

    :param function: what to run.
    :param lists: entries of the same place have the same size, all have the same dtype and device.
    :param factor: 0-dimensional, float64, on the CPU.
    :return: whether it was run; if not, which is logged once, nothing has been changed.
    """
    if not _Compiler.works:
        return False
    like = lists[0][0]
    try:
        run = _compiled(function, len(lists), like.dtype, like.device, torch.get_num_threads())
    except Exception as error:  # whatever a missing or broken compiler raises
        _Compiler.works = False
        _log.warning(
            "torch.compile does not work here (%s): steps take more passes over memory, the "
            'numbers are the same. kernel="foreach" does without it.',
            type(error).__name__,
        )
        return False
    run(lists, factor)
    return True


@cache
def _compiled(
    function: Function, lists: int, dtype: torch.dtype, device: torch.device, threads: int
) -> Function:
    """Compile for any sizes and this number of threads.

    What is seen first decides what it is compiled for: large tensors, no two of one size.
    """
    capture = _Capture()
    sizes = [2**17 + k for k in range(WIDTH)]
    example = [[torch.zeros(n, dtype=dtype, device=device) for n in sizes] for _ in range(lists)]
    factor = torch.zeros((), dtype=torch.float64)
    torch.compile(function, backend=capture, fullgraph=True, dynamic=True)(example, factor)
    return capture.as_it_was_called_with([*chain(*example), factor])


class _Capture:
    """A backend that keeps what Inductor made, to be called without looking for what changed.

    Nothing can have: callers see to dtype, device and layout. On a small model that look would
    take as long as the arithmetic.
    """

    def __init__(self) -> None:
        self._inner: Callable[..., object] | None = None
        self._called_with: tuple[object, ...] = ()

    def __call__(self, graph: fx.GraphModule, inputs: list[Tensor]) -> Callable[..., object]:
        """Compile, as ``torch.compile`` asks its backends to."""
        inner = self._inner = torch._dynamo.lookup_backend("inductor")(graph, inputs)

        def first(*args: object) -> object:
            self._called_with = args
            return inner(*args)  # type: ignore[arg-type]

        return first

    def as_it_was_called_with(self, tensors: Sequence[Tensor]) -> Function:
        """Return a function of lists and factor that calls it in the order it was called in."""
        inner = self._inner
        if inner is None:
            raise RuntimeError("torch.compile did not ask its backend")
        ids, sizes = [id(t) for t in tensors], [t.numel() for t in tensors]
        # Sizes are handed over as well, as whole numbers.
        args = self._called_with
        measured = [(k, sizes.index(a)) for k, a in enumerate(args) if isinstance(a, int)]
        places = [0 if isinstance(a, int) else ids.index(id(a)) for a in args]

        def run(lists: Sequence[Flat], factor: Tensor) -> None:
            flat = [*chain(*lists), factor]
            ordered: list[Tensor | int] = [flat[place] for place in places]
            for k, place in measured:
                ordered[k] = flat[place].numel()
            inner(*ordered)

        return run
