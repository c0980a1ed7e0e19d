"""Steps that are skipped or dropped, and tasks, models and states that change between passes."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD

from si_avalanche import SynapticIntelligence
from tests.exactness.passes import (
    Branches,
    accumulate,
    add_gradients,
    assert_moved_along,
    loss_of,
    protected,
)
from tests.witness import Witness


@pytest.mark.parametrize("to_none", [False, True])
@pytest.mark.parametrize("keep", [False, True])
def test_gradients_cleared_after_a_skipped_step_begin_a_new_one(keep: bool, to_none: bool) -> None:
    network, si = protected(keep_gradient=keep)
    optimizer = SGD(network.parameters(), lr=0.05)
    witness = Witness(network, optimizer)
    for _ in range(3):
        for skipped in (True, False):
            optimizer.zero_grad(set_to_none=to_none)
            witness.forget_gradients()
            loss = loss_of(network, "both", int(skipped))
            si.watch(loss, optimizer)
            loss.backward()
            si.add_penalty_gradient()
            if not skipped:
                optimizer.step()
            si.update_running_sum()
    witness.assert_seen_by(si)


def test_a_skipped_step_whose_gradients_were_cleared_is_no_obstacle() -> None:
    for to_none in (True, False):
        network, si = protected()
        optimizer = SGD(network.parameters(), lr=0.05)
        for k in range(3):
            optimizer.zero_grad(set_to_none=to_none)
            loss_of(network, "both", k).backward()
            si.add_penalty_gradient()
            if k == 2:
                optimizer.step()
            si.update_running_sum()
        assert any(path.any() for path in si.running_sum.values())


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("gradient", ["task", "total"])
def test_gradients_left_over_when_a_task_ends_lose_the_penalty_of_that_task(
    keep: bool, gradient: Any, clip: bool
) -> None:
    network, si = protected(keep_gradient=keep or clip, gradient=gradient)
    optimizer = SGD(network.parameters(), lr=0.05)
    accumulate(network, si, optimizer, ["both"])
    optimizer.zero_grad()
    raw = {name: torch.zeros_like(p) for name, p in network.named_parameters()}
    for k, task_ends in ((0, True), (1, False)):
        loss = loss_of(network, "both", k)
        add_gradients(raw, network, loss)
        si.watch(loss, optimizer)
        loss.backward()
        si.add_penalty_gradient()
        if task_ends:
            if clip:
                nn.utils.clip_grad_norm_(network.parameters(), 0.1)
            si.update_running_sum()
            si.update_omega()
    assert_moved_along(raw, network, si, optimizer)


def freeze(network: Any, si: SynapticIntelligence) -> None:
    network.idle.requires_grad_(False)


def add_layer(network: Any, si: SynapticIntelligence) -> None:
    network.new = nn.Linear(2, 2)


def widen(network: Any, si: SynapticIntelligence) -> None:
    larger = nn.Linear(3, 4)
    with torch.no_grad():
        larger.weight[:2], larger.bias[:2] = network.idle.weight, network.idle.bias
    network.idle = larger


def load(network: Any, si: SynapticIntelligence) -> None:
    state = si.state_dict()
    for omega in state["importance"].values():
        omega.mul_(3.0)
    si.load_state_dict(state)


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("change", [freeze, add_layer, widen, load])
def test_a_step_goes_on_when_the_model_or_the_state_changes_between_its_passes(
    change: Any, keep: bool, clip: bool
) -> None:
    torch.manual_seed(0)
    network: Any = Branches()
    network.idle = nn.Linear(3, 2)
    si = SynapticIntelligence(network, c=3.0, keep_gradient=keep or clip)
    for omega in si.omega.values():
        omega.fill_(0.5)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2)
    optimizer = SGD([*network.left.parameters(), *network.right.parameters()], lr=0.05)
    accumulate(network, si, optimizer, ["both"])
    optimizer.zero_grad()
    path = {name: tensor.clone() for name, tensor in si.running_sum.items()}
    used = dict(network.left.named_parameters(prefix="left"))
    raw = {name: torch.zeros_like(parameter) for name, parameter in used.items()}
    for k in range(2):
        loss = loss_of(network, "both", k)
        for name, g in zip(
            used, torch.autograd.grad(loss, list(used.values()), retain_graph=True), strict=True
        ):
            raw[name] += g
        si.watch(loss, optimizer)
        loss.backward()
        si.add_penalty_gradient()
        if k == 0:
            if clip:
                nn.utils.clip_grad_norm_(network.parameters(), 0.1)
            si.update_running_sum()
            change(network, si)
    for name, parameter in used.items():
        pull = 2 * si.c * si.omega[name] * (parameter.detach() - si.anchor[name])
        assert parameter.grad is not None
        assert clip or torch.allclose(parameter.grad, raw[name] + pull, rtol=1e-4, atol=1e-6)
    before = {name: parameter.detach().clone() for name, parameter in used.items()}
    optimizer.step()
    si.update_running_sum()
    for name, parameter in used.items():
        added = -raw[name] * (parameter.detach() - before[name])
        found = si.running_sum[name] - path[name]
        torch.testing.assert_close(found, added, rtol=1e-3, atol=1e-6)


def test_a_group_of_passes_that_is_dropped_does_not_stop_the_consolidation() -> None:
    for to_none in (True, False):
        network, si = protected()
        optimizer = SGD(network.parameters(), lr=0.05)
        accumulate(network, si, optimizer, ["both"])
        loss = loss_of(network, "both", 1)
        si.watch(loss, optimizer)
        loss.backward()
        si.add_penalty_gradient()
        si.update_running_sum()
        optimizer.zero_grad(set_to_none=to_none)
        si.update_omega()
        assert si.tasks == 1
        witness = Witness(network, optimizer)
        accumulate(network, si, optimizer, ["both", "left"])
        witness.assert_seen_by(si)


def test_a_task_without_a_gradient_in_which_weights_decay_is_consolidated() -> None:
    network, si = protected()
    optimizer = SGD(network.parameters(), lr=0.05, weight_decay=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        loss = 0.0 * loss_of(network, "both", 0)
        si.watch(loss, optimizer)
        loss.backward()
        si.add_penalty_gradient()
        optimizer.step()
        si.update_running_sum()
    si.update_omega()
    assert si.tasks == 1
