"""Networks, optimisers and settings as data, for the tests of exactness."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop


class Tied(nn.Module):
    """An output layer that shares the weight of the input layer, transposed by use."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(6, 6)
        self.decoder = nn.Linear(6, 6)
        self.decoder.weight = self.encoder.weight

    def forward(self, x: Tensor, task: int) -> Tensor:
        return self.decoder(torch.tanh(self.encoder(x)))


class OddShapes(nn.Module):
    """Parameters without a dimension and without an entry beside ordinary ones."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.7))
        self.nothing = nn.Parameter(torch.empty(0, 6))
        self.layer = nn.Linear(6, 3)

    def forward(self, x: Tensor, task: int) -> Tensor:
        return self.scale * self.layer(torch.cat([x, x @ self.nothing.T], dim=1)[:, :6])


class Heads(nn.Module):
    """A trunk with one head per task; the heads not in use get no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Linear(6, 5)
        self.heads = nn.ModuleList(nn.Linear(5, 3) for _ in range(3))

    def forward(self, x: Tensor, task: int) -> Tensor:
        return self.heads[task](torch.relu(self.trunk(x)))


class Plain(nn.Module):
    """Any network that does not care about the task."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor, task: int) -> Tensor:
        return self.layers(x)


def mlp() -> nn.Module:
    return Plain(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 3))


def convolution() -> nn.Module:
    return Plain(
        nn.Unflatten(1, (1, 2, 3)),
        nn.Conv2d(1, 3, 2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(36, 3),
    )


def normalised() -> nn.Module:
    return Plain(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.LayerNorm(5), nn.Linear(5, 3))


def frozen() -> nn.Module:
    network = Plain(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    next(network.parameters()).requires_grad_(False)
    return network


@dataclass(frozen=True)
class Case:
    """One row of the table: what is trained, how, and with which settings."""

    name: str
    network: Callable[[], nn.Module]
    optimizer: Callable[..., Optimizer]
    hyper: dict[str, Any]
    settings: dict[str, Any] = field(default_factory=dict)
    exclude: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.name

    @property
    def can_be_one_pass(self) -> bool:
        """Whether ``attach(optimizer, fused=True)`` serves it."""
        return self.optimizer in (SGD, Adam, AdamW) and not self.hyper.get("amsgrad")


SGD_ = (SGD, {"lr": 0.05})
MOMENTUM = (SGD, {"lr": 0.02, "momentum": 0.9})
DAMPENED = (SGD, {"lr": 0.02, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01})
NESTEROV = (SGD, {"lr": 0.02, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01})
DECAY = (SGD, {"lr": 0.05, "weight_decay": 0.1})
ADAM = (Adam, {"lr": 0.01, "eps": 1e-3})
ADAM_DECAY = (Adam, {"lr": 0.01, "eps": 1e-3, "weight_decay": 0.1})
AMSGRAD = (Adam, {"lr": 0.01, "eps": 1e-3, "weight_decay": 0.1, "amsgrad": True})
ADAMW = (AdamW, {"lr": 0.01, "eps": 1e-3, "weight_decay": 0.1})
RMSPROP = (RMSprop, {"lr": 0.005, "eps": 1e-3})

CASES = [
    Case("mlp, sgd", mlp, *SGD_),
    Case("mlp, momentum", mlp, *MOMENTUM),
    Case("mlp, nesterov and weight decay", mlp, *NESTEROV),
    Case("mlp, dampening", mlp, *DAMPENED),
    Case("mlp, weight decay", mlp, *DECAY),
    Case("mlp, adam", mlp, *ADAM),
    Case("mlp, adam with weight decay", mlp, *ADAM_DECAY),
    Case("mlp, amsgrad", mlp, *AMSGRAD),
    Case("mlp, adamw", mlp, *ADAMW),
    Case("mlp, rmsprop", mlp, *RMSPROP),
    Case("convolution, momentum", convolution, *MOMENTUM),
    Case("convolution, adam", convolution, *ADAM),
    Case("tied weights, sgd", Tied, *SGD_),
    Case("tied weights, adamw", Tied, *ADAMW),
    Case("frozen weights, momentum", frozen, *MOMENTUM),
    Case("frozen weights, adam", frozen, *ADAM),
    Case("odd shapes, weight decay", OddShapes, *DECAY),
    Case("odd shapes, adam", OddShapes, *ADAM),
    Case("heads, momentum", Heads, *MOMENTUM),
    Case("heads, adamw", Heads, *ADAMW),
    Case("heads, weight decay", Heads, *DECAY),
    Case("normalisation layers, adam", normalised, *ADAM),
    Case("no penalty", mlp, *MOMENTUM, {"c": 0.0}),
    Case("strong, small damping", mlp, *SGD_, {"c": 2.0, "xi": 0.01}),
    Case("clamp per task", mlp, *MOMENTUM, {"clamp": "per_task"}),
    Case("no clamp", mlp, *MOMENTUM, {"clamp": "none", "c": 0.1}),
    Case("decay", mlp, *ADAM, {"decay": 0.3}),
    Case("decay, clamp per task", mlp, *SGD_, {"decay": 0.8, "clamp": "per_task"}),
    Case("decay, heads", Heads, *MOMENTUM, {"decay": 0.5}),
    Case("total gradient", mlp, *MOMENTUM, {"gradient": "total"}),
    Case("anchored at zero", mlp, *ADAM, {"first_anchor": "zero"}),
    Case("biases left out", mlp, *ADAM, {}, ("layers.0.bias", "layers.2.bias")),
]


def batch(task: int, step: int) -> tuple[Tensor, Tensor]:
    """Eight inputs and labels of a task, in float64, the same for the same arguments."""
    generator = torch.Generator().manual_seed(1000 * task + step)
    x = torch.randn(8, 6, generator=generator, dtype=torch.float64)
    mixing = torch.randn(6, 3, generator=torch.Generator().manual_seed(task), dtype=torch.float64)
    return x, (x @ mixing).argmax(dim=1)


def task_loss(network: nn.Module, task: int, step: int) -> Tensor:
    """The cross-entropy of a network on a batch, in the network's dtype."""
    x, y = batch(task, step)
    return functional.cross_entropy(network(x.to(next(network.parameters()).dtype), task), y)
