"""Compiling an elementwise function of lists of tensors once, for tensors of any sizes."""

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
    """Return a function compiled for so many lists of ``WIDTH`` tensors, and so many numbers.

    Tensors of the same place in the lists have the same shape, and lie in memory alike and without
    gaps; all have the dtype and device of ``like``. Where compiling does not work, that is logged
    once and ``None`` is returned.
    """
    if not _Compiler.works:
        return None
    try:
        kind = like.dtype, like.device, torch.get_num_threads()
        return _compiled(function, lists, numbers, *kind)
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
    device: Any,  # noqa: ANN401
    _threads: int,
) -> Function:
    capture, place = _Capture(), {"dtype": dtype, "device": device}
    # What is seen first decides what it is compiled for: large tensors, no two of one size.
    sizes = [2**17 + k for k in range(WIDTH)]
    example = [[torch.ones(n, **place) for n in sizes] for _ in range(lists)]
    vector = torch.ones(numbers, **place)
    # Without the assertions a tensor of any shape will do, if it lies in memory without gaps.
    with torch._inductor.config.patch(size_asserts=False):
        torch.compile(function, backend=capture, fullgraph=True, dynamic=True)(example, vector)
    return capture.as_it_was_called_with([*chain(*example), vector])


class _Capture:
    """A backend that keeps what Inductor made, to be called without looking for what changed.

    Nothing can have: callers see to dtype, device and layout. On a small model that look would
    take longer than the arithmetic.
    """

    def __init__(self) -> None:
        self._call: Callable[[list[Any]], object] | None = None
        self._called_with: list[Any] = []

    def __call__(self, graph: fx.GraphModule, inputs: list[Tensor]) -> Any:  # noqa: ANN401
        """Compile, as ``torch.compile`` asks its backends to."""
        from torch._inductor.compile_fx import compile_fx, compile_fx_inner

        def innermost(graph: fx.GraphModule, inputs: list[Any], **more: Any) -> Any:  # noqa: ANN401
            code: Any = compile_fx_inner(graph, inputs, **more)
            # The generated function itself, where it can be reached.
            self._call = getattr(code, "current_callable", None) or code

            def first(args: list[Any]) -> object:
                self._called_with = list(args)
                return code(args)

            first._boxed_call = True  # type: ignore[attr-defined]
            return first

        return compile_fx(graph, inputs, inner_compile=innermost)

    def as_it_was_called_with(self, tensors: Sequence[Tensor]) -> Function:
        """Return a function of lists and numbers that calls it in the order it was called in."""
        call, args = self._call, self._called_with
        # What is compiled is kept, and this object with it.
        self._called_with = []
        if call is None:
            raise RuntimeError("torch.compile did not ask its backend")
        sizes, pointers = [t.numel() for t in tensors], [t.data_ptr() for t in tensors]
        # Sizes are handed over as well, as whole numbers.
        measured = [(k, sizes.index(a)) for k, a in enumerate(args) if isinstance(a, int)]
        places = [0 if isinstance(a, int) else pointers.index(a.data_ptr()) for a in args]

        def run(lists: Lists, numbers: Tensor) -> None:
            given = [*chain(*lists), numbers]
            ordered: list[Any] = [given[place] for place in places]
            for k, place in measured:
                ordered[k] = given[place].numel()
            call(ordered)

        return run
