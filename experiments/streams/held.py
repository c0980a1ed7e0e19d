"""Where a data set's samples lie in memory, carried along by Avalanche wherever they go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from avalanche.benchmarks.utils import DataAttribute

from experiments.untyped import Dataset

Columns: TypeAlias = tuple[torch.Tensor, ...]
"""What samples consist of, such as inputs, labels and task labels: one tensor each."""

_NAME = "held"


class Held(DataAttribute):
    """A data attribute that knows, for each sample, the row of the tensors that hold it.

    Avalanche cuts and joins attributes together with their data sets, so that a replay buffer or
    a part of an experience still knows its rows, and its samples are gathered by index instead of
    being read one by one. It stands for samples that no transformation alters.

    :param sources: tensors that hold samples, alike but for their length; they are not copied.
    :param which: for each sample the number of its source, shape ``(n,)``, int64.
    :param rows: for each sample its row there, shape ``(n,)``, int64.
    """

    def __init__(
        self, sources: tuple[Columns, ...], which: torch.Tensor, rows: torch.Tensor
    ) -> None:
        super().__init__(range(len(rows)), _NAME)
        self._sources = sources
        self._which = which
        self._rows = rows

    @classmethod
    def whole(cls, columns: Columns) -> Held:
        """Stand for all samples of some tensors, in their order.

        :param columns: the tensors, of equal length; they are not copied.
        :return: the attribute.
        """
        count = len(columns[0])
        return cls((columns,), torch.zeros(count, dtype=torch.int64), torch.arange(count))

    def subset(self, indices: Sequence[int]) -> Held:
        """Keep the samples at the given positions.

        :param indices: positions, in the order wanted.
        :return: a new attribute over the same tensors.
        """
        chosen = torch.as_tensor(list(indices), dtype=torch.int64)
        return Held(self._sources, self._which[chosen], self._rows[chosen])

    def concat(self, other: Held) -> Held:
        """Append the samples of another.

        :param other: over tensors of the same kind.
        :return: a new attribute over the tensors of both.
        """
        new = [each for each in other._sources if not _is_in(each, self._sources)]
        sources = (*self._sources, *new)
        places = torch.tensor([_place(each, sources) for each in other._sources])
        return Held(
            sources,
            torch.cat([self._which, places[other._which]]),
            torch.cat([self._rows, other._rows]),
        )

    def gather(self) -> Columns:
        """Give the samples as tensors.

        :return: the tensors that hold them, if these are all there is in them and in their order;
            copies of their rows otherwise.
        """
        first = self._sources[0]
        everything = torch.arange(len(first[0]))
        if not self._which.any() and torch.equal(self._rows, everything):
            return first
        columns = tuple(each.new_empty((len(self._rows), *each.shape[1:])) for each in first)
        for number, source in enumerate(self._sources):
            here = self._which == number
            for column, held in zip(columns, source, strict=True):
                column[here] = held[self._rows[here]]
        return columns


def _is_in(columns: Columns, sources: tuple[Columns, ...]) -> bool:
    return any(columns is each for each in sources)


def _place(columns: Columns, sources: tuple[Columns, ...]) -> int:
    return next(number for number, each in enumerate(sources) if each is columns)


def held_by(dataset: Dataset) -> Columns | None:
    """Give the samples of a data set as tensors, if it knows where they lie.

    :param dataset: an Avalanche data set.
    :return: see :meth:`Held.gather`; None if some of its samples are not held.
    """
    held = getattr(dataset, _NAME, None)
    return held.gather() if isinstance(held, Held) else None
