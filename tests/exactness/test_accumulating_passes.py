"""Several watched backward passes to one step: their gradients add up, the penalty comes once."""

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD

from si_avalanche import CallOrderError
from tests.exactness.passes import (
    accumulate,
    add_gradients,
    assert_moved_along,
    loss_of,
    protected,
)
from tests.witness import Witness

PASSES = [["both"] * 3, ["left", "right"], ["left", "both", "right"], ["right", "right", "left"]]


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("follow", [False, True])
@pytest.mark.parametrize("sides", PASSES, ids="-".join)
@pytest.mark.parametrize("keep", [False, True])
def test_the_path_integral_takes_the_sum_of_what_the_passes_brought(
    sides: list[str], follow: bool, clip: bool, keep: bool
) -> None:
    network, si = protected(keep_gradient=keep)
    optimizer = SGD(network.parameters(), lr=0.05, momentum=0.5)
    witness = Witness(network, optimizer)
    for _ in range(4):
        accumulate(network, si, optimizer, sides, clip, follow)
    witness.assert_seen_by(si)


@pytest.mark.parametrize("sides", PASSES, ids="-".join)
def test_the_penalty_comes_once_to_every_gradient(sides: list[str]) -> None:
    network, si = protected()
    optimizer = SGD(network.parameters(), lr=0.0)
    accumulate(network, si, optimizer, sides)
    found = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    optimizer.zero_grad()
    for k, side in enumerate(sides):
        loss_of(network, side, k).backward()
    si.penalty().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(found[name], parameter.grad)


@pytest.mark.parametrize("keep", [False, True])
def test_gradients_of_a_watched_loss_that_go_elsewhere_are_not_counted(keep: bool) -> None:
    network, si = protected(keep_gradient=keep)
    optimizer = SGD(network.parameters(), lr=0.05)
    raw = {name: torch.zeros_like(p) for name, p in network.named_parameters()}
    for k in range(3):
        loss = loss_of(network, "both", k)
        si.watch(loss, optimizer)
        add_gradients(raw, network, loss)
        loss.backward()
        si.add_penalty_gradient()
        if k < 2:
            si.update_running_sum()
    assert_moved_along(raw, network, si, optimizer)


@pytest.mark.parametrize("keep", [False, True])
def test_the_penalty_is_not_in_the_gradients_while_a_pass_accumulates_onto_them(keep: bool) -> None:
    """What data-parallel processes exchange in the last pass is the task's alone."""
    network, si = protected(keep_gradient=keep)
    optimizer = SGD(network.parameters(), lr=0.05)
    accumulate(network, si, optimizer, ["both"])
    optimizer.zero_grad()
    seen: list[Tensor] = []
    raw = {name: torch.zeros_like(p) for name, p in network.named_parameters()}
    for k in range(3):
        loss = loss_of(network, "both", k)
        add_gradients(raw, network, loss)
        si.watch(loss, optimizer)
        loss.backward()
        assert network.left.bias.grad is not None
        seen.append(network.left.bias.grad.clone())
        torch.testing.assert_close(seen[-1], raw["left.bias"], rtol=1e-5, atol=1e-7)
        si.add_penalty_gradient()
        assert not torch.allclose(seen[-1], network.left.bias.grad)


@pytest.mark.parametrize("keep", [False, True])
def test_gradients_that_others_left_behind_are_not_taken_for_the_loss(keep: bool) -> None:
    network, si = protected(keep_gradient=keep)
    optimizer = SGD(network.parameters(), lr=0.05)
    accumulate(network, si, optimizer, ["both"])
    raw = {name: torch.zeros_like(p) for name, p in network.named_parameters()}
    optimizer.zero_grad()
    (10 * loss_of(network, "left", 7)).backward()
    loss = loss_of(network, "both", 1)
    add_gradients(raw, network, loss)
    si.watch(loss, optimizer)
    loss.backward()
    si.add_penalty_gradient()
    assert_moved_along(raw, network, si, optimizer)


@pytest.mark.parametrize("keep", [False, True])
def test_weights_set_anew_between_two_passes_are_where_the_step_begins(keep: bool) -> None:
    network, si = protected(keep_gradient=keep)
    optimizer = SGD(network.parameters(), lr=0.05)
    witness = Witness(network, optimizer)
    for _ in range(3):
        optimizer.zero_grad()
        for k in range(3):
            loss = loss_of(network, "both", k)
            si.watch(loss, optimizer)
            loss.backward()
            si.add_penalty_gradient()
            if k < 2:
                si.update_running_sum()
                with torch.no_grad():
                    for parameter in network.parameters():
                        parameter.mul_(0.9)
        optimizer.step()
        si.update_running_sum()
    witness.assert_seen_by(si)


def test_a_penalty_recorded_after_every_pass_without_a_watch_is_refused() -> None:
    network, si = protected()
    loss_of(network, "both", 0).backward()
    si.add_penalty_gradient()
    si.update_running_sum()
    loss_of(network, "both", 1).backward()
    with pytest.raises(CallOrderError, match="twice in one step"):
        si.add_penalty_gradient()


def test_gradients_unscaled_and_clipped_before_the_penalty_need_both_scales() -> None:
    found = []
    for scaled in (False, True):
        network, si = protected()
        optimizer = SGD(network.parameters(), lr=0.05)
        factor = 256.0 if scaled else 1.0
        for k in range(3):
            optimizer.zero_grad()
            loss = loss_of(network, "both", k)
            si.watch(loss, optimizer)
            (factor * loss).backward()
            for parameter in network.parameters():
                assert parameter.grad is not None
                parameter.grad.div_(factor)
            nn.utils.clip_grad_norm_(network.parameters(), 0.1)
            si.add_penalty_gradient(1.0, loss_scale=factor)
            optimizer.step()
            si.update_running_sum()
        found.append({name: path.clone() for name, path in si.running_sum.items()})
    for name, path in found[0].items():
        torch.testing.assert_close(found[1][name], path)
