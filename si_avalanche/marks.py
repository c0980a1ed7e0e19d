"""Which tensors were seen, and whether they have been changed since; nothing is read from them."""

from collections.abc import Sequence
from operator import is_
from typing import NamedTuple

from torch import Tensor


class Marks(NamedTuple):
    """Tensors, each with the count of its changes in place.

    :param tensors: the tensors, which are kept alive.
    :param versions: the counts; -1 for one that has been changed in any case.
    """

    tensors: list[Tensor]
    versions: list[int]


def mark(tensors: Sequence[Tensor]) -> Marks:
    """Note which tensors these are and how often they have been changed in place.

    :param tensors: any tensors; they are kept alive by the result.
    :return: what :func:`same_marks` compares.
    """
    return Marks(list(tensors), [tensor._version for tensor in tensors])


def joined(marks: Marks, more: Marks) -> Marks:
    """Return the marks of both.

    :param marks: what :func:`mark` gave.
    :param more: the same of other tensors.
    """
    return Marks(marks.tensors + more.tensors, marks.versions + more.versions)


def same_marks(marks: Marks, tensors: Sequence[Tensor]) -> bool:
    """Whether these are the very tensors that were marked, not known to be changed since.

    Changes that PyTorch does not count, through ``.data`` or by a fused optimiser, go unseen.

    :param marks: what :func:`mark` gave.
    :param tensors: the tensors now.
    """
    return (
        len(marks.tensors) == len(tensors)
        and all(map(is_, marks.tensors, tensors))
        and marks.versions == [tensor._version for tensor in tensors]
    )


def share_tensors(marks: Marks, tensors: Sequence[Tensor]) -> bool:
    """Whether one of the tensors is among the marked ones, changed or not.

    :param marks: what :func:`mark` gave.
    :param tensors: the tensors now.
    """
    return not set(map(id, marks.tensors)).isdisjoint(map(id, tensors))
