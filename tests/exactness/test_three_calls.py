"""The three calls of the original class: what may stand between them, what they leave behind."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, Optimizer

from si_avalanche import SynapticIntelligence
from tests.cases import Heads, task_loss
from tests.exactness.steps import assert_unchanged, loss_of, pulls, snapshot

Loop = Callable[[nn.Module, SynapticIntelligence], None]


def calls(
    network: nn.Module, si: SynapticIntelligence, steps: int = 3, rate: float = 0.02
) -> Optimizer:
    """A loop with the three calls."""
    optimizer = SGD(network.parameters(), lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        (loss_of(network) + si.penalty()).backward()
        optimizer.step()
        si.update_running_sum()
    return optimizer


def assert_same_path(one: SynapticIntelligence, other: SynapticIntelligence) -> None:
    for name, path in one.running_sum.items():
        assert path.any()
        torch.testing.assert_close(other.running_sum[name], path, rtol=1e-9, atol=1e-12)


def pair(
    network: nn.Module, c: float, other_c: float, tasks: int = 1
) -> tuple[nn.Module, SynapticIntelligence, nn.Module, SynapticIntelligence]:
    """Two equal networks in float64 with the state of some tasks."""
    network = network.double()
    twin = copy.deepcopy(network)
    one, other = SynapticIntelligence(network, c=c), SynapticIntelligence(twin, c=other_c)
    for _ in range(tasks):
        calls(network, one)
        one.update_omega()
    twin.load_state_dict(network.state_dict())
    other.load_state_dict(one.state_dict())
    return network, one, twin, other


def test_consolidating_without_a_step_changes_nothing(
    network: nn.Module, si: SynapticIntelligence
) -> None:
    calls(network, si)
    si.update_omega()
    before = snapshot(si)
    si.update_omega()
    assert_unchanged(si, before)
    assert si.tasks == 1


@pytest.mark.parametrize("to_none", [True, False])
def test_a_skipped_step_leaves_no_trace(network: nn.Module, to_none: bool) -> None:
    network, skipping, twin, plain = pair(network, 20.0, 20.0)
    for model, si in ((network, skipping), (twin, plain)):
        optimizer = SGD(model.parameters(), lr=0.02)
        for _ in range(3):
            for _ in range(2 if model is network else 1):
                optimizer.zero_grad(set_to_none=to_none)
                (loss_of(model) + si.penalty()).backward()
            optimizer.step()
            si.update_running_sum()
    assert_same_path(plain, skipping)


def test_a_skipped_step_may_be_recorded_and_adds_nothing(
    network: nn.Module, si: SynapticIntelligence
) -> None:
    calls(network, si)
    before = snapshot(si)
    network.zero_grad()
    (loss_of(network) + si.penalty()).backward()
    si.update_running_sum()
    assert_unchanged(si, before)
    network.zero_grad()
    (loss_of(network) + si.penalty()).backward()
    si.update_omega()
    assert si.tasks == 1


def test_looking_at_the_penalty_leaves_no_trace(network: nn.Module) -> None:
    network, looking, twin, plain = pair(network, 1.0, 1.0)
    optimizer = SGD(network.parameters(), lr=0.02)
    for _ in range(3):
        optimizer.zero_grad()
        looking.penalty()
        loss = loss_of(network) + looking.penalty()
        torch.autograd.grad(looking.penalty(), list(network.parameters()), allow_unused=True)
        loss.backward()
        optimizer.step()
        torch.autograd.grad(looking.penalty(), list(network.parameters()))
        with torch.no_grad():
            looking.penalty()
        looking.update_running_sum()
    calls(twin, plain)
    assert_same_path(plain, looking)


def test_gradients_accumulated_over_several_backward_passes_count_as_one_step(
    network: nn.Module,
) -> None:
    network, split, twin, whole = pair(network, 30.0, 30.0)
    optimizer = SGD(network.parameters(), lr=0.02)
    for _ in range(3):
        optimizer.zero_grad()
        for _ in range(4):
            ((loss_of(network) + split.penalty()) / 4).backward()
        optimizer.step()
        split.update_running_sum()
    calls(twin, whole)
    assert_same_path(whole, split)


def penalty_last(network: nn.Module, si: SynapticIntelligence) -> None:
    loss_of(network).backward()
    si.penalty().backward()


def penalty_twice(network: nn.Module, si: SynapticIntelligence) -> None:
    si.c /= 2
    (loss_of(network) + si.penalty() + si.penalty()).backward()
    si.c *= 2


def penalty_in_some_passes(network: nn.Module, si: SynapticIntelligence) -> None:
    si.c /= 2
    (loss_of(network) / 3 + si.penalty()).backward()
    (loss_of(network) / 3).backward()
    (loss_of(network) / 3 + si.penalty()).backward()
    si.c *= 2


WAYS: list[Loop] = [penalty_last, penalty_twice, penalty_in_some_passes]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("tasks", [0, 1])
def test_other_ways_to_bring_the_penalty_integrate_the_task_gradient_too(
    network: nn.Module, way: Loop, tasks: int
) -> None:
    network, odd, twin, plain = pair(network, 20.0, 20.0, tasks)
    optimizer = SGD(network.parameters(), lr=0.02)
    for _ in range(3):
        optimizer.zero_grad()
        way(network, odd)
        optimizer.step()
        odd.update_running_sum()
    calls(twin, plain)
    assert_same_path(plain, odd)
    for one, other in zip(network.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_the_gradient_of_the_penalty_is_two_c_omega_times_the_distance(
    network: nn.Module, si: SynapticIntelligence
) -> None:
    calls(network, si)
    si.update_omega()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1.0)
    automatic = torch.autograd.grad(si.penalty(), list(network.parameters()))
    for found, pull in zip(automatic, pulls(network, si).values(), strict=True):
        torch.testing.assert_close(found, pull)


def test_nothing_is_added_to_the_gradients_before_the_first_consolidation(
    network: nn.Module, si: SynapticIntelligence
) -> None:
    assert si.penalty().item() == 0
    si.penalty().backward()
    assert all(parameter.grad is None for parameter in network.parameters())


def test_saving_between_backward_pass_and_step_leaves_the_step_open(
    network: nn.Module, si: SynapticIntelligence
) -> None:
    optimizer = SGD(network.parameters(), lr=0.1)
    (loss_of(network) + si.penalty()).backward()
    assert si.state_dict()["steps"] == 0
    optimizer.step()
    si.update_running_sum()
    assert si.state_dict()["steps"] == 1


@pytest.mark.parametrize("optimizer", [SGD, Adam])
def test_idle_heads_set_back_to_none_do_not_move_and_the_rest_is_exact(
    optimizer: Any,
) -> None:
    torch.manual_seed(0)
    network = Heads().double()
    twin = copy.deepcopy(network)
    calls_si, attached = SynapticIntelligence(network), SynapticIntelligence(twin)
    more: dict[str, float] = {"weight_decay": 0.1} | ({"momentum": 0.9} if optimizer is SGD else {})
    steps, twin_steps = (optimizer(m.parameters(), lr=0.02, **more) for m in (network, twin))
    attached.attach(twin_steps)
    for task in range(3):
        for step in range(4):
            steps.zero_grad()
            twin_steps.zero_grad()
            (task_loss(network, task, step) + calls_si.penalty()).backward()
            for idle in [head for k, head in enumerate(network.heads) if k != task]:
                idle.zero_grad(set_to_none=True)
            task_loss(twin, task, step).backward()
            steps.step()
            twin_steps.step()
            calls_si.update_running_sum()
        calls_si.update_omega()
        attached.update_omega()
    for one, other in zip(network.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
    for name, omega in attached.omega.items():
        torch.testing.assert_close(calls_si.omega[name], omega, rtol=1e-9, atol=1e-12)


def test_the_penalty_may_be_looked_at_while_an_optimiser_is_attached(
    network: nn.Module, si: SynapticIntelligence
) -> None:
    optimizer = SGD(network.parameters(), lr=0.1)
    si.attach(optimizer)
    for _ in range(2):
        optimizer.zero_grad()
        loss_of(network).backward()
        before = si.penalty().item()
        optimizer.step()
        assert si.penalty().item() == before == 0
    si.update_omega()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1.0)
    expected = sum(omega.sum().item() for omega in si.omega.values())
    assert si.penalty().item() == pytest.approx(expected, rel=1e-5)
