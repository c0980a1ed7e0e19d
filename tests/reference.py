"""Synaptic Intelligence written from the paper: plain loops over Python floats, slow on purpose.

It shares no code with the package. A network's weights are flattened to lists of floats; eq. 3, 4
and 5 are computed one weight at a time.
"""

from dataclasses import dataclass, field
from itertools import product
from typing import Any

import torch
from torch import nn


@dataclass
class ReferenceSI:
    """The state of one network, by parameter name and flat index."""

    network: nn.Module
    c: float = 1.0
    xi: float = 0.1
    clamp: str = "accumulated"
    decay: float | None = None
    gradient: str = "task"
    first_anchor: str = "initial"
    skip: tuple[str, ...] = ()
    importance: dict[str, list[float]] = field(default_factory=dict)
    path_integral: dict[str, list[float]] = field(default_factory=dict)
    anchor: dict[str, list[float]] = field(default_factory=dict)
    start: dict[str, list[float]] = field(default_factory=dict)
    is_new: dict[str, list[bool]] = field(default_factory=dict)
    shapes: dict[str, torch.Size] = field(default_factory=dict)
    tasks: int = 0
    steps: int = 0

    def __post_init__(self) -> None:
        self.follow()

    def follow(self) -> None:
        """Adopt new parameters and units; each keeps what it has by its place in the tensor."""
        trainable = self.parameters()
        for name, parameter in self.network.named_parameters():
            if name not in trainable and name not in self.shapes:
                continue
            now = floats(parameter)
            new_anchor = [0.0 for _ in now] if self.first_anchor == "zero" else now
            old = self.shapes.get(name, torch.Size([0] * parameter.dim()))
            table: list[tuple[dict[str, Any], list[Any]]] = [
                (self.importance, [0.0 for _ in now]),
                (self.path_integral, [0.0 for _ in now]),
                (self.anchor, new_anchor),
                (self.start, new_anchor),
                (self.is_new, [True for _ in now]),
            ]
            for kept, fresh in table:
                values = list(fresh)
                for k, place in enumerate(places(old) if name in self.shapes else []):
                    values[flat_index(place, parameter.shape)] = kept[name][k]
                kept[name] = values
            self.shapes[name] = parameter.shape

    def parameters(self) -> dict[str, nn.Parameter]:
        return {
            name: parameter
            for name, parameter in self.network.named_parameters()
            if parameter.requires_grad and name not in self.skip
        }

    def penalty(self) -> float:
        total = 0.0
        for name, parameter in self.parameters().items():
            for k, theta in enumerate(floats(parameter)):
                total += self.importance[name][k] * (theta - self.anchor[name][k]) ** 2
        return self.c * total

    def train_step(
        self, task_loss: torch.Tensor, optimizer: torch.optim.Optimizer, through_graph: bool
    ) -> None:
        """One optimiser step on task loss plus penalty.

        ``through_graph`` says that the penalty reaches the gradients as autograd would bring it:
        a protected parameter without a task gradient gets one of the penalty alone.
        """
        if self.steps == 0:
            for name, parameter in self.network.named_parameters():
                for k, theta in enumerate(floats(parameter) if name in self.importance else []):
                    from_zero = self.first_anchor == "zero" and self.is_new[name][k]
                    self.start[name][k] = 0.0 if from_zero else theta
        self.steps += 1
        optimizer.zero_grad()
        task_loss.backward()
        before, task, total = {}, {}, {}
        for name, parameter in self.parameters().items():
            protected = any(omega != 0 for omega in self.importance[name]) and self.c != 0
            if parameter.grad is None and not (through_graph and protected):
                continue
            before[name] = floats(parameter)
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            task[name] = floats(parameter.grad)
            total[name] = [
                g + 2 * self.c * omega * (theta - star)
                for g, omega, theta, star in zip(
                    task[name],
                    self.importance[name],
                    before[name],
                    self.anchor[name],
                    strict=True,
                )
            ]
            exact = torch.tensor(total[name], dtype=torch.float64)
            parameter.grad.copy_(exact.reshape(parameter.shape))
        optimizer.step()
        integrand = task if self.gradient == "task" else total
        for name, gradient in integrand.items():
            after = floats(self.parameters()[name])
            for k, g in enumerate(gradient):
                self.path_integral[name][k] += -g * (after[k] - before[name][k])

    def end_task(self) -> None:
        if self.steps == 0:
            return
        everything = dict(self.network.named_parameters())
        for name in self.importance:
            for k, theta in enumerate(floats(everything[name])):
                displacement = theta - self.start[name][k]
                new = self.path_integral[name][k] / (displacement**2 + self.xi)
                if self.clamp == "per_task":
                    new = max(new, 0.0)
                old = self.importance[name][k]
                if self.decay is None:
                    accumulated = old + new
                else:
                    accumulated = self.decay * old + (1 - self.decay) * new
                if self.clamp == "accumulated":
                    accumulated = max(accumulated, 0.0)
                self.importance[name][k] = accumulated
                self.path_integral[name][k] = 0.0
                self.anchor[name][k] = theta
                self.is_new[name][k] = False
        self.tasks, self.steps = self.tasks + 1, 0


def places(shape: torch.Size) -> list[tuple[int, ...]]:
    """All index tuples of a shape, in the order of the flattened tensor."""
    return list(product(*(range(n) for n in shape)))


def flat_index(place: tuple[int, ...], shape: torch.Size) -> int:
    index = 0
    for coordinate, size in zip(place, shape, strict=True):
        index = index * size + coordinate
    return index


def floats(tensor: torch.Tensor) -> list[float]:
    values: list[float] = tensor.detach().double().flatten().tolist()
    return values
