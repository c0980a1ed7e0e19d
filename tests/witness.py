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
    :param accumulates: whether all passes of a step count, or the last one alone.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        unscale: Any = lambda: 1.0,
        *,
        accumulates: bool = True,
    ) -> None:
        self.unscale = unscale
        self.accumulates = accumulates
        self.path_integral: dict[str, Tensor] = {}
        self.steps = 0
        self._model = model
        self._hooked: set[Any] = set()
        self._gradient: dict[Tensor, Tensor] = {}
        self._before: dict[str, Tensor] = {}
        self._within = 0
        self.follow(model, optimizer)

    def follow(self, model: nn.Module, optimizer: Optimizer) -> None:
        """Watch this model and optimiser from now on, with what is new in them."""
        self._model = model
        for parameter in model.parameters():
            if parameter not in self._hooked and parameter.requires_grad:
                parameter.register_hook(lambda g, p=parameter: self._add(p, g))
                self._hooked.add(parameter)
        if optimizer not in self._hooked:
            optimizer.register_step_pre_hook(lambda *_: self._begin())
            optimizer.register_step_post_hook(lambda *_: self._end())
            self._hooked.add(optimizer)

    def forget_gradients(self) -> None:
        """Say that gradients were cleared without a step."""
        self._gradient = {}

    def settle(self) -> None:
        """Say that an error has ended the step under way."""
        self._within = 0

    def begin_anew(self) -> None:
        """Forget the steps so far."""
        self.path_integral, self.steps = {}, 0

    def _add(self, parameter: Tensor, gradient: Tensor) -> None:
        task = gradient.detach().double() / self.unscale()
        old = self._gradient.get(parameter)
        self._gradient[parameter] = task if old is None or not self.accumulates else old + task

    def _begin(self) -> None:
        # An optimiser whose class calls super().step() calls its hooks twice.
        self._within += 1
        if self._within > 1:
            return
        parameters = self._model.named_parameters()
        self._before = {name: p.detach().double().clone() for name, p in parameters}

    def _end(self) -> None:
        self._within -= 1
        if self._within:
            return
        for name, parameter in self._model.named_parameters():
            gradient = self._gradient.get(parameter)
            if gradient is not None:
                added = -gradient * (parameter.detach().double() - self._before[name])
                old = self.path_integral.get(name)
                self.path_integral[name] = added if old is None else old + added
        self.steps += 1
        self._gradient = {}

    def assert_seen_by(self, si: Any, rtol: float = 1e-4, atol: float = 1e-9) -> None:
        """Compare with the path integral that was recorded."""
        assert self.steps == si.steps > 0
        assert any(bool(omega.any()) for omega in self.path_integral.values())
        for name, recorded in si.path_integral.items():
            expected = self.path_integral.get(name, torch.zeros_like(recorded).double())
            torch.testing.assert_close(recorded.double(), expected, rtol=rtol, atol=atol)
