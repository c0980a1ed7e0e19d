"""Several optimisers, groups, schedules, and optimisers that come and go."""

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR

from si_avalanche import CallOrderError, SynapticIntelligence
from tests.cases import Heads, task_loss
from tests.exactness.optimizers import Lookahead
from tests.exactness.steps import consolidated, go, loss_of
from tests.witness import Witness


def network() -> Any:
    torch.manual_seed(0)
    return Heads().double()


def protected(model: nn.Module, **options: Any) -> SynapticIntelligence:
    si = SynapticIntelligence(model, c=2.0, **options)
    for omega in si.omega.values():
        omega.fill_(0.3)
    return si


def learn(model: nn.Module, *optimizers: Optimizer, steps: int = 4) -> None:
    """Every optimiser steps after one backward pass, as in loops with two of them."""
    for step in range(steps):
        model.zero_grad()
        task_loss(model, 0, step).backward()
        for optimizer in optimizers:
            optimizer.step()


def two(model: Any) -> list[Optimizer]:
    """One for the trunk, one for the heads."""
    trunk = SGD(model.trunk.parameters(), lr=0.05, momentum=0.9)
    return [trunk, Adam(model.heads.parameters(), lr=0.01, weight_decay=0.1)]


@pytest.mark.parametrize("way", ["attach each", "attach_others", "one and others"])
def test_each_optimiser_counts_for_its_own_parameters(way: str) -> None:
    model = network()
    si = protected(model)
    optimizers = two(model)
    witness = [Witness(model, optimizer) for optimizer in optimizers]
    if way == "attach each":
        for optimizer in optimizers:
            si.attach(optimizer)
    if way == "one and others":
        si.attach(optimizers[0])
    if way != "attach each":
        si.attach_others()
    learn(model, *optimizers)
    for name, path in si.running_sum.items():
        own = witness[not name.startswith("trunk")].path_integral.get(name)
        expected = torch.zeros_like(path) if own is None else own
        torch.testing.assert_close(path, expected, rtol=1e-12, atol=1e-15)
    assert si.steps == 8
    si.detach()


def test_two_optimisers_of_the_same_parameters_both_count() -> None:
    model = network()
    si = protected(model)
    optimizers: list[Optimizer] = [SGD(model.parameters(), lr=0.05), Adam(model.parameters())]
    for optimizer in optimizers:
        si.attach(optimizer)
    expected = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for step in range(3):
        model.zero_grad()
        task_loss(model, 0, step).backward()
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        for optimizer in optimizers:
            optimizer.step()
        for name, p in model.named_parameters():
            if p.grad is not None:
                expected[name] -= p.grad * (p.detach() - before[name])
    for name, path in si.running_sum.items():
        torch.testing.assert_close(path, expected[name], rtol=1e-12, atol=1e-15)


def test_other_models_optimisers_are_left_alone() -> None:
    model, other = network(), network()
    si = protected(model)
    si.attach_others()
    optimizer = SGD(other.parameters(), lr=0.05)
    learn(other, optimizer)
    assert si.steps == 0
    assert not optimizer._optimizer_step_pre_hooks
    si.detach()


def test_an_attached_optimiser_within_a_step_of_another_attached_one_is_refused() -> None:
    model = network()
    si = protected(model)
    inner = SGD(model.parameters(), lr=0.05)
    optimizer = Lookahead(inner)
    si.attach(inner)
    si.attach(optimizer)
    with pytest.raises(CallOrderError, match="SGD makes a step within a step of Lookahead"):
        learn(model, optimizer)


SCHEDULES: dict[str, Any] = {
    "cosine": lambda o: CosineAnnealingLR(o, T_max=6),
    "one cycle": lambda o: OneCycleLR(o, max_lr=0.05, total_steps=9, cycle_momentum=False),
}


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("attached", ["before the schedule", "after it"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_are_followed(name: str, attached: str, fused: bool) -> None:
    model = nn.Linear(3, 2).double()
    si = consolidated(model)
    twin = copy.deepcopy(model)
    terms = [
        (omega.clone(), star.clone())
        for omega, star in zip(si.omega.values(), si.anchor.values(), strict=True)
    ]
    optimizer, other = (Adam(m.parameters(), lr=0.02) for m in (model, twin))
    witness = Witness(model, optimizer)
    if attached == "before the schedule":
        si.attach(optimizer, fused=fused)
    schedule, other_schedule = (SCHEDULES[name](o) for o in (optimizer, other))
    if attached == "after it":
        si.attach(optimizer, fused=fused)
    for _ in range(6):
        go(model, optimizer, steps=1)
        schedule.step()
        other.zero_grad()
        penalty = sum(
            3.0 * (omega * (p - star).square()).sum()
            for p, (omega, star) in zip(twin.parameters(), terms, strict=True)
        )
        (loss_of(twin) + penalty).backward()
        other.step()
        other_schedule.step()
    witness.assert_seen_by(si, rtol=1e-11, atol=1e-14)
    for one, two_ in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one, two_, rtol=1e-11, atol=1e-13)


def test_groups_have_their_own_rates_and_a_group_added_later_is_followed() -> None:
    model = network()
    si = protected(model)
    groups: list[dict[str, Any]] = [
        {"params": list(model.trunk.parameters()), "lr": 0.1},
        {"params": [model.heads[1].weight]},
    ]
    optimizer = SGD(groups, lr=0.01)
    witness = Witness(model, optimizer)
    si.attach(optimizer)
    learn(model, optimizer)
    assert not si.running_sum["heads.0.weight"].any()
    optimizer.add_param_group({"params": list(model.heads[0].parameters()), "lr": 0.5})
    learn(model, optimizer)
    assert si.running_sum["heads.0.weight"].any()
    witness.assert_seen_by(si, rtol=1e-12, atol=1e-15)


def test_parameters_without_a_place_in_the_model_are_stepped_and_not_kept() -> None:
    model = network()
    si = protected(model, exclude=["heads"])
    extra = nn.Parameter(torch.ones(3, dtype=torch.float64))
    optimizer = SGD([*model.parameters(), extra], lr=0.1)
    witness = Witness(model, optimizer)
    si.attach(optimizer)
    for step in range(3):
        optimizer.zero_grad()
        (task_loss(model, 0, step) + extra.sum()).backward()
        optimizer.step()
    witness.assert_seen_by(si, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(extra.detach(), torch.full_like(extra, 0.7))
    assert set(si.omega) == {"trunk.weight", "trunk.bias"}


def test_a_new_optimiser_for_each_task_is_attached_in_place_of_the_old_one() -> None:
    model = network()
    si = protected(model)
    for task in range(3):
        optimizer = Adam(model.parameters(), lr=0.01)
        witness = Witness(model, optimizer)
        si.detach()
        si.attach(optimizer)
        learn(model, optimizer)
        witness.assert_seen_by(si, rtol=1e-12, atol=1e-15)
        si.update_omega()
        assert si.tasks == task + 1
