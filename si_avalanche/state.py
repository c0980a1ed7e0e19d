"""What Synaptic Intelligence remembers of every parameter, by name."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from si_avalanche.errors import ModelChangedError
from si_avalanche.settings import FirstAnchor


def state_dtype(parameter: Tensor) -> torch.dtype:
    """Return the dtype of a parameter's state: its own, but float32 for the 16-bit ones."""
    return torch.promote_types(parameter.dtype, torch.float32)


def pick(tensors: Mapping[str, Tensor], names: Sequence[str]) -> list[Tensor]:
    """Return the tensors of these names, in their order."""
    return [tensors[name] for name in names]


@dataclass
class State:
    """Importance, path integral and anchor by parameter name, and the counters of the life.

    Every tensor has its parameter's shape and lies on its device, in float32 or better; none is a
    view of a live parameter.

    :param importance: Omega.
    :param path_integral: omega of the task in progress.
    :param anchor: theta*, the weights at the end of the last task.
    :param tasks: how many tasks have been consolidated.
    :param steps: optimiser steps recorded in the task in progress.
    """

    importance: dict[str, Tensor] = field(default_factory=dict)
    path_integral: dict[str, Tensor] = field(default_factory=dict)
    anchor: dict[str, Tensor] = field(default_factory=dict)
    tasks: int = 0
    steps: int = 0

    def fit(
        self,
        parameters: Mapping[str, nn.Parameter],
        names_in_model: Container[str],
        first_anchor: FirstAnchor,
    ) -> None:
        """Follow the model: adopt new parameters, grow with grown ones, move with moved ones.

        Units that exist already keep importance, path integral and anchor; new units start with
        importance and path integral zero, anchored at their present value (or at zero, see
        ``first_anchor``). State of a parameter that is skipped for now is kept untouched.

        :param parameters: the protected parameters by name; they are only read.
        :param names_in_model: all parameter names of the model, skipped ones included.
        :param first_anchor: where new units are anchored.
        :raises ModelChangedError: if a parameter with state has left the model or shrunk; nothing
            has been changed then.
        """
        for name, old in self.importance.items():
            if name not in names_in_model:
                raise ModelChangedError(
                    f"The parameter {name!r} carries importance but is not in the model. Put it "
                    "back, or start a new object for the new model."
                )
            if name in parameters and not _fits_into(old.shape, parameters[name].shape):
                raise ModelChangedError(
                    f"The parameter {name!r} changed its shape from {tuple(old.shape)} to "
                    f"{tuple(parameters[name].shape)}; it may only grow. Give the new layer a new "
                    "name, or start a new object for the new model."
                )
        for name, parameter in parameters.items():
            self._fit_one(name, parameter.detach(), first_anchor)

    def _fit_one(self, name: str, weights: Tensor, first_anchor: FirstAnchor) -> None:
        dtype = state_dtype(weights)
        zeros = torch.zeros_like(weights, dtype=dtype)
        for tensors, start in (
            (self.importance, zeros),
            (self.path_integral, zeros),
            (self.anchor, zeros if first_anchor == "zero" else weights),
        ):
            old = tensors.get(name)
            if old is not None and old.shape == weights.shape:
                tensors[name] = old.to(weights.device, dtype)
                continue
            tensors[name] = start.to(dtype, copy=True)
            if old is not None:
                tensors[name][tuple(slice(n) for n in old.shape)] = old.to(tensors[name])


def _fits_into(old: torch.Size, new: torch.Size) -> bool:
    return len(old) == len(new) and all(o <= n for o, n in zip(old, new, strict=True))
