"""A model whose only layer may grow, and the loop that trains it."""

import torch
from torch import nn
from torch.optim import SGD

from si_avalanche import SynapticIntelligence


class Growing(nn.Module):
    def __init__(self, units: int) -> None:
        super().__init__()
        self.head = nn.Linear(3, units)

    def grow(self, units: int) -> None:
        new = nn.Linear(3, units)
        with torch.no_grad():
            for name, old in self.head.named_parameters():
                dict(new.named_parameters())[name][: len(old)] = old
        self.head = new


def train(model: Growing, si: SynapticIntelligence, steps: int = 3) -> None:
    optimizer = SGD(model.parameters(), lr=0.1)
    si.attach(optimizer)
    for _ in range(steps):
        optimizer.zero_grad()
        (model.head(torch.ones(2, 3)) - 1).square().mean().backward()
        optimizer.step()
