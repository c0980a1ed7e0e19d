"""The protected parameters as the optimiser moves them."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from si_avalanche.state import state_dtype

Marks: TypeAlias = list[tuple[Tensor, int]]
"""Tensors, each with the count of its changes in place."""


class LiveParameters:
    """The protected parameters of a model, and a copy of them from before the optimiser's step.

    :param model: the module they belong to.
    :param parameters: the protected ones by name. They are only read.
    """

    def __init__(self, model: nn.Module, parameters: Mapping[str, nn.Parameter]) -> None:
        self._all = [(p, _look(p)) for p in model.parameters()]
        self._parameters = dict(parameters)
        self._before = {
            name: torch.empty_like(p.detach(), dtype=state_dtype(p))
            for name, p in self._parameters.items()
        }

    @property
    def names(self) -> list[str]:
        """The names of all protected parameters, those frozen for now included."""
        return list(self._parameters)

    @property
    def trainable_names(self) -> list[str]:
        """The names of those that are not frozen."""
        return [name for name, p in self._parameters.items() if p.requires_grad]

    def are_still_all_of(self, model: nn.Module) -> bool:
        """Whether the model has the same parameter objects, and they look as they did."""
        now = list(model.parameters())
        return len(now) == len(self._all) and all(
            p is then and _look(p) == look for p, (then, look) in zip(now, self._all, strict=True)
        )

    def names_with_gradient(self) -> list[str]:
        """The names of those whose gradient is not ``None``."""
        return [name for name, p in self._parameters.items() if p.grad is not None]

    def weights(self, names: Sequence[str]) -> list[Tensor]:
        """The weights in the dtype of the state: differentiable, not copied where it is theirs."""
        parameters = [self._parameters[name] for name in names]
        return [p.to(state_dtype(p)) for p in parameters]

    def gradients(self, names: Sequence[str]) -> list[Tensor]:
        """The live gradients themselves, of names that have one."""
        gradients = [self._parameters[name].grad for name in names]
        return [gradient for gradient in gradients if gradient is not None]

    @torch.no_grad()
    def remember(self, names: Sequence[str]) -> None:
        """Copy the weights of these parameters into the buffers that :meth:`before` returns."""
        torch._foreach_copy_(self.before(names), [self._parameters[name] for name in names])

    def before(self, names: Sequence[str]) -> list[Tensor]:
        """The copies that :meth:`remember` made, in the dtype of the state."""
        return [self._before[name] for name in names]

    def have_moved(self, names: Sequence[str]) -> bool:
        """Whether a weight differs from its copy; waits for the device."""
        pairs = zip(self.weights(names), self.before(names), strict=True)
        return not all(torch.equal(now, before) for now, before in pairs)


def _look(p: Tensor) -> tuple[object, ...]:
    return p.requires_grad, p.shape, p.dtype, p.device


def mark(tensors: Sequence[Tensor]) -> Marks:
    """Note which tensors these are and how often they have been changed in place.

    :param tensors: any tensors; they are kept alive by the result.
    :return: what :func:`same_marks` compares; nothing is read from the device.
    """
    return [(tensor, tensor._version) for tensor in tensors]


def same_marks(marks: Marks, tensors: Sequence[Tensor]) -> bool:
    """Whether these are the very tensors that were marked, unchanged since.

    :param marks: what :func:`mark` gave.
    :param tensors: the tensors now.
    """
    return len(marks) == len(tensors) and all(
        marked is tensor and version == tensor._version
        for (marked, version), tensor in zip(marks, tensors, strict=True)
    )
