"""The arithmetic of a step compiled into one pass over memory, once for all models."""

from collections.abc import Sequence
from operator import is_

import torch
from torch import Tensor

from si_avalanche.kernels.compiler import WIDTH, Flat, Function, run_compiled
from si_avalanche.kernels.foreach import ForeachKernel, Kernel, Strength
from si_avalanche.kernels.lane import Lane

_LARGE = 2**13
"""Entries from which on a tensor is worth a call; smaller ones fill it up."""

_DTYPES = (torch.float32, torch.float64)


def _begin(lists: Sequence[Flat], factor: Tensor) -> None:
    for before, theta, gradient, star, omega in zip(*lists, strict=True):
        gradient.add_((theta - star) * omega * factor)
        before.copy_(theta)


def _end(lists: Sequence[Flat], factor: Tensor) -> None:
    for before, theta, gradient, star, omega, path in zip(*lists, strict=True):
        back = before - theta
        task_gradient = gradient - (before - star) * omega * factor
        path.add_(torch.where(back == 0, 0.0, task_gradient) * back)


class CompiledKernel:
    """Large tensors in one pass over memory, the rest by the foreach functions.

    :param lane: the parameters.
    """

    def __init__(self, lane: Lane) -> None:
        sizes = lane.sizes
        fitting = sorted(_fitting(lane), key=lambda place: -sizes[place])
        large = sum(sizes[place] >= _LARGE for place in fitting)
        filled = fitting[: -(-large // WIDTH) * WIDTH]
        taken = [filled[k : k + WIDTH] for k in range(0, len(filled), WIDTH)]
        self._parts: list[tuple[list[int], Kernel]] = [
            (places, _CompiledGroup(lane.part(places))) for places in taken
        ]
        rest = sorted(set(range(len(sizes))) - set(filled))
        if rest:
            self._parts.append((rest, ForeachKernel(lane.part(rest))))

    def begin(self, gradients: Sequence[Tensor], strength: float) -> None:
        """See :meth:`~si_avalanche.kernels.foreach.Kernel.begin`."""
        for places, kernel in self._parts:
            kernel.begin([gradients[place] for place in places], strength)

    def pull(self, gradients: Sequence[Tensor], strength: Strength) -> None:
        """See :meth:`~si_avalanche.kernels.foreach.Kernel.pull`."""
        for places, kernel in self._parts:
            kernel.pull([gradients[place] for place in places], strength)

    def end(self, gradients: Sequence[Tensor], strength: Strength | None, moved_only: bool) -> None:
        """See :meth:`~si_avalanche.kernels.foreach.Kernel.end`."""
        for places, kernel in self._parts:
            kernel.end([gradients[place] for place in places], strength, moved_only)


class _CompiledGroup:
    """At most ``WIDTH`` tensors, filled up with tiny ones: calls are compiled for that number."""

    def __init__(self, lane: Lane) -> None:
        self._lane, self._plain = lane, ForeachKernel(lane)
        self._layout = [(weights.dtype, weights.stride()) for weights in lane.before]
        kept = (lane.before, lane.anchor, lane.importance, lane.path_integral)
        self._kept = [self._fill([_flat(tensor) for tensor in tensors]) for tensors in kept]
        self._no_gradients = self._fill([])[len(lane.weights) :]
        self._weights: Flat = []
        self._pointers: list[int] = []
        # Views made at the beginning of a step, for its end.
        self._seen: list[Tensor] = []
        self._gradients: Flat | None = None
        self._strength: Strength = 0.0
        self._factor = _factor(0.0)

    def begin(self, gradients: Sequence[Tensor], strength: float) -> None:
        self._gradients = self._flat_gradients(gradients)
        if self._gradients is None or not self._run(_begin, 3, self._gradients, strength):
            self._plain.begin(gradients, strength)
        else:
            self._seen = list(gradients)

    def pull(self, gradients: Sequence[Tensor], strength: Strength) -> None:
        self._plain.pull(gradients, strength)

    def end(self, gradients: Sequence[Tensor], strength: Strength | None, moved_only: bool) -> None:
        seen, self._seen = self._seen, []
        flat, self._gradients = self._gradients, None
        if len(seen) != len(gradients) or not all(map(is_, seen, gradients)):
            flat = self._flat_gradients(gradients)
        # Without a penalty there are too few passes to save.
        if flat is None or strength is None or not self._run(_end, 4, flat, strength):
            self._plain.end(gradients, strength, moved_only)

    def _run(self, function: Function, kept: int, gradients: Flat, strength: Strength) -> bool:
        """Whether it could be run, on so many of the kept lists; if not, nothing has changed."""
        pointers = [weights.data_ptr() for weights in self._lane.weights]
        if pointers != self._pointers:
            if not self._look_like_before(self._lane.weights):
                return False
            self._weights = self._fill([_flat(weights.detach()) for weights in self._lane.weights])
            self._pointers = pointers
        if strength is not self._strength:
            self._strength, self._factor = strength, _factor(strength)
        before, *more = self._kept[:kept]
        return run_compiled(function, [before, self._weights, gradients, *more], self._factor)

    def _flat_gradients(self, gradients: Sequence[Tensor]) -> Flat | None:
        if not self._look_like_before(gradients):
            return None
        return [_flat(gradient) for gradient in gradients] + self._no_gradients

    def _look_like_before(self, tensors: Sequence[Tensor]) -> bool:
        return [(tensor.dtype, tensor.stride()) for tensor in tensors] == self._layout

    def _fill(self, flat: Flat) -> Flat:
        like = self._lane.before[0]
        return flat + [like.new_zeros(2) for _ in range(WIDTH - len(flat))]


def _fitting(lane: Lane) -> list[int]:
    """The places of what a compiled call can take: dense tensors of one dtype and device."""
    columns = zip(
        lane.before, lane.weights, lane.path_integral, lane.anchor, lane.importance, strict=True
    )
    looks = [{(t.dtype, t.device, t.stride()) for t in tensors} for tensors in columns]
    first = lane.before[max(range(len(looks)), key=lane.sizes.__getitem__)]
    return [
        place
        for place, (look, tensor) in enumerate(zip(looks, lane.before, strict=True))
        if len(look) == 1
        and tensor.dtype in _DTYPES
        and (tensor.dtype, tensor.device) == (first.dtype, first.device)
        and tensor.numel() > 1
        and _is_dense(tensor)
    ]


def _is_dense(tensor: Tensor) -> bool:
    """Whether the entries fill their memory without gaps, in whatever order."""
    reach = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
    return reach == tensor.numel() - 1


def _flat(tensor: Tensor) -> Tensor:
    """A view of a dense tensor as it lies in memory."""
    if tensor.is_contiguous():
        return tensor if tensor.dim() == 1 else tensor.ravel()
    return tensor.as_strided((tensor.numel(),), (1,))


def _factor(strength: Strength) -> Tensor:
    # A tensor: with a number, each new strength would be compiled anew.
    return torch.as_tensor(2.0 * strength, dtype=torch.float64)
