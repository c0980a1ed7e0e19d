"""Which tensors were seen, and whether they have been changed since; nothing is read from them."""

from collections.abc import Sequence
from typing import TypeAlias

from torch import Tensor

Marks: TypeAlias = list[tuple[Tensor, int]]
"""Tensors, each with the count of its changes in place."""


def mark(tensors: Sequence[Tensor]) -> Marks:
    """Note which tensors these are and how often they have been changed in place.

    :param tensors: any tensors; they are kept alive by the result.
    :return: what :func:`same_marks` compares.
    """
    return [(tensor, tensor._version) for tensor in tensors]


def same_marks(marks: Marks, tensors: Sequence[Tensor]) -> bool:
    """Whether these are the very tensors that were marked, not known to be changed since.

    Changes that PyTorch does not count, through ``.data`` or by a fused optimiser, go unseen.

    :param marks: what :func:`mark` gave.
    :param tensors: the tensors now.
    """
    return len(marks) == len(tensors) and all(
        marked is tensor and version == tensor._version
        for (marked, version), tensor in zip(marks, tensors, strict=True)
    )


def share_tensors(marks: Marks, tensors: Sequence[Tensor]) -> bool:
    """Whether one of the tensors is among the marked ones, changed or not.

    :param marks: what :func:`mark` gave.
    :param tensors: the tensors now.
    """
    return bool({id(tensor) for tensor, _ in marks} & {id(tensor) for tensor in tensors})
