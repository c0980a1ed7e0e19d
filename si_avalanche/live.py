"""The protected parameters as the optimiser moves them."""

from collections.abc import Mapping, Sequence
from itertools import compress
from operator import is_

import torch
from torch import Tensor, nn

from si_avalanche.errors import ParameterSelectionError
from si_avalanche.module_tree import ModuleTree
from si_avalanche.state import state_dtype


class LiveParameters:
    """The protected parameters of a model, and a copy of them from before the optimiser's step.

    :param model: the module they belong to.
    :param parameters: the protected ones by name. They are only read.
    """

    def __init__(self, model: nn.Module, parameters: Mapping[str, nn.Parameter]) -> None:
        self._tree = ModuleTree(model)
        self._all = list(model.parameters())
        self._looks = _looks(self._all)
        self._parameters = dict(parameters)
        self._names = tuple(self._parameters)
        self._tensors = tuple(self._parameters.values())
        self._trainable = tuple(name for name, p in parameters.items() if p.requires_grad)
        self._has_narrow = any(p.element_size() < 4 for p in self._tensors)
        self._before = {
            name: torch.empty_like(p.detach(), dtype=state_dtype(p))
            for name, p in self._parameters.items()
        }

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all protected parameters, those frozen for now included."""
        return self._names

    @property
    def trainable_names(self) -> tuple[str, ...]:
        """The names of those that were not frozen when they were looked at."""
        return self._trainable

    @property
    def has_narrow(self) -> bool:
        """Whether some have entries of 16 bits or fewer."""
        return self._has_narrow

    def are_still_all_of(self, model: nn.Module) -> bool:
        """Whether the model has the same parameter objects, and they look as they did."""
        if not self._tree.is_still(model):
            now = list(model.parameters())
            if len(now) != len(self._all) or not all(map(is_, now, self._all)):
                return False
            self._tree = ModuleTree(model)
        return _looks(self._all) == self._looks

    def have_something_of(self, model: nn.Module) -> bool:
        """Whether the model has at least one of these very parameter objects."""
        return not set(map(id, self._all)).isdisjoint(map(id, model.parameters()))

    def with_other_weights(self, parameters: Mapping[str, nn.Parameter]) -> list[str]:
        """The names under which another parameter stands now, with other weights in old units.

        Waits for the device, but only if there is another parameter object.
        """
        pairs = ((name, old, parameters.get(name)) for name, old in self._parameters.items())
        return [
            name
            for name, old, new in pairs
            if new is not None and new is not old and not _starts_with(new, old)
        ]

    def names_with_gradient(self) -> tuple[str, ...]:
        """The names of those whose gradient is not ``None``."""
        present = [p.grad is not None for p in self._tensors]
        return self._names if all(present) else tuple(compress(self._names, present))

    def weights(self, names: Sequence[str]) -> list[Tensor]:
        """The weights in the dtype of the state: differentiable, not copied where it is theirs."""
        parameters = [self._parameters[name] for name in names]
        return [p.to(state_dtype(p)) for p in parameters]

    def parameters(self, names: Sequence[str]) -> list[Tensor]:
        """The live parameters themselves."""
        return [self._parameters[name] for name in names]

    def gradients(self, names: Sequence[str]) -> list[Tensor]:
        """The live gradients themselves, of names that have one.

        :raises ParameterSelectionError: if one is sparse.
        """
        gradients = [g for name in names if (g := self._parameters[name].grad) is not None]
        if not all(gradient.layout is torch.strided for gradient in gradients):
            self._refuse_sparse(names)
        return gradients

    def _refuse_sparse(self, names: Sequence[str]) -> None:
        for name in names:
            gradient = self._parameters[name].grad
            if gradient is not None and gradient.layout != torch.strided:
                raise ParameterSelectionError(
                    f"The gradient of {name!r} is sparse ({gradient.layout}), which is not "
                    "supported. Use sparse=False in its layer, or leave it out with "
                    f"exclude=[{name!r}]."
                )

    def all_gradients(self) -> list[Tensor]:
        """The live gradients of all that have one, in the order of the names.

        :raises ParameterSelectionError: if one is sparse.
        """
        return self.gradients(self.names)

    def remember(self, names: Sequence[str]) -> None:
        """Copy the weights of these parameters into the buffers that :meth:`before` returns.

        Gradients have to be switched off.
        """
        if names:
            torch._foreach_copy_(self.before(names), self.parameters(names))

    def before(self, names: Sequence[str]) -> list[Tensor]:
        """The copies that :meth:`remember` made, in the dtype of the state."""
        return [self._before[name] for name in names]

    def has_kept(self, name: str, other: "LiveParameters") -> bool:
        """Whether the very parameter of this name was that of another look at the model."""
        return self._parameters[name] is other._parameters.get(name)

    def copy_before(self, other: "LiveParameters", names: Sequence[str]) -> None:
        """Take over copies of weights from another look at the model."""
        for mine, theirs in zip(self.before(names), other.before(names), strict=True):
            mine.copy_(theirs)

    def have_moved(self, names: Sequence[str]) -> bool:
        """Whether a weight differs from its copy; waits for the device."""
        pairs = zip(self.weights(names), self.before(names), strict=True)
        return not all(torch.equal(now, before) for now, before in pairs)


def _looks(tensors: Sequence[Tensor]) -> list[tuple[object, ...]]:
    return [(p.requires_grad, p.shape, p.dtype, p.device) for p in tensors]


def _starts_with(new: Tensor, old: Tensor) -> bool:
    """Whether a parameter continues another one, which it may have outgrown."""
    if new.dim() != old.dim() or any(n < o for n, o in zip(new.shape, old.shape, strict=True)):
        return False
    part = new.detach()[tuple(slice(n) for n in old.shape)]
    return torch.equal(part.to("cpu", old.dtype), old.detach().cpu())
