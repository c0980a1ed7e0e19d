"""The network and the object that tests of single steps share."""

import pytest
import torch
from torch import nn

from si_avalanche import (
    SynapticIntelligence,
)


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(3, 2)


@pytest.fixture
def si(network: nn.Module) -> SynapticIntelligence:
    return SynapticIntelligence(network)
