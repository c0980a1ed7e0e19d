"""Networks in their second task, by hooks, in one pass and without Synaptic Intelligence."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from si_avalanche import SynapticIntelligence
from tests.cases import Heads, task_loss
from tests.exactness.steps import nudge
from tests.witness import Witness

OPTIMIZERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "sgd": (SGD, {"lr": 0.05, "weight_decay": 0.1}),
    "dampened": (SGD, {"lr": 0.05, "momentum": 0.9, "dampening": 0.3}),
    "nesterov": (SGD, {"lr": 0.02, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    "adam": (Adam, {"lr": 0.01, "weight_decay": 0.1, "betas": (0.8, 0.95)}),
    "adamw": (AdamW, {"lr": 0.01, "weight_decay": 0.1}),
    "adam, decoupled": (Adam, {"lr": 0.01, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    "sgd, pytorch's fused": (SGD, {"lr": 0.02, "momentum": 0.9, "fused": True}),
    "adam, pytorch's fused": (Adam, {"lr": 0.01, "fused": True}),
    "adamw, pytorch's fused": (AdamW, {"lr": 0.01, "fused": True, "weight_decay": 0.1}),
    "adam, a tensor for a rate": (Adam, {"lr": torch.tensor(0.01, dtype=torch.float64)}),
}
each_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)
Loss = Callable[[nn.Module, int], Tensor]


class Life:
    """A network in its second task, everything important and away from its anchor.

    :param fused: by hooks, in one pass, or ``None`` without Synaptic Intelligence.
    """

    def __init__(
        self, model: nn.Module, name: str, fused: bool | None, c: float = 2.0, **options: Any
    ) -> None:
        self.model = copy.deepcopy(model)
        self.si = SynapticIntelligence(self.model, c=c, **options)
        for number, omega in enumerate(self.si.omega.values()):
            omega.fill_(0.2 + 0.1 * number)
        nudge(self.model, 0.1)
        # PyTorch's own fused SGD fails where momentum begins later for some parameters.
        self.joins = name != "sgd, pytorch's fused"
        self.optimizer = self.make(name)
        self.witness = Witness(self.model, self.optimizer)
        if fused is not None:
            self.si.attach(self.optimizer, fused=fused)

    def make(self, name: str) -> Optimizer:
        kind, hyper = OPTIMIZERS[name]
        made: Optimizer = kind(self.model.parameters(), **copy.deepcopy(hyper))
        return made

    def loss(self, step: int) -> Tensor:
        return heads_loss(self.model, step, self.joins)

    def step(self, loss: Tensor) -> None:
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def heads_loss(model: nn.Module, step: int, joins: bool = True) -> Tensor:
    """The second head joins in the fourth step."""
    heads = range(1 + (step > 2 or not joins))
    return sum((task_loss(model, head, step) for head in heads), torch.zeros(()))


def network() -> nn.Module:
    torch.manual_seed(0)
    return Heads().double()


def assert_same(lives: list[Life], tolerance: float = 1e-12) -> None:
    """Weights, state and moments are the same, whatever made the steps."""
    one, other = lives
    close: dict[str, Any] = {"rtol": tolerance, "atol": tolerance}
    for weight, expected in zip(other.model.parameters(), one.model.parameters(), strict=True):
        torch.testing.assert_close(weight, expected, **close)
    for name, path in one.si.running_sum.items():
        torch.testing.assert_close(other.si.running_sum[name], path, **close)
    torch.testing.assert_close(
        other.optimizer.state_dict()["state"], one.optimizer.state_dict()["state"], **close
    )
    assert one.si.steps == other.si.steps


def both(model: nn.Module, name: str, loss: Loss, steps: int = 6, **options: Any) -> list[Life]:
    lives = [Life(model, name, fused, **options) for fused in (False, True)]
    for life in lives:
        for step in range(steps):
            life.step(loss(life.model, step))
    return lives
