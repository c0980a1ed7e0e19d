"""Synaptic Intelligence written from the paper: plain loops over Python floats, slow on purpose.

It shares no code with the package. A network's weights are flattened to lists of floats; eq. 3, 4
and 5 are computed one weight at a time.
"""

from dataclasses import dataclass, field

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

    def __post_init__(self) -> None:
        for name, parameter in self.parameters().items():
            values = floats(parameter)
            self.importance[name] = [0.0 for _ in values]
            self.path_integral[name] = [0.0 for _ in values]
            self.anchor[name] = [0.0 for _ in values] if self.first_anchor == "zero" else values

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
        for name, parameter in self.parameters().items():
            for k, theta in enumerate(floats(parameter)):
                displacement = theta - self.anchor[name][k]
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


def floats(tensor: torch.Tensor) -> list[float]:
    values: list[float] = tensor.detach().double().flatten().tolist()
    return values
