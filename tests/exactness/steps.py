"""The smallest network and loop for tests of single steps."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from si_avalanche import SynapticIntelligence


def loss_of(network: nn.Module) -> Tensor:
    dtype = next(network.parameters()).dtype
    return network(torch.ones(4, 3, dtype=dtype)).square().mean()


def go(network: nn.Module, optimizer: Optimizer, steps: int = 3) -> None:
    """A loop that knows nothing of Synaptic Intelligence."""
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(network).backward()
        optimizer.step()


def train(network: nn.Module, si: SynapticIntelligence, steps: int = 3) -> None:
    """A few steps of an optimiser that is attached for as long."""
    optimizer = SGD(network.parameters(), lr=0.1)
    si.attach(optimizer)
    go(network, optimizer, steps)
    si.detach(optimizer)


def consolidated(network: nn.Module, c: float = 3.0, **options: Any) -> SynapticIntelligence:
    """An object with importance everywhere, and weights away from the anchor."""
    si = SynapticIntelligence(network, c=c, **options)
    train(network, si)
    si.update_omega()
    for omega in si.omega.values():
        omega.add_(0.1)
    nudge(network, 0.1)
    return si


def nudge(network: nn.Module, by: float = 0.25) -> None:
    """Move weights as no optimiser does."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(by)


def pulls(network: nn.Module, si: SynapticIntelligence) -> dict[str, Tensor]:
    """The gradient of the penalty, by hand."""
    return {
        name: 2 * si.c * si.omega[name] * (p.detach() - si.anchor[name])
        for name, p in network.named_parameters()
    }


def gradients(network: nn.Module) -> dict[str, Tensor]:
    """Copies of the gradients that are there."""
    pairs = network.named_parameters()
    return {name: p.grad.clone() for name, p in pairs if p.grad is not None}


def snapshot(si: SynapticIntelligence) -> list[Tensor]:
    return [
        tensor.clone()
        for kept in (si.omega, si.running_sum, si.prev_params)
        for tensor in kept.values()
    ]


def assert_unchanged(si: SynapticIntelligence, before: list[Tensor]) -> None:
    assert all(torch.equal(a, b) for a, b in zip(snapshot(si), before, strict=True))
