"""The smallest network and loop for tests of single steps."""

import torch
from torch import Tensor, nn
from torch.optim import SGD

from si_avalanche import (
    SynapticIntelligence,
)


def loss_of(network: nn.Module) -> Tensor:
    return network(torch.ones(4, 3)).square().mean()


def train(network: nn.Module, si: SynapticIntelligence, steps: int = 3) -> None:
    optimizer = SGD(network.parameters(), lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(network).backward()
        si.add_penalty_gradient()
        optimizer.step()
        si.update_running_sum()


def snapshot(si: SynapticIntelligence) -> list[Tensor]:
    return [
        tensor.clone()
        for kept in (si.omega, si.running_sum, si.prev_params)
        for tensor in kept.values()
    ]


def assert_unchanged(si: SynapticIntelligence, before: list[Tensor]) -> None:
    assert all(torch.equal(a, b) for a, b in zip(snapshot(si), before, strict=True))
