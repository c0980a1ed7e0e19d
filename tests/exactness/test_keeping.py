"""``keep_gradient()``: loops that clip or project, and the gradient before it is integrated."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam

from si_avalanche import SynapticIntelligence
from tests.exactness.steps import consolidated, go, gradients, loss_of, nudge
from tests.witness import Witness

Change = Callable[[nn.Module], object]


def clip_norm(network: nn.Module) -> None:
    nn.utils.clip_grad_norm_(network.parameters(), 0.05)


def clip_value(network: nn.Module) -> None:
    nn.utils.clip_grad_value_(network.parameters(), 0.01)


def clamp_data(network: nn.Module) -> None:
    for parameter in network.parameters():
        assert parameter.grad is not None
        parameter.grad.data.clamp_(-0.01, 0.01)


def project(network: nn.Module) -> None:
    for parameter in network.parameters():
        assert parameter.grad is not None
        parameter.grad = parameter.grad - parameter.grad.mean()


def remove_and_bring_back(network: nn.Module) -> None:
    for parameter in network.parameters():
        assert parameter.grad is not None
        gradient, parameter.grad = parameter.grad.clone(), None
        parameter.grad = 0.5 * gradient


CHANGES: list[Change] = [clip_norm, clip_value, clamp_data, project, remove_and_bring_back]
each_change = pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(3, 2).double()


@pytest.mark.parametrize("in_some_steps", [False, True])
@each_change
def test_the_raw_gradient_is_integrated(
    network: nn.Module, change: Change, in_some_steps: bool
) -> None:
    si = consolidated(network)
    optimizer = SGD(network.parameters(), lr=0.05, momentum=0.5)
    witness = Witness(network, optimizer)
    si.attach(optimizer)
    for k in range(5):
        optimizer.zero_grad()
        loss_of(network).backward()
        if k % 2 or not in_some_steps:
            si.keep_gradient()
            change(network)
        optimizer.step()
    witness.assert_seen_by(si, rtol=1e-12, atol=1e-15)


@each_change
def test_without_it_what_the_optimiser_is_given_is_integrated(
    network: nn.Module, change: Change
) -> None:
    si = consolidated(network)
    optimizer = SGD(network.parameters(), lr=0.05, momentum=0.5)
    si.attach(optimizer)
    loss_of(network).backward()
    change(network)
    given = gradients(network)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    optimizer.step()
    for name, parameter in network.named_parameters():
        expected = -given[name] * (parameter.detach() - before[name])
        torch.testing.assert_close(si.running_sum[name], expected, rtol=1e-12, atol=1e-15)


@each_change
def test_the_steps_are_those_of_a_loop_that_keeps_nothing(change: Change) -> None:
    found = []
    for keeps in (False, True):
        torch.manual_seed(0)
        network = nn.Linear(3, 2).double()
        si = consolidated(network)
        optimizer = Adam(network.parameters(), lr=0.05)
        si.attach(optimizer)
        for _ in range(3):
            optimizer.zero_grad()
            loss_of(network).backward()
            if keeps:
                si.keep_gradient()
            change(network)
            optimizer.step()
        found.append([p.detach() for p in network.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_the_total_gradient_is_the_kept_one_and_the_penalty(network: nn.Module) -> None:
    si = consolidated(network, gradient="total")
    optimizer = SGD(network.parameters(), lr=0.05)
    si.attach(optimizer)
    loss_of(network).backward()
    si.keep_gradient()
    raw = gradients(network)
    clip_norm(network)
    nudge(network)
    total = {
        name: raw[name] + 6.0 * si.omega[name] * (p.detach() - si.anchor[name])
        for name, p in network.named_parameters()
    }
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    optimizer.step()
    for name, parameter in network.named_parameters():
        expected = -total[name] * (parameter.detach() - before[name])
        torch.testing.assert_close(si.running_sum[name], expected, rtol=1e-11, atol=1e-14)


def test_what_was_kept_serves_one_step(network: nn.Module) -> None:
    si = consolidated(network)
    optimizer = SGD(network.parameters(), lr=0.05)
    witness = Witness(network, optimizer)
    si.attach(optimizer)
    network.zero_grad()
    loss_of(network).backward()
    si.keep_gradient()
    clip_norm(network)
    optimizer.step()
    go(network, optimizer)
    witness.assert_seen_by(si, rtol=1e-12, atol=1e-15)


def test_kept_twice_it_is_the_last_that_counts(network: nn.Module) -> None:
    si = SynapticIntelligence(network)
    optimizer = SGD(network.parameters(), lr=0.05)
    witness = Witness(network, optimizer)
    si.attach(optimizer)
    loss_of(network).backward()
    si.keep_gradient()
    loss_of(network).backward()
    si.keep_gradient()
    clip_norm(network)
    optimizer.step()
    witness.assert_seen_by(si, rtol=1e-12, atol=1e-15)


def test_what_was_kept_for_a_step_that_never_came_is_replaced_by_the_next(
    network: nn.Module,
) -> None:
    si = SynapticIntelligence(network)
    optimizer = SGD(network.parameters(), lr=0.05)
    witness = Witness(network, optimizer)
    si.attach(optimizer)
    (7 * loss_of(network)).backward()
    si.keep_gradient()
    optimizer.zero_grad()
    witness.forget_gradients()
    loss_of(network).backward()
    si.keep_gradient()
    clip_norm(network)
    optimizer.step()
    witness.assert_seen_by(si, rtol=1e-12, atol=1e-15)


def test_where_a_weight_did_not_move_an_infinite_gradient_that_was_kept_adds_nothing(
    network: nn.Module,
) -> None:
    si = consolidated(network)
    optimizer = SGD(network.parameters(), lr=0.05)
    si.attach(optimizer)
    si.c = 0.0
    (float("inf") * loss_of(network)).backward()
    si.keep_gradient()
    optimizer.zero_grad(set_to_none=False)
    optimizer.step()
    assert not any(path.any() for path in si.running_sum.values())
