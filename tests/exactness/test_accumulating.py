"""Several backward passes to one step, and steps that never come."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam

from si_avalanche import SynapticIntelligence
from tests.exactness.steps import assert_unchanged, gradients, nudge, pulls, snapshot
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
    network = Branches().double()
    si = SynapticIntelligence(network, c=c, **options)
    for omega in si.omega.values():
        omega.fill_(0.5)
    nudge(network, 0.2)
    return network, si


def loss_of(network: Branches, side: str, k: int) -> Tensor:
    generator = torch.Generator().manual_seed(k)
    x = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    return (network(x, side) - 1).square().mean()


PASSES = [["both"] * 3, ["left", "right"], ["left", "both", "right"], ["right", "right", "left"]]
each_passes = pytest.mark.parametrize("sides", PASSES, ids="-".join)


@each_passes
@pytest.mark.parametrize("clip", [False, True])
def test_the_path_integral_takes_the_sum_of_what_the_passes_brought(
    sides: list[str], clip: bool
) -> None:
    network, si = protected()
    optimizer = SGD(network.parameters(), lr=0.05, momentum=0.5)
    witness = Witness(network, optimizer)
    si.attach(optimizer)
    for _ in range(4):
        optimizer.zero_grad()
        for k, side in enumerate(sides):
            loss_of(network, side, k).backward()
        if clip:
            si.keep_gradient()
            nn.utils.clip_grad_norm_(network.parameters(), 0.3)
        optimizer.step()
    witness.assert_seen_by(si, rtol=1e-12, atol=1e-15)


@each_passes
def test_the_penalty_comes_once_to_every_gradient(sides: list[str]) -> None:
    network, si = protected()
    optimizer = SGD(network.parameters(), lr=1.0)
    si.attach(optimizer)
    for k, side in enumerate(sides):
        loss_of(network, side, k).backward()
    task, pull = gradients(network), pulls(network, si)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    optimizer.step()
    for name, parameter in network.named_parameters():
        moved = parameter.detach() - before[name]
        torch.testing.assert_close(moved, -(task[name] + pull[name]), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("optimizer", [SGD, Adam])
def test_accumulated_parts_equal_the_whole_batch(optimizer: Any) -> None:
    found = []
    for parts in (1, 4):
        network, si = protected(c=30.0)
        steps = optimizer(network.parameters(), lr=0.02)
        si.attach(steps)
        for k in range(4):
            steps.zero_grad()
            for _ in range(parts):
                (loss_of(network, "both", k) / parts).backward()
            steps.step()
        found.append([*snapshot(si), *(p.detach() for p in network.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-13)


def test_gradients_that_go_on_after_a_step_are_the_task_gradient_alone() -> None:
    """A loop that does not clear its gradients accumulates no penalty."""
    network, si = protected(c=1e3)
    optimizer = SGD(network.parameters(), lr=1e-4)
    si.attach(optimizer)
    expected: dict[str, Tensor] = {}
    for k in range(3):
        brought = torch.autograd.grad(loss_of(network, "both", k), list(network.parameters()))
        for (name, _), g in zip(network.named_parameters(), brought, strict=True):
            expected[name] = expected.get(name, torch.zeros_like(g)) + g
        loss_of(network, "both", k).backward()
        optimizer.step()
        for name, gradient in gradients(network).items():
            torch.testing.assert_close(gradient, expected[name], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("to_none", [False, True])
def test_a_step_that_never_comes_leaves_no_trace(to_none: bool) -> None:
    network, si = protected()
    twin, other = copy.deepcopy(network), protected()[1]
    other.begin_task(twin)
    steps, twin_steps = (SGD(m.parameters(), lr=0.05, momentum=0.9) for m in (network, twin))
    si.attach(steps)
    other.attach(twin_steps)
    for k in range(4):
        steps.zero_grad(set_to_none=to_none)
        (100 * loss_of(network, "both", k + 50)).backward()
        steps.zero_grad(set_to_none=to_none)
        loss_of(network, "both", k).backward()
        steps.step()
        twin_steps.zero_grad()
        loss_of(twin, "both", k).backward()
        twin_steps.step()
    assert_unchanged(si, snapshot(other))
    assert si.steps == other.steps == 4


def test_gradients_left_over_when_a_task_ends_go_on_into_the_next() -> None:
    network, si = protected()
    optimizer = SGD(network.parameters(), lr=0.05)
    witness = Witness(network, optimizer)
    si.attach(optimizer)
    loss_of(network, "both", 0).backward()
    optimizer.step()
    optimizer.zero_grad()
    loss_of(network, "both", 1).backward()
    si.update_omega()
    witness.begin_anew()
    loss_of(network, "both", 2).backward()
    optimizer.step()
    witness.assert_seen_by(si, rtol=1e-12, atol=1e-15)


def test_a_task_in_which_all_steps_are_dropped_is_none() -> None:
    network, si = protected()
    for name, parameter in network.named_parameters():
        si.anchor[name].copy_(parameter.detach())
    si.attach(SGD(network.parameters(), lr=0.05))
    before = snapshot(si)
    loss_of(network, "both", 0).backward()
    si.update_omega()
    network.zero_grad()
    si.update_omega()
    assert_unchanged(si, before)
    assert si.steps == si.tasks == 0


@pytest.mark.parametrize("first_anchor", ["initial", "zero"])
@pytest.mark.parametrize("rate", [0.0, 0.05])
def test_a_task_without_a_gradient_is_consolidated_whether_weights_decay_or_not(
    rate: float, first_anchor: Any
) -> None:
    network, si = protected(first_anchor=first_anchor)
    optimizer = SGD(network.parameters(), lr=rate, weight_decay=0.1)
    si.attach(optimizer)
    for _ in range(2):
        optimizer.zero_grad()
        (0.0 * loss_of(network, "both", 0)).backward()
        optimizer.step()
    assert not any(path.any() for path in si.running_sum.values())
    si.update_omega()
    assert si.tasks == 1


def freeze(network: Any, si: SynapticIntelligence) -> None:
    network.idle.requires_grad_(False)


def add_layer(network: Any, si: SynapticIntelligence) -> None:
    network.new = nn.Linear(2, 2).double()


def widen(network: Any, si: SynapticIntelligence) -> None:
    larger = nn.Linear(3, 4).double()
    with torch.no_grad():
        larger.weight[:2], larger.bias[:2] = network.idle.weight, network.idle.bias
    network.idle = larger


def load(network: Any, si: SynapticIntelligence) -> None:
    state = si.state_dict()
    for omega in state["importance"].values():
        omega.mul_(3.0)
    si.load_state_dict(state)


@pytest.mark.parametrize("looks", [False, True])
@pytest.mark.parametrize("change", [freeze, add_layer, widen, load])
def test_a_step_goes_on_when_the_model_or_the_state_changes_between_its_passes(
    change: Any, looks: bool
) -> None:
    torch.manual_seed(0)
    network: Any = Branches().double()
    network.idle = nn.Linear(3, 2).double()
    si = SynapticIntelligence(network, c=3.0)
    for omega in si.omega.values():
        omega.fill_(0.5)
    nudge(network, 0.2)
    optimizer = SGD([*network.left.parameters(), *network.right.parameters()], lr=0.05)
    witness = Witness(network, optimizer)
    si.attach(optimizer)
    for k in range(4):
        optimizer.zero_grad()
        loss_of(network, "both", k).backward()
        if k == 1:
            change(network, si)
            if looks:
                si.begin_task()
        loss_of(network, "left", k).backward()
        optimizer.step()
    witness.assert_seen_by(si, rtol=1e-12, atol=1e-15)
