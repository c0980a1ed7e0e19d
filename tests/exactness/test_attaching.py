"""What is followed once attached: wrappers, optimisers within others, parts that are idle."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import (
    SGD,
    Adam,
)

from si_avalanche import SynapticIntelligence
from tests.exactness.memory import Touched
from tests.exactness.optimizers import Lookahead, Wrapper
from tests.exactness.steps import (
    assert_unchanged,
    consolidated,
    go,
    loss_of,
    snapshot,
)
from tests.witness import Witness


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(3, 2).double()


def test_a_lookahead_counts_with_its_half_steps_back(network: nn.Module) -> None:
    si = consolidated(network)
    optimizer = Lookahead(SGD(network.parameters(), lr=0.05))
    witness = Witness(network, optimizer)
    si.attach(optimizer)
    go(network, optimizer, steps=5)
    witness.assert_seen_by(si, rtol=1e-12, atol=1e-15)


def test_the_optimiser_within_a_lookahead_is_left_alone(network: nn.Module) -> None:
    si = consolidated(network)
    optimizer = Lookahead(SGD(network.parameters(), lr=0.05))
    witness = Witness(network, optimizer)
    si.attach_others()
    go(network, optimizer, steps=5)
    witness.assert_seen_by(si, rtol=1e-12, atol=1e-15)


def test_a_wrapper_is_followed_to_the_optimiser_that_it_holds(network: nn.Module) -> None:
    si = consolidated(network)
    optimizer = SGD(network.parameters(), lr=0.05)
    witness = Witness(network, optimizer)
    wrapper: Any = Wrapper(Wrapper(optimizer))
    si.attach(wrapper)
    for _ in range(2):
        optimizer.zero_grad()
        loss_of(network).backward()
        wrapper.step()
    witness.assert_seen_by(si, rtol=1e-12, atol=1e-15)
    si.detach(wrapper)
    go(network, optimizer)
    assert si.steps == 2


def test_after_detach_nothing_is_left_at_the_optimiser(network: nn.Module) -> None:
    si = consolidated(network)
    optimizers = [SGD(network.parameters(), lr=0.05), Adam(network.parameters(), lr=0.01)]
    twin = copy.deepcopy(network)
    others = [SGD(twin.parameters(), lr=0.05), Adam(twin.parameters(), lr=0.01)]
    for optimizer in optimizers:
        si.attach(optimizer)
    si.attach_others()
    si.detach(optimizers[0])
    si.detach()
    si.detach()
    before = snapshot(si)
    for k in range(2):
        go(network, optimizers[k])
        go(twin, others[k])
        assert not optimizers[k]._optimizer_step_pre_hooks
        assert not optimizers[k]._optimizer_step_post_hooks
    for one, other in zip(network.parameters(), twin.parameters(), strict=True):
        assert torch.equal(one, other)
    assert_unchanged(si, before)


def test_weights_that_were_given_other_memory_are_followed(network: nn.Module) -> None:
    si = consolidated(network)
    optimizer = SGD(network.parameters(), lr=0.05, momentum=0.9)
    witness = Witness(network, optimizer)
    si.attach(optimizer)
    for _ in range(3):
        go(network, optimizer, steps=1)
        for parameter in network.parameters():
            parameter.data = parameter.data.clone()
    witness.assert_seen_by(si, rtol=1e-12, atol=1e-15)


class Multiheaded(nn.Module):
    """A trunk and as many heads as one likes, one of them in use."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.trunk = nn.Linear(3, 4)
        self.heads = nn.ModuleList(nn.Linear(4, 2) for _ in range(heads))

    def forward(self, x: Tensor) -> Tensor:
        return functional.softplus(self.heads[0](self.trunk(x)))


def test_idle_heads_take_no_part_in_a_step() -> None:
    """Neither their weights nor what is kept of them is read or written."""
    torch.manual_seed(0)
    network = Multiheaded(heads=30)
    si = SynapticIntelligence(network)
    optimizer = SGD(network.parameters(), lr=0.05, momentum=0.9)
    si.attach(optimizer)
    for head in network.heads:
        head(torch.ones(1, 4)).sum().backward()
    go(network, optimizer)
    si.update_omega()
    go(network, optimizer)
    network.zero_grad()
    loss_of(network).backward()
    with Touched() as touched:
        optimizer.step()
    for kept in (si.omega, si.running_sum, si.anchor, dict(network.named_parameters())):
        for name, tensor in kept.items():
            is_used = name.startswith(("trunk.", "heads.0."))
            assert (tensor.data_ptr() in touched.pointers) == is_used, name
