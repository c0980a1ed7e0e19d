"""Calls of one step that are refused, because they would lose or falsify it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import LBFGS, SGD, Adam

from si_avalanche import (
    CallOrderError,
    ConfigurationError,
    NonFiniteError,
    ParameterSelectionError,
    SynapticIntelligence,
)
from tests.exactness.steps import assert_unchanged, go, loss_of, snapshot, train


def backward(network: nn.Module, si: SynapticIntelligence) -> None:
    network.zero_grad()
    (loss_of(network) + si.penalty()).backward()


def test_recording_a_step_that_was_never_begun_is_refused(
    network: nn.Module, si: SynapticIntelligence
) -> None:
    loss_of(network).backward()
    with pytest.raises(CallOrderError, match=r"add penalty\(\) to the loss"):
        si.update_running_sum()


def test_recording_a_step_twice_is_refused(network: nn.Module, si: SynapticIntelligence) -> None:
    backward(network, si)
    SGD(network.parameters(), lr=0.1).step()
    si.update_running_sum()
    before = snapshot(si)
    with pytest.raises(CallOrderError, match="no step to record"):
        si.update_running_sum()
    assert_unchanged(si, before)


def clip(network: nn.Module) -> None:
    nn.utils.clip_grad_norm_(network.parameters(), 0.01)


def zero(network: nn.Module) -> None:
    network.zero_grad(set_to_none=False)


def remove(network: nn.Module) -> None:
    SGD(network.parameters(), lr=0.1).step()
    network.zero_grad()


CHANGES: list[Callable[[nn.Module], None]] = [clip, zero, remove]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_gradients_changed_between_the_backward_pass_and_the_record_are_refused(
    network: nn.Module, si: SynapticIntelligence, change: Callable[[nn.Module], None]
) -> None:
    backward(network, si)
    before = snapshot(si)
    change(network)
    with pytest.raises(CallOrderError, match=r"removed or changed.*attach\(optimizer\) instead"):
        si.update_running_sum()
    assert_unchanged(si, before)


def test_consolidating_with_an_unrecorded_step_is_refused_and_loses_nothing(
    network: nn.Module, si: SynapticIntelligence
) -> None:
    train(network, si)
    backward(network, si)
    SGD(network.parameters(), lr=0.1).step()
    before = snapshot(si)
    for call in (si.update_omega, si.state_dict, si.begin_task):
        with pytest.raises(CallOrderError, match="has not recorded"):
            call()
    assert_unchanged(si, before)
    si.update_running_sum()
    si.update_omega()
    assert si.tasks == 1


def test_a_step_that_was_never_recorded_is_noticed_when_the_next_begins(
    network: nn.Module, si: SynapticIntelligence
) -> None:
    backward(network, si)
    SGD(network.parameters(), lr=0.1).step()
    with pytest.raises(CallOrderError, match="has not recorded"):
        backward(network, si)


def test_with_the_three_calls_too_a_closure_evaluated_several_times_is_refused(
    network: nn.Module, si: SynapticIntelligence
) -> None:
    optimizer = LBFGS(network.parameters(), max_iter=5)

    def closure() -> Any:
        optimizer.zero_grad()
        loss = loss_of(network) + si.penalty()
        loss.backward()
        return loss

    with pytest.raises(CallOrderError, match="LBFGS"):
        optimizer.step(closure)


def test_recording_before_the_optimiser_steps_is_refused_at_the_end_of_the_task(
    network: nn.Module, si: SynapticIntelligence
) -> None:
    optimizer = SGD(network.parameters(), lr=0.1)
    for _ in range(3):
        backward(network, si)
        si.update_running_sum()
        optimizer.step()
    with pytest.raises(CallOrderError, match="none of the 3 recorded steps shows it"):
        si.update_omega()
    assert si.tasks == 0


@pytest.mark.parametrize("tasks", [0, 1])
def test_a_task_learnt_by_an_optimiser_that_is_not_attached_is_not_consolidated_and_logged(
    network: nn.Module, si: SynapticIntelligence, tasks: int, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(tasks):
        train(network, si)
        si.update_omega()
    go(network, Adam(network.parameters(), lr=0.01))
    si.update_omega()
    assert "none of the 0 recorded steps shows it: attach()" in caplog.text
    assert si.tasks == tasks


def test_anchored_at_zero_a_unit_that_is_new_has_not_moved() -> None:
    model = nn.ModuleDict({"one": nn.Linear(3, 2)})
    si = SynapticIntelligence(model, first_anchor="zero")
    si.update_omega()
    train(model["one"], si)
    si.update_omega()
    model["two"] = nn.Linear(3, 2)
    si.update_omega()
    assert si.tasks == 1
    assert not si.omega["two.weight"].any()


def test_a_new_optimiser_in_place_of_the_attached_one_is_noticed(
    network: nn.Module, si: SynapticIntelligence, caplog: pytest.LogCaptureFixture
) -> None:
    si.attach(SGD(network.parameters(), lr=0.1))
    go(network, SGD(network.parameters(), lr=0.1))
    si.update_omega()
    assert "attach() the optimiser that moves them, a new one" in caplog.text


def test_the_three_calls_are_not_mixed_with_attach(
    network: nn.Module, si: SynapticIntelligence
) -> None:
    optimizer = SGD(network.parameters(), lr=0.1)
    si.attach(optimizer)
    with pytest.raises(CallOrderError, match=r"Leave penalty\(\) out of the loss, or detach\(\)"):
        backward(network, si)
    network.zero_grad()
    loss_of(network).backward()
    optimizer.step()
    with pytest.raises(CallOrderError, match=r"Leave the call out, or detach\(\)"):
        si.update_running_sum()
    si.detach()
    backward(network, si)
    optimizer.step()
    si.update_running_sum()
    assert si.steps == 2


def test_two_objects_on_one_optimiser_are_refused(network: nn.Module) -> None:
    optimizer = SGD(network.parameters(), lr=0.1)
    first, second = SynapticIntelligence(network), SynapticIntelligence(network)
    first.attach(optimizer)
    with pytest.raises(ConfigurationError, match="Another SynapticIntelligence is attached"):
        second.attach(optimizer)
    first.attach(optimizer)
    go(network, optimizer)
    assert (first.steps, second.steps) == (3, 0)
    first.detach()
    second.attach(optimizer)
    go(network, optimizer)
    assert (first.steps, second.steps) == (3, 3)


def test_an_optimiser_that_climbs_is_refused(network: nn.Module, si: SynapticIntelligence) -> None:
    optimizer = SGD(network.parameters(), lr=0.1, maximize=True)
    with pytest.raises(ConfigurationError, match="maximize=True"):
        si.attach(optimizer)
    optimizer.param_groups[0]["maximize"] = False
    si.attach(optimizer)
    optimizer.param_groups[0]["maximize"] = True
    with pytest.raises(ConfigurationError, match="maximize=True"):
        go(network, optimizer)
    assert si.steps == 0


@pytest.mark.parametrize("value", ["yes", None, 1])
def test_a_bad_switch_is_refused(network: nn.Module, si: SynapticIntelligence, value: Any) -> None:
    with pytest.raises(ConfigurationError, match="fused must be True or False"):
        si.attach(SGD(network.parameters(), lr=0.1), fused=value)


def test_what_is_no_optimiser_of_torch_is_refused(si: SynapticIntelligence) -> None:
    optimizer: Any = object()
    with pytest.raises(ConfigurationError, match=r"must be a torch\.optim\.Optimizer.*got object"):
        si.attach(optimizer)


def test_sparse_gradients_are_refused_by_name() -> None:
    table = nn.Embedding(5, 3, sparse=True)
    si = SynapticIntelligence(table)
    optimizer = SGD(table.parameters(), lr=0.1)
    si.attach(optimizer)
    before = table.weight.detach().clone()
    table(torch.tensor([1])).sum().backward()
    gradient = table.weight.grad
    with pytest.raises(ParameterSelectionError, match="'weight' is sparse"):
        optimizer.step()
    assert table.weight.grad is gradient
    assert torch.equal(table.weight, before)
    si.detach()
    with pytest.raises(ParameterSelectionError, match="'weight' is sparse"):
        (table(torch.tensor([1])).sum() + si.penalty()).backward()


def test_a_diverged_task_is_not_consolidated(network: nn.Module, si: SynapticIntelligence) -> None:
    train(network, si)
    si.update_omega()
    train(network, si)
    importance = {name: omega.clone() for name, omega in si.omega.items()}
    with torch.no_grad():
        dict(network.named_parameters())["bias"].fill_(torch.nan)
    with pytest.raises(NonFiniteError, match="bias"):
        si.update_omega()
    assert all(torch.equal(si.omega[name], omega) for name, omega in importance.items())
    assert all(anchor.isfinite().all() for anchor in si.prev_params.values())
