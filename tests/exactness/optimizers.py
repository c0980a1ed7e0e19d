"""Optimisers as other people write them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer


class Lion(Optimizer):
    """The sign of an average (Chen et al. 2023), with its own loop over parameters."""

    def __init__(self, parameters: Any, lr: float = 0.01) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": 0.1})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                average = self.state[p].setdefault("exp_avg", torch.zeros_like(p))
                p.data.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_((0.9 * average + 0.1 * p.grad).sign(), alpha=-group["lr"])
                average.lerp_(p.grad, 0.01)
        return loss


class Scaling(SGD):
    """Writes into ``p.grad.data`` within its step, unseen by PyTorch, as LARS does."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.grad.data.mul_(p.norm() / (p.grad.norm() + 1e-3))
        return super().step(closure)


class Centring(SGD):
    """Takes the mean off each gradient in place, within its step."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.grad.data.sub_(p.grad.data.mean())
        return super().step(closure)


class Decaying(SGD):
    """Shrinks the weights after the step of its class, within its own."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = super().step(closure)
        for group in self.param_groups:
            for p in group["params"]:
                p.mul_(0.99)
        return loss


class Lookahead(Optimizer):
    """Steps another optimiser, and goes half of the way back in every second step."""

    def __init__(self, inner: Optimizer) -> None:
        self.inner = inner
        super().__init__([p for group in inner.param_groups for p in group["params"]], {})
        self.slow = [p.detach().clone() for p in self.param_groups[0]["params"]]
        self.count = 0

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = self.inner.step(closure)
        self.count += 1
        if self.count % 2 == 0:
            for p, slow in zip(self.param_groups[0]["params"], self.slow, strict=True):
                slow.lerp_(p, 0.5)
                p.copy_(slow)
        return loss


class Sharpness(Optimizer):
    """Climbs first, then steps with the gradient found there: SAM (Foret et al. 2021).

    :param climbs: ``"before"`` the first evaluation of its closure, with the last step's gradients,
        or ``"between"`` two evaluations.
    """

    def __init__(self, inner: Optimizer, climbs: str) -> None:
        self.inner, self.climbs = inner, climbs
        super().__init__([p for group in inner.param_groups for p in group["params"]], {})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        parameters: list[Tensor] = self.param_groups[0]["params"]
        if self.climbs == "between":
            closure()
        for p in parameters:
            p.add_(0.01 if p.grad is None else 0.01 * p.grad)
        loss = closure()
        for p in parameters:
            p.sub_(0.01)
        self.inner.step()
        return loss


class Wrapper:
    """What hands ``step`` on to an optimiser that it holds, as wrappers of frameworks do."""

    def __init__(self, optimizer: Any) -> None:
        self.optimizer = optimizer

    def step(self) -> None:
        self.optimizer.step()


def made(kind: Any, network: nn.Module, **more: Any) -> Optimizer:
    """An optimiser of any kind for all parameters of a network."""
    return kind(network.parameters(), **{"lr": 0.01, **more})
