"""What may stand between the calls of one step, and what each of them leaves behind."""

import copy

import pytest
import torch
from torch import nn
from torch.optim import SGD

from si_avalanche import (
    SynapticIntelligence,
)
from si_avalanche.settings import FirstAnchor
from tests.exactness.steps import assert_unchanged, loss_of, snapshot, train


def test_clipping_before_the_penalty_is_added_is_welcome(
    network: nn.Module, si: SynapticIntelligence
) -> None:
    loss_of(network).backward()
    nn.utils.clip_grad_norm_(network.parameters(), 0.01)
    si.add_penalty_gradient()
    SGD(network.parameters(), lr=0.1).step()
    si.update_running_sum()
    assert si.running_sum["weight"].any()


def test_a_skipped_optimiser_step_is_no_obstacle(
    network: nn.Module, si: SynapticIntelligence
) -> None:
    train(network, si)
    before = snapshot(si)
    network.zero_grad()
    loss_of(network).backward()
    si.add_penalty_gradient()
    si.update_running_sum()
    assert_unchanged(si, before)
    network.zero_grad()
    loss_of(network).backward()
    si.add_penalty_gradient()
    si.update_omega()
    assert si.tasks == 1


def test_consolidating_without_a_step_changes_nothing(
    network: nn.Module, si: SynapticIntelligence
) -> None:
    train(network, si)
    si.update_omega()
    before = snapshot(si)
    si.update_omega()
    assert_unchanged(si, before)
    assert si.tasks == 1


def test_looking_at_the_penalty_leaves_no_trace(
    network: nn.Module, si: SynapticIntelligence
) -> None:
    train(network, si)
    si.update_omega()
    twin_network = copy.deepcopy(network)
    twin = SynapticIntelligence(twin_network)
    twin.load_state_dict(si.state_dict())
    optimizer = SGD(network.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        si.penalty()
        loss = loss_of(network) + si.penalty()
        torch.autograd.grad(si.penalty(), list(network.parameters()), allow_unused=True)
        loss.backward()
        optimizer.step()
        torch.autograd.grad(si.penalty(), list(network.parameters()))
        with torch.no_grad():
            si.penalty()
        si.update_running_sum()
    optimizer = SGD(twin_network.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        (loss_of(twin_network) + twin.penalty()).backward()
        optimizer.step()
        twin.update_running_sum()
    for name in si.running_sum:
        assert torch.equal(si.running_sum[name], twin.running_sum[name])


def test_gradients_accumulated_over_several_backward_passes_count_as_one_step(
    network: nn.Module,
) -> None:
    twin = copy.deepcopy(network)
    split, whole = SynapticIntelligence(network, c=30.0), SynapticIntelligence(twin, c=30.0)
    for model, si, parts in ((network, split, 4), (twin, whole, 1)):
        train(model, si)
        si.update_omega()
        optimizer = SGD(model.parameters(), lr=0.02)
        for _ in range(4):
            optimizer.zero_grad()
            for _ in range(parts):
                ((loss_of(model) + si.penalty()) / parts).backward()
            optimizer.step()
            si.update_running_sum()
    for name in split.running_sum:
        torch.testing.assert_close(
            split.running_sum[name], whole.running_sum[name], rtol=1e-3, atol=0
        )


def test_the_gradient_of_the_penalty_may_be_asked_for_beside_the_closed_form(
    network: nn.Module, si: SynapticIntelligence
) -> None:
    train(network, si)
    si.update_omega()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1.0)
    network.zero_grad()
    loss_of(network).backward()
    task = [
        parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None
    ]
    automatic = torch.autograd.grad(si.penalty(), list(network.parameters()))
    si.add_penalty_gradient()
    for parameter, before, extra in zip(network.parameters(), task, automatic, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, before + extra)


@pytest.mark.parametrize("order", ["penalty last", "penalty twice in one loss"])
@pytest.mark.parametrize("tasks_before", [0, 1])
def test_other_ways_to_bring_the_penalty_by_autograd_integrate_the_task_gradient_too(
    network: nn.Module, order: str, tasks_before: int
) -> None:
    c = 20.0 if order == "penalty last" else 10.0
    twin = copy.deepcopy(network)
    odd, plain = SynapticIntelligence(network, c=c), SynapticIntelligence(twin, c=20.0)
    for model, si in ((network, odd), (twin, plain)):
        for _ in range(tasks_before):
            train(model, si)
            si.update_omega()
        optimizer = SGD(model.parameters(), lr=0.02)
        for _ in range(3):
            optimizer.zero_grad()
            if model is twin:
                (loss_of(model) + si.penalty()).backward()
            elif order == "penalty last":
                loss_of(model).backward()
                si.penalty().backward()
            else:
                (loss_of(model) + si.penalty() + si.penalty()).backward()
            optimizer.step()
            si.update_running_sum()
    for name, path_integral in plain.running_sum.items():
        torch.testing.assert_close(odd.running_sum[name], path_integral, rtol=1e-3, atol=0)


@pytest.mark.parametrize("first_anchor", ["initial", "zero"])
def test_a_task_that_moves_nothing_is_consolidated(
    network: nn.Module, first_anchor: FirstAnchor
) -> None:
    si = SynapticIntelligence(network, first_anchor=first_anchor)
    loss_of(network).backward()
    si.add_penalty_gradient()
    SGD(network.parameters(), lr=0.0).step()
    si.update_running_sum()
    si.update_omega()
    assert si.tasks == 1


def test_saving_between_backward_pass_and_step_leaves_the_step_open(
    network: nn.Module, si: SynapticIntelligence
) -> None:
    optimizer = SGD(network.parameters(), lr=0.1)
    loss_of(network).backward()
    si.add_penalty_gradient()
    assert si.state_dict()["steps"] == 0
    optimizer.step()
    si.update_running_sum()
    assert si.state_dict()["steps"] == 1


def test_a_skipped_step_whose_gradients_are_zeroed_in_place_leaves_no_trace(
    network: nn.Module,
) -> None:
    twin = copy.deepcopy(network)
    skipping, plain = SynapticIntelligence(network, c=20.0), SynapticIntelligence(twin, c=20.0)
    for model, si in ((network, skipping), (twin, plain)):
        train(model, si)
        si.update_omega()
        optimizer = SGD(model.parameters(), lr=0.02)
        for _ in range(3):
            for _ in range(2 if model is network else 1):
                optimizer.zero_grad(set_to_none=False)
                (loss_of(model) + si.penalty()).backward()
            optimizer.step()
            si.update_running_sum()
    for name, path_integral in plain.running_sum.items():
        assert torch.equal(skipping.running_sum[name], path_integral)


def test_a_penalty_in_some_of_the_accumulated_passes_counts_as_often_as_it_came(
    network: nn.Module,
) -> None:
    twin = copy.deepcopy(network)
    some, plain = SynapticIntelligence(network, c=20.0), SynapticIntelligence(twin, c=40.0)
    for model, si in ((network, some), (twin, plain)):
        train(model, si)
        si.update_omega()
        optimizer = SGD(model.parameters(), lr=0.01)
        for _ in range(3):
            optimizer.zero_grad()
            if model is network:
                (loss_of(model) + si.penalty()).backward()
                loss_of(model).backward()
                (loss_of(model) + si.penalty()).backward()
            else:
                (3 * loss_of(model) + si.penalty()).backward()
            optimizer.step()
            si.update_running_sum()
    for name, path_integral in plain.running_sum.items():
        torch.testing.assert_close(some.running_sum[name], path_integral, rtol=1e-3, atol=0)


@pytest.mark.parametrize("keep", [False, True])
def test_a_watched_loss_that_sends_its_gradient_elsewhere_leaves_the_penalty_where_it_is(
    network: nn.Module, keep: bool
) -> None:
    si = SynapticIntelligence(network, c=2.0, keep_gradient=keep)
    train(network, si)
    si.update_omega()
    train(network, si)
    weights = list(network.parameters())
    network.zero_grad()
    loss = loss_of(network)
    si.watch(loss)
    loss.backward()
    si.add_penalty_gradient()
    before = [weight.grad.clone() for weight in weights if weight.grad is not None]
    other = loss_of(network)
    si.watch(other)
    torch.autograd.grad(other, weights)
    after = [weight.grad for weight in weights if weight.grad is not None]
    torch.testing.assert_close(after, before)
    SGD(weights, lr=0.1).step()
    si.update_running_sum()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_16_bits_a_strong_penalty_does_not_drown_the_task_gradient(dtype: torch.dtype) -> None:
    network = nn.Linear(3, 2).to(dtype)
    si = SynapticIntelligence(network, c=1e3)
    si.omega["weight"].fill_(1.0)
    si.prev_params["weight"].sub_(1.0)
    network.weight.grad = torch.full((2, 3), 0.0123, dtype=dtype)
    before, task = network.weight.detach().clone().float(), network.weight.grad.clone().float()
    si.add_penalty_gradient()
    with torch.no_grad():
        network.weight.add_(0.25)
    si.update_running_sum()
    moved = network.weight.detach().float() - before
    torch.testing.assert_close(si.running_sum["weight"], -task * moved)


def test_nothing_is_added_to_the_graph_or_the_gradients_before_the_first_consolidation(
    network: nn.Module, si: SynapticIntelligence
) -> None:
    loss_of(network).backward()
    before = [
        parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None
    ]
    si.add_penalty_gradient()
    after = [parameter.grad for parameter in network.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True) if a is not None)
    network.zero_grad()
    si.penalty().backward()
    assert all(parameter.grad is None for parameter in network.parameters())


def test_a_parameter_without_a_gradient_keeps_none_and_gradients_are_changed_in_place() -> None:
    used, idle = nn.Linear(3, 2), nn.Linear(3, 2)
    network = nn.ModuleDict({"used": used, "idle": idle})
    si = SynapticIntelligence(network)
    train(used, si)
    si.update_omega()
    for omega in si.omega.values():
        omega.fill_(1.0)
    with torch.no_grad():
        idle.weight.add_(1.0)
        used.weight.add_(1.0)
    network.zero_grad()
    loss_of(used).backward()
    gradient = used.weight.grad
    assert gradient is not None
    before = gradient.clone()
    si.add_penalty_gradient()
    assert all(parameter.grad is None for parameter in idle.parameters())
    assert used.weight.grad is gradient
    torch.testing.assert_close(gradient, before + 2.0)
