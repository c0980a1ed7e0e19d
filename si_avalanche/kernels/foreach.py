"""What a step does to its parameters, by the formulas and PyTorch's foreach functions."""

from collections.abc import Sequence
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from si_avalanche import formulas
from si_avalanche.kernels.lane import Lane, groups

Strength: TypeAlias = float | Tensor
"""The factor c of the penalty in a gradient, a number or a 0-dimensional tensor."""


class Kernel(Protocol):
    """What a step does to the parameters of one lane; nothing here waits for the device."""

    def begin(self, gradients: Sequence[Tensor], strength: float) -> None:
        """Copy the weights and add the penalty's gradient to the gradients, in place.

        :param gradients: one for each parameter of the lane.
        :param strength: the factor of the penalty.
        """

    def pull(self, gradients: Sequence[Tensor], strength: Strength) -> None:
        """Add the penalty's gradient at the copied weights to the gradients, in place.

        :param gradients: one for each parameter of the lane.
        :param strength: the factor of the penalty; a negative one takes it off.
        """

    def end(self, gradients: Sequence[Tensor], strength: Strength | None, moved_only: bool) -> None:
        """Add the step from the copied weights to the live ones to the path integral, in place.

        The copies are used up.

        :param gradients: one for each parameter of the lane; only read.
        :param strength: the factor of the penalty in them, which the path integral does not take;
            ``None`` if they are what it takes.
        :param moved_only: whether they may be infinite where a weight did not move.
        """


class ForeachKernel:
    """The formulas, group by group, in no more memory than the largest parameter has.

    :param lane: the parameters.
    """

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._groups = [(part, lane.part(part)) for part in groups(lane.sizes)]

    def begin(self, gradients: Sequence[Tensor], strength: float) -> None:
        """See :meth:`Kernel.begin`."""
        torch._foreach_copy_(self._lane.before, self._lane.weights)
        self.pull(gradients, strength)

    def pull(self, gradients: Sequence[Tensor], strength: Strength) -> None:
        """See :meth:`Kernel.pull`."""
        for places, lane in self._groups:
            mine = [gradients[place] for place in places]
            torch._foreach_add_(mine, _penalty_gradient(lane, strength))

    def end(self, gradients: Sequence[Tensor], strength: Strength | None, moved_only: bool) -> None:
        """See :meth:`Kernel.end`."""
        for places, lane in self._groups:
            _end([gradients[place] for place in places], lane, strength, moved_only)


def _end(gradients: list[Tensor], lane: Lane, strength: Strength | None, moved_only: bool) -> None:
    integrand = gradients
    if strength is not None:
        integrand = _penalty_gradient(lane, -strength)
        torch._foreach_add_(integrand, gradients)
    if not moved_only:
        formulas.add_path_increment_(lane.path_integral, integrand, lane.before, lane.weights)
        return
    columns = zip(lane.path_integral, integrand, lane.before, lane.weights, strict=True)
    for path_integral, gradient, before, weights in columns:
        stayed = before == weights
        fill = gradient.masked_fill if integrand is gradients else gradient.masked_fill_
        formulas.add_path_increment_([path_integral], [fill(stayed, 0.0)], [before], [weights])


def _penalty_gradient(lane: Lane, strength: Strength) -> list[Tensor]:
    return formulas.penalty_gradient(lane.before, lane.anchor, lane.importance, strength)
