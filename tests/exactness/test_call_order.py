"""Calls of one step that are refused, because they would lose or falsify it."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.optim import LBFGS, SGD

from si_avalanche import (
    CallOrderError,
    NonFiniteError,
    ParameterSelectionError,
    SynapticIntelligence,
)
from tests.exactness.steps import assert_unchanged, loss_of, snapshot, train


def test_recording_a_step_that_was_never_begun_is_refused(
    network: nn.Module, si: SynapticIntelligence
) -> None:
    loss_of(network).backward()
    with pytest.raises(CallOrderError, match=r"penalty\(\).*add_penalty_gradient\(\)"):
        si.update_running_sum()


def test_recording_a_step_twice_is_refused(network: nn.Module, si: SynapticIntelligence) -> None:
    train(network, si)
    before = snapshot(si)
    with pytest.raises(CallOrderError, match="no step to record"):
        si.update_running_sum()
    assert_unchanged(si, before)


def test_adding_the_penalty_before_the_backward_pass_is_refused(si: SynapticIntelligence) -> None:
    with pytest.raises(CallOrderError, match="after the task loss's"):
        si.add_penalty_gradient()


@pytest.mark.parametrize("another_backward_pass", [False, True])
def test_adding_the_penalty_twice_is_refused(
    network: nn.Module, si: SynapticIntelligence, another_backward_pass: bool
) -> None:
    loss_of(network).backward()
    si.add_penalty_gradient()
    if another_backward_pass:
        loss_of(network).backward()
    with pytest.raises(CallOrderError, match="twice in one step"):
        si.add_penalty_gradient()


def test_adding_the_penalty_to_gradients_that_have_it_from_the_loss_is_refused(
    network: nn.Module, si: SynapticIntelligence
) -> None:
    train(network, si)
    si.update_omega()
    network.zero_grad()
    (loss_of(network) + si.penalty()).backward()
    with pytest.raises(CallOrderError, match="there already"):
        si.add_penalty_gradient()


def test_clearing_gradients_before_the_step_is_recorded_is_refused(
    network: nn.Module, si: SynapticIntelligence
) -> None:
    optimizer = SGD(network.parameters(), lr=0.1)
    loss_of(network).backward()
    si.add_penalty_gradient()
    optimizer.step()
    optimizer.zero_grad()
    with pytest.raises(CallOrderError, match="removed or changed"):
        si.update_running_sum()


@pytest.mark.parametrize("use", ["three calls", "closed form"])
@pytest.mark.parametrize(
    "change",
    [
        lambda network: nn.utils.clip_grad_norm_(network.parameters(), 0.01),
        lambda network: network.zero_grad(set_to_none=False),
    ],
    ids=["clip", "zero"],
)
def test_changing_gradients_after_the_penalty_is_in_them_is_refused(
    network: nn.Module, si: SynapticIntelligence, change: Callable[[nn.Module], object], use: str
) -> None:
    if use == "three calls":
        (loss_of(network) + si.penalty()).backward()
    else:
        loss_of(network).backward()
        si.add_penalty_gradient()
    change(network)
    before = snapshot(si)
    with pytest.raises(CallOrderError, match=r"removed or changed.*Clip, unscale or project"):
        si.update_running_sum()
    assert_unchanged(si, before)


def test_consolidating_with_an_unrecorded_step_is_refused_and_loses_nothing(
    network: nn.Module, si: SynapticIntelligence
) -> None:
    train(network, si)
    optimizer = SGD(network.parameters(), lr=0.1)
    optimizer.zero_grad()
    (loss_of(network) + si.penalty()).backward()
    optimizer.step()
    before = snapshot(si)
    for call in (si.update_omega, si.state_dict):
        with pytest.raises(CallOrderError, match="has not recorded"):
            call()
    assert_unchanged(si, before)
    si.update_running_sum()
    si.update_omega()
    assert si.tasks == 1


@pytest.mark.parametrize("use", ["three calls", "closed form"])
def test_a_step_that_was_never_recorded_is_noticed_when_the_next_begins(
    network: nn.Module, si: SynapticIntelligence, use: str
) -> None:
    optimizer = SGD(network.parameters(), lr=0.1)

    def begin() -> None:
        optimizer.zero_grad()
        if use == "three calls":
            (loss_of(network) + si.penalty()).backward()
        else:
            loss_of(network).backward()
            si.add_penalty_gradient()

    begin()
    optimizer.step()
    with pytest.raises(CallOrderError, match="has not recorded"):
        begin()


def test_an_optimiser_that_evaluates_its_closure_several_times_is_refused(
    network: nn.Module, si: SynapticIntelligence
) -> None:
    optimizer = LBFGS(network.parameters(), max_iter=5)

    def closure() -> Tensor:
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
        optimizer.zero_grad()
        (loss_of(network) + si.penalty()).backward()
        si.update_running_sum()
        optimizer.step()
    with pytest.raises(CallOrderError, match="none of the 3 recorded steps shows it"):
        si.update_omega()
    assert si.tasks == 0


def test_sparse_gradients_are_refused_by_name() -> None:
    table = nn.Embedding(5, 3, sparse=True)
    si = SynapticIntelligence(table)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(ParameterSelectionError, match="'weight' is sparse"):
        si.add_penalty_gradient()
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
