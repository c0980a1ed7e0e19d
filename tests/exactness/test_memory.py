"""What persists of Synaptic Intelligence, what a step needs beside it, and what it waits for."""

import weakref
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, Optimizer

from si_avalanche import SynapticIntelligence
from tests.exactness.memory import WAITS, Watcher, living_bytes, size_of

USES = {"hooks": False, "one pass": True}
each_use = pytest.mark.parametrize("use", USES)
each_optimizer = pytest.mark.parametrize("kind", [SGD, Adam])


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Linear(50, 120), nn.ReLU(), nn.Linear(120, 120), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(120, 3))


def backward(model: nn.Module, optimizer: Optimizer) -> None:
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(torch.randn(8, 50)), torch.arange(8) % 3).backward()


def train(model: nn.Module, optimizer: Optimizer, steps: int = 3) -> None:
    for _ in range(steps):
        backward(model, optimizer)
        optimizer.step()


def parameters_in(size: int, model: nn.Module) -> float:
    """How many times the size of all parameters."""
    return size / size_of(model.parameters())


@each_use
@each_optimizer
def test_four_tensors_for_each_parameter_persist_by_hooks_and_three_in_one_pass(
    kind: Any, use: str
) -> None:
    model = network()
    optimizer = kind(model.parameters(), lr=0.01)
    train(model, optimizer)
    optimizer.zero_grad()
    before = living_bytes()
    si = SynapticIntelligence(model)
    si.attach(optimizer, fused=USES[use])
    for _ in range(2):
        train(model, optimizer)
        si.update_omega()
    train(model, optimizer)
    optimizer.zero_grad()
    persists = parameters_in(living_bytes() - before, model)
    assert persists == pytest.approx(3 if use == "one pass" else 4, abs=0.02)


@each_use
@each_optimizer
@pytest.mark.parametrize("gradient", ["task", "total"])
@pytest.mark.parametrize("task", ["first", "second"])
def test_a_step_needs_one_tensor_for_each_parameter_more_by_hooks_and_none_in_one_pass(
    task: str, gradient: Any, kind: Any, use: str
) -> None:
    """Beside what the optimiser itself needs: PyTorch's fused ones need nothing."""
    model = network()
    si = SynapticIntelligence(model, gradient=gradient)
    optimizer = kind(model.parameters(), lr=0.01, fused=True)
    si.attach(optimizer, fused=USES[use])
    train(model, optimizer)
    if task == "second":
        si.update_omega()
        train(model, optimizer)
    backward(model, optimizer)
    with Watcher() as step:
        optimizer.step()
    needed = parameters_in(step.largest, model)
    assert needed <= (0.01 if use == "one pass" else 1.01)


@each_use
@each_optimizer
def test_a_step_waits_for_nothing(kind: Any, use: str) -> None:
    model = network()
    si = SynapticIntelligence(model)
    optimizer = kind(model.parameters(), lr=0.01)
    si.attach(optimizer, fused=USES[use])
    for _ in range(2):
        train(model, optimizer)
        backward(model, optimizer)
        with Watcher() as step:
            optimizer.step()
        assert step.calls
        # Adam itself reads its counts, which lie on the CPU.
        assert not step.calls & (WAITS - {"_local_scalar_dense", "item"} if kind is Adam else WAITS)
        si.update_omega()


@each_use
def test_gradients_are_not_kept_alive_after_the_step(use: str) -> None:
    model = network()
    si = SynapticIntelligence(model, c=3.0)
    optimizer = SGD(model.parameters(), lr=0.01)
    si.attach(optimizer, fused=USES[use])
    train(model, optimizer)
    si.update_omega()
    for keeps in (False, True):
        backward(model, optimizer)
        if keeps:
            si.keep_gradient()
        refs = [weakref.ref(parameter.grad) for parameter in model.parameters()]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        assert all(ref() is None for ref in refs)


def test_what_is_kept_until_the_step_is_a_copy_of_the_gradients_and_goes_with_it() -> None:
    model = network()
    si = SynapticIntelligence(model)
    optimizer = SGD(model.parameters(), lr=0.01)
    si.attach(optimizer)
    train(model, optimizer)
    backward(model, optimizer)
    before = living_bytes()
    si.keep_gradient()
    assert parameters_in(living_bytes() - before, model) == pytest.approx(1.0, abs=0.02)
    optimizer.step()
    assert parameters_in(living_bytes() - before, model) == pytest.approx(0.0, abs=0.02)


def test_a_hundred_tasks_keep_no_more_than_one() -> None:
    model = nn.Linear(50, 3)
    si = SynapticIntelligence(model)
    sizes = []
    for task in range(100):
        optimizer = SGD(model.parameters(), lr=0.01)
        si.attach(optimizer)
        train(model, optimizer, steps=1)
        si.update_omega()
        si.detach()
        if task in (2, 99):
            optimizer.zero_grad()
            sizes.append(living_bytes())
    assert sizes[1] <= sizes[0]
