"""Closures given to ``step``, and steps that an error ends."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import LBFGS, SGD, Adam, Optimizer

from si_avalanche import CallOrderError, SynapticIntelligence
from tests.exactness.optimizers import Centring, Lion, Lookahead, Scaling, Sharpness
from tests.exactness.steps import (
    assert_unchanged,
    consolidated,
    go,
    gradients,
    loss_of,
    pulls,
    snapshot,
)
from tests.witness import Witness

Closure = Callable[[], Any]


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(3, 2).double()


def closure_of(network: nn.Module, optimizer: Optimizer) -> Closure:
    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(network)
        loss.backward()
        return loss

    return closure


def weights(network: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in network.parameters()]


MAKERS: dict[str, Callable[[Any], Optimizer]] = {
    "sgd": lambda p: SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "adam": lambda p: Adam(p, lr=0.01, weight_decay=0.1),
    "lion": Lion,
    "a subclass": lambda p: Scaling(p, lr=0.05),
    "another": lambda p: Centring(p, lr=0.05),
    "lookahead": lambda p: Lookahead(SGD(p, lr=0.05)),
    "lbfgs, one evaluation": lambda p: LBFGS(p, lr=0.1, max_iter=1),
}


@pytest.mark.parametrize("as_keyword", [True, False])
@pytest.mark.parametrize("name", MAKERS)
def test_a_closure_evaluated_once_is_a_step_like_any_other(
    network: nn.Module, name: str, as_keyword: bool
) -> None:
    si = consolidated(network)
    optimizer: Any = MAKERS[name](network.parameters())
    witness = Witness(network, optimizer)
    si.attach(optimizer)
    for _ in range(4):
        closure = closure_of(network, optimizer)
        expected = loss_of(network).item()
        loss = optimizer.step(closure=closure) if as_keyword else optimizer.step(closure)
        assert loss.detach().item() == expected
    witness.assert_seen_by(si, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_with_and_without_a_closure_the_step_is_bitwise_the_same(
    network: nn.Module, name: str
) -> None:
    found = []
    for uses_closure in (True, False):
        twin = copy.deepcopy(network)
        si = consolidated(twin)
        optimizer = MAKERS[name](twin.parameters())
        si.attach(optimizer)
        for _ in range(3):
            if uses_closure:
                optimizer.step(closure_of(twin, optimizer))
            else:
                go(twin, optimizer, steps=1)
        found.append([*weights(twin), *snapshot(si)])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_a_closure_that_brings_no_gradient_makes_no_step(network: nn.Module) -> None:
    si = SynapticIntelligence(network)
    optimizer = SGD(network.parameters(), lr=0.05)
    si.attach(optimizer)
    before = weights(network)
    optimizer.step(lambda: loss_of(network).detach())
    assert si.steps == 0
    assert all(map(torch.equal, before, weights(network)))


class Twice(SGD):
    """Evaluates its closure twice before it moves anything."""

    def step(self, closure: Any = None) -> Any:
        with torch.enable_grad():
            closure()
            closure()
        return super().step()


@pytest.mark.parametrize("climbs", ["before", "between"])
def test_sharpness_aware_steps_are_refused(network: nn.Module, climbs: str) -> None:
    si = consolidated(network)
    before = snapshot(si)
    optimizer = Sharpness(SGD(network.parameters(), lr=0.05), climbs)
    si.attach(optimizer)
    go_backward(network)
    with pytest.raises(CallOrderError, match="Sharpness was given a closure"):
        optimizer.step(closure_of(network, optimizer))
    assert_task_gradient(network)
    assert_unchanged(si, before)


def go_backward(network: nn.Module) -> None:
    network.zero_grad()
    loss_of(network).backward()


def assert_task_gradient(network: nn.Module) -> None:
    """What is in ``grad`` is no sum with the penalty's, and belongs to the old or new weights."""
    assert all(p.grad is not None and p.grad.abs().max() < 3 for p in network.parameters())


def test_a_closure_evaluated_twice_is_refused_and_nothing_has_changed(network: nn.Module) -> None:
    si = consolidated(network, c=1e3)
    optimizer = Twice(network.parameters(), lr=0.05)
    si.attach(optimizer)
    before, kept = weights(network), snapshot(si)
    go_backward(network)
    task = gradients(network)
    assert min(pull.abs().max() for pull in pulls(network, si).values()) > 10
    with pytest.raises(CallOrderError, match=r"Twice was given a closure.*evaluates several times"):
        optimizer.step(closure_of(network, optimizer))
    assert all(map(torch.equal, before, weights(network)))
    assert_unchanged(si, kept)
    for name, gradient in gradients(network).items():
        assert torch.equal(gradient, task[name])


@pytest.mark.parametrize(
    "more", [{"max_iter": 4}, {"max_iter": 1, "line_search_fn": "strong_wolfe"}]
)
def test_an_lbfgs_of_several_evaluations_is_refused_before_it_moves_a_weight(
    network: nn.Module, more: dict[str, Any]
) -> None:
    si = consolidated(network)
    optimizer = LBFGS(network.parameters(), **more)
    si.attach(optimizer)
    before, kept = weights(network), snapshot(si)
    with pytest.raises(CallOrderError, match="LBFGS was given a closure"):
        optimizer.step(closure_of(network, optimizer))
    assert all(map(torch.equal, before, weights(network)))
    assert_unchanged(si, kept)


def test_an_error_in_the_closure_reaches_the_user_and_the_next_step_is_exact(
    network: nn.Module,
) -> None:
    si = consolidated(network)
    optimizer = SGD(network.parameters(), lr=0.05)
    witness = Witness(network, optimizer)
    si.attach(optimizer)

    def fails() -> Tensor:
        raise KeyError("data")

    go(network, optimizer, steps=1)
    task = gradients(network)
    with pytest.raises(KeyError, match="data"):
        optimizer.step(fails)
    for name, gradient in gradients(network).items():
        assert torch.equal(gradient, task[name])
    witness.settle()
    go(network, optimizer, steps=2)
    witness.assert_seen_by(si, rtol=1e-12, atol=1e-15)


class Failing(SGD):
    """Fails in some of its steps, before it has moved a weight."""

    fails = False

    def step(self, closure: Any = None) -> Any:
        if self.fails:
            raise MemoryError
        return super().step(closure)


def zero(network: nn.Module) -> None:
    network.zero_grad(set_to_none=False)


def remove(network: nn.Module) -> None:
    network.zero_grad(set_to_none=True)


def leave(network: nn.Module) -> None:
    """Try the same step again."""


@pytest.mark.parametrize("then", [zero, remove, leave], ids=lambda then: then.__name__)
def test_after_a_step_that_failed_the_next_one_is_exact(
    network: nn.Module, then: Callable[[nn.Module], None]
) -> None:
    si = consolidated(network)
    optimizer = Failing(network.parameters(), lr=0.05)
    witness = Witness(network, optimizer)
    si.attach(optimizer)
    go(network, optimizer, steps=1)
    go_backward(network)
    optimizer.fails = True
    with pytest.raises(MemoryError):
        optimizer.step()
    optimizer.fails = False
    if then is not leave:
        then(network)
        witness.forget_gradients()
        loss_of(network).backward()
    witness.settle()
    optimizer.step()
    witness.assert_seen_by(si, rtol=1e-12, atol=1e-15)
    assert si.steps == 2


def test_after_a_step_that_failed_a_gradient_that_was_taken_away_stays_away() -> None:
    torch.manual_seed(0)
    used, idle = nn.Linear(3, 2), nn.Linear(3, 2)
    network = nn.ModuleDict({"used": used, "idle": idle})
    si = SynapticIntelligence(network)
    optimizer = Failing(network.parameters(), lr=0.05)
    si.attach(optimizer)
    for part in (used, idle):
        loss_of(part).backward()
    optimizer.fails = True
    with pytest.raises(MemoryError):
        optimizer.step()
    optimizer.fails = False
    network.zero_grad()
    before = idle.weight.detach().clone()
    loss_of(used).backward()
    optimizer.step()
    assert torch.equal(idle.weight, before)
    assert idle.weight.grad is None
