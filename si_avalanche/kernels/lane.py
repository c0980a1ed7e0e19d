"""Parameters that a step treats alike, as parallel lists."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

from torch import Tensor


@dataclass(frozen=True)
class Lane:
    """The weights of some parameters and what is kept of them; entry k belongs to parameter k.

    :param weights: the live parameters; only read.
    :param before: their copies from before the optimiser's step.
    :param path_integral: omega.
    :param anchor: theta*; only read.
    :param importance: Omega; only read.
    """

    weights: list[Tensor]
    before: list[Tensor]
    path_integral: list[Tensor]
    anchor: list[Tensor]
    importance: list[Tensor]

    @property
    def sizes(self) -> list[int]:
        """How many weights each parameter has."""
        return [weights.numel() for weights in self.weights]

    def part(self, places: Iterable[int]) -> "Lane":
        """Return the lane of the parameters at some places."""
        chosen = list(places)
        lists = (getattr(self, each.name) for each in fields(self))
        return Lane(*([tensors[place] for place in chosen] for tensors in lists))


_SMALL = 2**13
"""Entries that are no memory to speak of: tens of kilobytes."""


def groups(sizes: Sequence[int]) -> list[range]:
    """Cut a list of tensors so that no part is larger than the largest tensor, if that is large.

    :param sizes: the number of entries of each tensor.
    :return: the places of the tensors of each part, in order; together they are all.
    """
    parts: list[range] = []
    start, filled, limit = 0, 0, max([_SMALL, *sizes])
    for place, size in enumerate(sizes):
        if filled + size > limit:
            parts.append(range(start, place))
            start, filled = place, 0
        filled += size
    return [*parts, range(start, len(sizes))] if sizes else []
