"""A network of two branches, and steps of several watched backward passes."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD

from si_avalanche import SynapticIntelligence


class Branches(nn.Module):
    """Two branches of which a pass may use one: the other then gets its gradient later."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(3, 2)
        self.right = nn.Linear(3, 2)

    def forward(self, x: Tensor, side: str) -> Tensor:
        outputs: dict[str, Any] = {"left": self.left, "right": self.right}
        return outputs[side](x) if side in outputs else self.left(x) + self.right(x)


def protected(c: float = 3.0, **options: Any) -> tuple[Branches, SynapticIntelligence]:
    """A network with importance everywhere, away from its anchor."""
    torch.manual_seed(0)
    network = Branches()
    si = SynapticIntelligence(network, c=c, **options)
    for omega in si.omega.values():
        omega.fill_(0.5)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2)
    return network, si


def loss_of(network: Branches, side: str, k: int) -> Tensor:
    generator = torch.Generator().manual_seed(k)
    return (network(torch.randn(5, 3, generator=generator), side) - 1).square().mean()


def accumulate(
    network: Branches,
    si: SynapticIntelligence,
    optimizer: SGD,
    sides: list[str],
    clip: bool = False,
    follow: bool = True,
) -> None:
    optimizer.zero_grad()
    for k, side in enumerate(sides):
        loss = loss_of(network, side, k)
        si.watch(loss, optimizer if follow else None)
        loss.backward()
        if clip:
            nn.utils.clip_grad_norm_(network.parameters(), 0.3)
        si.add_penalty_gradient()
        if follow and k < len(sides) - 1:
            si.update_running_sum()
    optimizer.step()
    si.update_running_sum()


def add_gradients(raw: dict[str, Tensor], network: Branches, value: Tensor) -> None:
    """Add the gradients of a value without touching those that the parameters hold."""
    gradients = torch.autograd.grad(value, list(network.parameters()), retain_graph=True)
    for name, gradient in zip(raw, gradients, strict=True):
        raw[name] += gradient


def assert_moved_along(
    raw: dict[str, Tensor], network: Branches, si: SynapticIntelligence, optimizer: SGD
) -> None:
    """Step, and compare what is added to the path integral with these gradients."""
    path = {name: tensor.clone() for name, tensor in si.running_sum.items()}
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    optimizer.step()
    si.update_running_sum()
    for name, parameter in network.named_parameters():
        added = -raw[name] * (parameter.detach() - before[name])
        assert added.any()
        torch.testing.assert_close(si.running_sum[name] - path[name], added, rtol=1e-3, atol=1e-7)
