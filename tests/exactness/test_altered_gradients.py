"""The path integral of a watched loss is made of its own gradient, whatever happens to it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from si_avalanche import CallOrderError, ConfigurationError, SynapticIntelligence
from tests.exactness.steps import loss_of, train
from tests.witness import Witness

Change = Callable[[nn.Module], object]


def clip_norm(network: nn.Module) -> None:
    nn.utils.clip_grad_norm_(network.parameters(), 0.05)


def clip_value(network: nn.Module) -> None:
    nn.utils.clip_grad_value_(network.parameters(), 0.01)


def project(network: nn.Module) -> None:
    for parameter in network.parameters():
        assert parameter.grad is not None
        parameter.grad = parameter.grad - parameter.grad.mean()


def remove_and_bring_back(network: nn.Module) -> None:
    for parameter in network.parameters():
        assert parameter.grad is not None
        gradient, parameter.grad = parameter.grad.clone(), None
        parameter.grad = 0.5 * gradient


CHANGES: list[Change] = [clip_norm, clip_value, project, remove_and_bring_back]


def consolidated(network: nn.Module, **options: Any) -> SynapticIntelligence:
    """An object with importance, and weights away from the anchor."""
    si = SynapticIntelligence(network, c=3.0, **options)
    train(network, si)
    si.update_omega()
    for omega in si.omega.values():
        omega.add_(0.1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1)
    return si


def steps(
    network: nn.Module,
    si: SynapticIntelligence,
    optimizer: Optimizer,
    before: Change | None,
    after: Change | None,
    follow: bool,
    count: int = 4,
) -> None:
    for _ in range(count):
        optimizer.zero_grad()
        loss = loss_of(network)
        si.watch(loss, optimizer if follow else None)
        loss.backward()
        if before:
            before(network)
        si.add_penalty_gradient()
        if after:
            after(network)
        optimizer.step()
        si.update_running_sum()


@pytest.mark.parametrize("follow", [False, True])
@pytest.mark.parametrize("when", ["before", "after", "both"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_gradients_may_be_changed_before_and_after_the_penalty(
    network: nn.Module, change: Change, when: str, follow: bool
) -> None:
    si = consolidated(network)
    optimizer = SGD(network.parameters(), lr=0.05, momentum=0.5)
    witness = Witness(network, optimizer)
    before = change if when in ("before", "both") else None
    after = change if when in ("after", "both") else None
    steps(network, si, optimizer, before, after, follow)
    witness.assert_seen_by(si)


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_order_decides_whether_the_penalty_is_clipped_with_the_rest(
    network: nn.Module, when: str
) -> None:
    si = consolidated(network)
    optimizer = SGD(network.parameters(), lr=0.0)
    change = {"before": None, "after": None, when: clip_value}
    steps(network, si, optimizer, change["before"], change["after"], follow=True, count=1)
    gradients = [parameter.grad for parameter in network.parameters()]
    largest = max(gradient.abs().max().item() for gradient in gradients if gradient is not None)
    assert (largest > 0.011) == (when == "before")


def test_nesterov_momentum_that_changes_gradients_in_place_is_welcome(network: nn.Module) -> None:
    si = consolidated(network)
    optimizer = SGD(network.parameters(), lr=0.05, momentum=0.9, nesterov=True, foreach=True)
    witness = Witness(network, optimizer)
    steps(network, si, optimizer, None, None, follow=False)
    witness.assert_seen_by(si)


def test_the_total_gradient_is_that_of_loss_and_penalty_before_any_clipping() -> None:
    found = []
    for change in (None, clip_norm):
        torch.manual_seed(0)
        network = nn.Linear(3, 2)
        si = consolidated(network, gradient="total")
        loss = loss_of(network)
        si.watch(loss)
        network.zero_grad()
        loss.backward()
        si.add_penalty_gradient()
        if change:
            change(network)
        nudge(network)
        si.update_running_sum()
        found.append({name: tensor.clone() for name, tensor in si.running_sum.items()})
    assert all(tensor.any() for tensor in found[0].values())
    for name, plain in found[0].items():
        torch.testing.assert_close(found[1][name], plain, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("where", ["option", "watch"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_change_in_some_steps_only_is_refused_until_copies_are_asked_for(
    when: str, where: str
) -> None:
    for keep in (False, True):
        torch.manual_seed(0)
        network = nn.Linear(3, 2)
        si = consolidated(network, keep_gradient=keep and where == "option")
        if keep and where == "watch":
            si.watch(loss_of(network), keep_gradient=True)
        optimizer = SGD(network.parameters(), lr=0.05)
        witness = Witness(network, optimizer)
        steps(network, si, optimizer, None, None, follow=True)
        change = {"before": None, "after": None, when: clip_norm}
        if not keep:
            with pytest.raises(CallOrderError, match="keep_gradient=True"):
                steps(network, si, optimizer, change["before"], change["after"], follow=True)
            continue
        steps(network, si, optimizer, change["before"], change["after"], follow=True)
        witness.assert_seen_by(si)


def test_a_change_that_was_seen_once_is_reckoned_with_in_later_tasks(network: nn.Module) -> None:
    si = consolidated(network)
    optimizer = SGD(network.parameters(), lr=0.05)
    steps(network, si, optimizer, clip_norm, None, follow=True, count=2)
    si.update_omega()
    witness = Witness(network, optimizer)
    steps(network, si, optimizer, None, None, follow=True, count=2)
    steps(network, si, optimizer, None, clip_norm, follow=True, count=2)
    witness.assert_seen_by(si)


def nudge(network: nn.Module) -> None:
    """Move weights as no optimiser does."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.25)


def test_the_total_gradient_is_that_at_which_the_penalty_was_added_if_weights_move_after_it(
    network: nn.Module,
) -> None:
    si = consolidated(network, gradient="total")
    optimizer = SGD(network.parameters(), lr=0.05)
    loss = loss_of(network)
    si.watch(loss, optimizer)
    network.zero_grad()
    loss.backward()
    si.add_penalty_gradient()
    total = {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}
    nudge(network)
    before = {n: p.detach().clone() for n, p in network.named_parameters()}
    optimizer.step()
    si.update_running_sum()
    for name, parameter in network.named_parameters():
        expected = -total[name] * (parameter.detach() - before[name])
        torch.testing.assert_close(si.running_sum[name], expected, rtol=1e-4, atol=1e-7)


def test_only_what_moves_within_the_optimisers_step_counts_if_it_is_followed(
    network: nn.Module,
) -> None:
    si = consolidated(network)
    optimizer = Adam(network.parameters(), lr=0.01)
    witness = Witness(network, optimizer)
    for _ in range(3):
        nudge(network)
        optimizer.zero_grad()
        loss = loss_of(network)
        si.watch(loss, optimizer)
        loss.backward()
        nudge(network)
        si.add_penalty_gradient()
        nudge(network)
        optimizer.step()
        nudge(network)
        si.update_running_sum()
        nudge(network)
    witness.assert_seen_by(si)


@pytest.mark.parametrize("steps_before", [0, 2])
def test_an_iteration_in_which_weights_move_without_the_optimiser_is_refused(
    network: nn.Module, steps_before: int
) -> None:
    si = consolidated(network)
    optimizer = SGD(network.parameters(), lr=0.05)
    steps(network, si, optimizer, None, None, follow=True, count=steps_before)
    optimizer.zero_grad()
    loss = loss_of(network)
    si.watch(loss, optimizer)
    loss.backward()
    si.add_penalty_gradient()
    nudge(network)
    with pytest.raises(CallOrderError, match="made no step"):
        si.update_running_sum()


def test_two_steps_after_one_backward_pass_are_refused(network: nn.Module) -> None:
    si = consolidated(network)
    optimizer = SGD(network.parameters(), lr=0.05)
    loss = loss_of(network)
    si.watch(loss, optimizer)
    loss.backward()
    si.add_penalty_gradient()
    optimizer.step()
    with pytest.raises(CallOrderError, match="step the optimiser, once"):
        optimizer.step()


def test_a_followed_optimiser_keeps_no_hooks_after_the_iteration(network: nn.Module) -> None:
    si = consolidated(network)
    optimizer = SGD(network.parameters(), lr=0.05)
    steps(network, si, optimizer, None, None, follow=True)
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks


def test_an_optimiser_whose_steps_cannot_be_followed_is_refused(network: nn.Module) -> None:
    optimizer: Any = object()
    with pytest.raises(ConfigurationError, match=r"must be a torch\.optim\.Optimizer"):
        SynapticIntelligence(network).watch(loss_of(network), optimizer)


def test_a_backward_pass_past_the_watched_loss_is_refused(network: nn.Module) -> None:
    si = SynapticIntelligence(network)
    si.watch(loss_of(network))
    loss_of(network).backward()
    with pytest.raises(CallOrderError, match="did not go through the loss"):
        si.add_penalty_gradient()


def test_gradients_of_a_watched_loss_that_go_elsewhere_open_no_step(network: nn.Module) -> None:
    si = consolidated(network)
    loss = loss_of(network)
    si.watch(loss)
    gradients: tuple[Tensor, ...] = torch.autograd.grad(loss, list(network.parameters()))
    assert all(gradient.any() for gradient in gradients)
    with pytest.raises(CallOrderError, match="no step to record"):
        si.update_running_sum()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_spoilt_gradient_that_moved_nothing_adds_nothing(
    network: nn.Module, value: float
) -> None:
    si = consolidated(network)
    optimizer = SGD(network.parameters(), lr=0.05)
    steps(network, si, optimizer, clip_norm, None, follow=True, count=2)
    before = {name: path.clone() for name, path in si.running_sum.items()}
    optimizer.zero_grad()
    loss = value * loss_of(network)
    si.watch(loss, optimizer)
    loss.backward()
    optimizer.zero_grad(set_to_none=False)
    si.c = 0.0
    si.add_penalty_gradient()
    optimizer.step()
    si.update_running_sum()
    assert all(torch.equal(si.running_sum[name], path) for name, path in before.items())


def test_a_followed_optimiser_that_finds_no_gradient_makes_no_step(network: nn.Module) -> None:
    si = consolidated(network)
    optimizer = SGD(network.parameters(), lr=0.05)
    loss = loss_of(network)
    si.watch(loss, optimizer)
    loss.backward()
    optimizer.zero_grad()
    si.add_penalty_gradient()
    optimizer.step()
    si.update_running_sum()
    assert si.steps == 0
    witness = Witness(network, optimizer)
    steps(network, si, optimizer, None, None, follow=True)
    witness.assert_seen_by(si)
