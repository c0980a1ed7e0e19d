"""Several watched backward passes to one step: their gradients add up, the penalty comes once."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD

from si_avalanche import CallOrderError, SynapticIntelligence
from tests.witness import Witness


class Branches(nn.Module):
    """Two branches of which a pass may use one: the other then gets its gradient later."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(3, 2)
        self.right = nn.Linear(3, 2)

    def forward(self, x: Tensor, side: str) -> Tensor:
        outputs: dict[str, Any] = {"left": self.left, "right": self.right}
        return outputs[side](x) if side in outputs else self.left(x) + self.right(x)


def protected(c: float = 3.0, **options: Any) -> tuple[Branches, SynapticIntelligence]:
    """A network with importance everywhere, away from its anchor."""
    torch.manual_seed(0)
    network = Branches()
    si = SynapticIntelligence(network, c=c, **options)
    for omega in si.omega.values():
        omega.fill_(0.5)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2)
    return network, si


def loss_of(network: Branches, side: str, k: int) -> Tensor:
    generator = torch.Generator().manual_seed(k)
    return (network(torch.randn(5, 3, generator=generator), side) - 1).square().mean()


def accumulate(
    network: Branches,
    si: SynapticIntelligence,
    optimizer: SGD,
    sides: list[str],
    clip: bool = False,
    follow: bool = True,
) -> None:
    optimizer.zero_grad()
    for k, side in enumerate(sides):
        loss = loss_of(network, side, k)
        si.watch(loss, optimizer if follow else None)
        loss.backward()
        if clip:
            nn.utils.clip_grad_norm_(network.parameters(), 0.3)
        si.add_penalty_gradient()
        if follow and k < len(sides) - 1:
            si.update_running_sum()
    optimizer.step()
    si.update_running_sum()


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


def add_gradients(raw: dict[str, Tensor], network: Branches, value: Tensor) -> None:
    """Add the gradients of a value without touching those that the parameters hold."""
    gradients = torch.autograd.grad(value, list(network.parameters()), retain_graph=True)
    for name, gradient in zip(raw, gradients, strict=True):
        raw[name] += gradient


def assert_moved_along(
    raw: dict[str, Tensor], network: Branches, si: SynapticIntelligence, optimizer: SGD
) -> None:
    """Step, and compare what is added to the path integral with these gradients."""
    path = {name: tensor.clone() for name, tensor in si.running_sum.items()}
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    optimizer.step()
    si.update_running_sum()
    for name, parameter in network.named_parameters():
        added = -raw[name] * (parameter.detach() - before[name])
        assert added.any()
        torch.testing.assert_close(si.running_sum[name] - path[name], added, rtol=1e-3, atol=1e-7)


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
