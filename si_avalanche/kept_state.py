"""What may be read of the state that Synaptic Intelligence keeps."""

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from si_avalanche import formulas
from si_avalanche.binding import Binding
from si_avalanche.state import State


class KeptState:
    """Read access to importance, path integral, anchor and counters, by parameter name.

    The mappings give the kept tensors themselves, not copies; each has its parameter's shape and
    device, in the parameter's dtype (float32 for 16-bit ones).
    """

    _state: State
    _bound: Binding

    @property
    def importance(self) -> Mapping[str, Tensor]:
        """Omega by parameter name: the kept tensors themselves, not copies."""
        return MappingProxyType(self._state.importance)

    @property
    def path_integral(self) -> Mapping[str, Tensor]:
        """Omega (small) of the task in progress, by name: the kept tensors themselves."""
        return MappingProxyType(self._state.path_integral)

    @property
    def anchor(self) -> Mapping[str, Tensor]:
        """Theta* by parameter name: the kept tensors themselves, not copies."""
        return MappingProxyType(self._state.anchor)

    # The names under which the three-call class is known.
    omega, running_sum, prev_params = importance, path_integral, anchor

    @property
    def skipped(self) -> Mapping[str, str]:
        """The model's parameters that are not protected, each with the reason."""
        return MappingProxyType(self._bound.skipped)

    @property
    def tasks(self) -> int:
        """How many tasks have been consolidated."""
        return self._state.tasks

    @property
    def steps(self) -> int:
        """How many optimiser steps have been recorded in the task in progress."""
        return self._state.steps

    @torch.no_grad()
    def total_importance(self) -> Tensor:
        """Return the sum of Omega over all parameters, a scalar on the first one's device."""
        return formulas.total(list(self._state.importance.values()))
