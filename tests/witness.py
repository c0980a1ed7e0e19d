"""An independent record of what the path integral should be, in float64."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


class Witness:
    """Sums ``-g * dtheta`` over an optimiser's steps, g as the backward passes brought it.

    Each parameter's gradient is taken from the tensor that reaches it within the backward pass,
    before anybody can change ``p.grad``. Weights are compared right before and right after
    ``optimizer.step()``.

    :param unscale: by what a ``GradScaler`` has multiplied the gradients, asked for at each pass.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer, unscale: Any = lambda: 1.0) -> None:
        self.parameters = dict(model.named_parameters())
        self.unscale = unscale
        self.path_integral = {n: torch.zeros_like(p).double() for n, p in self.parameters.items()}
        self.steps = 0
        self._gradient: dict[str, Tensor] = {}
        self._before: dict[str, Tensor] = {}
        for name, parameter in self.parameters.items():
            parameter.register_hook(lambda g, name=name: self._add(name, g))
        optimizer.register_step_pre_hook(lambda *_: self._begin())
        optimizer.register_step_post_hook(lambda *_: self._end())

    def forget_gradients(self) -> None:
        """Say that gradients were cleared without a step."""
        self._gradient = {}

    def _add(self, name: str, gradient: Tensor) -> None:
        task = gradient.detach().double() / self.unscale()
        self._gradient[name] = self._gradient.get(name, torch.zeros_like(task)) + task

    def _begin(self) -> None:
        self._before = {n: p.detach().double().clone() for n, p in self.parameters.items()}

    def _end(self) -> None:
        for name, gradient in self._gradient.items():
            moved = self.parameters[name].detach().double() - self._before[name]
            self.path_integral[name] -= gradient * moved
        self.steps += 1
        self._gradient = {}

    def assert_seen_by(self, si: Any, rtol: float = 1e-4, atol: float = 1e-9) -> None:
        """Compare with the path integral that was recorded."""
        assert self.steps == si.steps > 0
        assert any(bool(omega.any()) for omega in self.path_integral.values())
        for name, recorded in si.path_integral.items():
            expected = self.path_integral[name]
            torch.testing.assert_close(recorded.double(), expected, rtol=rtol, atol=atol)
