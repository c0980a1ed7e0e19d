"""Compiling a function of lists of tensors once, for tensors of any sizes."""

import logging
from collections.abc import Callable, Sequence
from functools import cache
from itertools import chain
from typing import Any, TypeAlias

import torch
from torch import Tensor, fx

WIDTH = 6
"""How many tensors a list has: what compiling costs grows with it, what calling costs falls."""

_log = logging.getLogger("si_avalanche")

Lists: TypeAlias = Sequence[Sequence[Tensor]]
"""Parallel lists of tensors."""

Function: TypeAlias = Callable[[Lists, Tensor], None]
"""What is compiled: it changes tensors of lists in place; the last argument holds numbers."""


class _Compiler:
    """Whether compiling works here."""

    works = True


def compiled(function: Function, lists: int, numbers: int, like: Tensor) -> Function | None:
    """Return a function compiled for lists of ``WIDTH`` tensors of any sizes.

    :param function: what to compile; elementwise.
    :param lists: how many lists it takes; entries of the same place have the same shape, and lie in
        memory alike and without gaps.
    :param numbers: how many numbers it takes, in one tensor.
    :param like: a tensor of the dtype and device of all of them.
    :return: the compiled function, which takes what :attr:`Function` takes; ``None`` if compiling
        does not work here, which is logged once.
    """
    if not _Compiler.works:
        return None
    threads = torch.get_num_threads()
    try:
        return _compiled(function, lists, numbers, like.dtype, like.device, threads)
    except Exception as error:  # whatever a missing or broken compiler raises
        _Compiler.works = False
        _log.warning(
            "torch.compile does not work here (%s): fused=True makes its steps by hooks instead, "
            "with the same numbers.",
            type(error).__name__,
        )
        return None


@cache
def _compiled(
    function: Function,
    lists: int,
    numbers: int,
    dtype: torch.dtype,
    device: torch.device,
    threads: int,
) -> Function:
    """Compile for any sizes and this number of threads.

    What is seen first decides what it is compiled for: large tensors, no two of one size.
    """
    capture = _Capture()
    sizes = [2**17 + k for k in range(WIDTH)]
    example = [[torch.ones(n, dtype=dtype, device=device) for n in sizes] for _ in range(lists)]
    settings = torch.ones(numbers, dtype=dtype, device=device)
    # Without the assertions a tensor of any shape will do, if it lies in memory without gaps.
    with torch._inductor.config.patch(size_asserts=False):
        torch.compile(function, backend=capture, fullgraph=True, dynamic=True)(example, settings)
    return capture.as_it_was_called_with([*chain(*example), settings])


class _Capture:
    """A backend that keeps what Inductor made, to be called without looking for what changed.

    Nothing can have: callers see to dtype, device and layout. On a small model that look would
    take longer than the arithmetic.
    """

    def __init__(self) -> None:
        self._call: Callable[[list[Any]], object] | None = None
        self._called_with: list[Any] = []

    def __call__(self, graph: fx.GraphModule, inputs: list[Tensor]) -> Callable[..., object]:
        """Compile, as ``torch.compile`` asks its backends to."""
        from torch._inductor.compile_fx import compile_fx, compile_fx_inner

        def innermost(graph: fx.GraphModule, inputs: list[Any], **more: Any) -> Any:
            code: Any = compile_fx_inner(graph, inputs, **more)
            # The generated function itself, where it can be reached.
            self._call = getattr(code, "current_callable", None) or code

            def first(args: list[Any]) -> object:
                self._called_with = list(args)
                return code(args)

            first._boxed_call = True  # type: ignore[attr-defined]
            return first

        made: Callable[..., object] = compile_fx(graph, inputs, inner_compile=innermost)
        return made

    def as_it_was_called_with(self, tensors: Sequence[Tensor]) -> Function:
        """Return a function of lists and numbers that calls it in the order it was called in."""
        call = self._call
        if call is None:
            raise RuntimeError("torch.compile did not ask its backend")
        places_of, sizes = (
            {t.data_ptr(): k for k, t in enumerate(tensors)},
            [t.numel() for t in tensors],
        )
        # Handed over: what is compiled is kept, and this object with it.
        args, self._called_with = self._called_with, []
        # Sizes are handed over as well, as whole numbers.
        measured = [(k, sizes.index(a)) for k, a in enumerate(args) if isinstance(a, int)]
        places = [0 if isinstance(a, int) else places_of[a.data_ptr()] for a in args]

        def run(lists: Lists, numbers: Tensor) -> None:
            given = [*chain(*lists), numbers]
            ordered: list[Any] = [given[place] for place in places]
            for k, place in measured:
                ordered[k] = given[place].numel()
            call(ordered)

        return run
