"""One step: what the optimiser is given, what it leaves behind, and what is integrated."""

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import (
    SGD,
    Adafactor,
    Adagrad,
    Adam,
    AdamW,
    NAdam,
    Optimizer,
    RMSprop,
    Rprop,
)

from si_avalanche import SynapticIntelligence
from tests.exactness.optimizers import Centring, Decaying, Lion, Scaling, made
from tests.exactness.steps import (
    assert_unchanged,
    consolidated,
    go,
    gradients,
    loss_of,
    nudge,
    pulls,
    snapshot,
)
from tests.witness import Witness

OPTIMIZERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "sgd": (SGD, {}),
    "nesterov": (SGD, {"momentum": 0.9, "nesterov": True}),
    "nesterov, foreach": (SGD, {"momentum": 0.9, "nesterov": True, "foreach": True}),
    "weight decay, foreach": (SGD, {"weight_decay": 0.1, "foreach": True}),
    "sgd, pytorch's fused": (SGD, {"momentum": 0.9, "fused": True}),
    "adam": (Adam, {}),
    "adam, pytorch's fused": (Adam, {"fused": True, "weight_decay": 0.1}),
    "adamw, amsgrad": (AdamW, {"amsgrad": True}),
    "nadam": (NAdam, {}),
    "rmsprop": (RMSprop, {"centered": True}),
    "rprop": (Rprop, {}),
    "adagrad": (Adagrad, {}),
    "adafactor": (Adafactor, {}),
    "lion": (Lion, {}),
    "writes p.grad.data": (Scaling, {"momentum": 0.9}),
    "centres p.grad.data": (Centring, {}),
    "moves on after its class's step": (Decaying, {"momentum": 0.9}),
}
each_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)


def optimizer_of(name: str, network: nn.Module) -> Optimizer:
    kind, more = OPTIMIZERS[name]
    return made(kind, network, **more)


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(3, 2).double()


@each_optimizer
def test_the_path_integral_is_that_of_the_task_gradient(network: nn.Module, name: str) -> None:
    si = consolidated(network)
    optimizer = optimizer_of(name, network)
    witness = Witness(network, optimizer)
    si.attach(optimizer)
    go(network, optimizer, steps=5)
    witness.assert_seen_by(si, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("penalty", ["of the first task", "of strength zero", "on one parameter"])
@each_optimizer
def test_the_path_integral_and_the_gradients_are_the_task_s_with_little_or_no_penalty(
    network: nn.Module, name: str, penalty: str
) -> None:
    if penalty == "of the first task":
        si = SynapticIntelligence(network)
    else:
        si = consolidated(network, c=0.0 if penalty == "of strength zero" else 3.0)
    if penalty == "on one parameter":
        si.omega["bias"].zero_()
    optimizer = optimizer_of(name, network)
    witness = Witness(network, optimizer)
    si.attach(optimizer)
    for _ in range(3):
        optimizer.zero_grad()
        loss_of(network).backward()
        before = gradients(network)
        optimizer.step()
        after = gradients(network)
        assert all(torch.equal(after[key], before[key]) for key in before)
    witness.assert_seen_by(si, rtol=1e-12, atol=1e-15)


@each_optimizer
def test_the_optimiser_moves_as_if_the_penalty_were_in_the_loss(
    network: nn.Module, name: str
) -> None:
    si = consolidated(network)
    twin = copy.deepcopy(network)
    pairs = list(zip(twin.parameters(), si.omega.values(), si.anchor.values(), strict=True))
    terms = [(p, omega.clone(), star.clone()) for p, omega, star in pairs]
    optimizer, other = optimizer_of(name, network), optimizer_of(name, twin)
    si.attach(optimizer)
    for _ in range(4):
        go(network, optimizer, steps=1)
        other.zero_grad()
        penalty = sum(3.0 * (omega * (p - star).square()).sum() for p, omega, star in terms)
        (loss_of(twin) + penalty).backward()
        other.step()
    for one, two in zip(network.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-11, atol=1e-13)


@each_optimizer
def test_the_gradients_are_the_very_same_tensors_with_the_same_values_after_the_step(
    network: nn.Module, name: str
) -> None:
    si = consolidated(network)
    optimizer = optimizer_of(name, network)
    si.attach(optimizer)
    for _ in range(2):
        optimizer.zero_grad()
        loss_of(network).backward()
        tensors, values = [p.grad for p in network.parameters()], gradients(network)
        optimizer.step()
        assert all(p.grad is g for p, g in zip(network.parameters(), tensors, strict=True))
        for gradient, value in zip(tensors, values.values(), strict=True):
            assert gradient is not None
            assert torch.equal(gradient, value)


@pytest.mark.parametrize("how", ["norm", "value"])
def test_the_penalty_is_never_clipped(network: nn.Module, how: str) -> None:
    si = consolidated(network, c=1e3)
    optimizer = SGD(network.parameters(), lr=1.0)
    si.attach(optimizer)
    loss_of(network).backward()
    if how == "norm":
        nn.utils.clip_grad_norm_(network.parameters(), 1e-3)
    else:
        nn.utils.clip_grad_value_(network.parameters(), 1e-3)
    task, pull = gradients(network), pulls(network, si)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    path = {name: tensor.clone() for name, tensor in si.running_sum.items()}
    optimizer.step()
    for name, parameter in network.named_parameters():
        assert pull[name].abs().max() > 1
        moved = parameter.detach() - before[name]
        torch.testing.assert_close(moved, -(task[name] + pull[name]), rtol=1e-9, atol=1e-12)
        added = si.running_sum[name] - path[name]
        torch.testing.assert_close(added, -task[name] * moved, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_penalty_a_hundred_million_times_the_task_gradient_costs_no_digit(
    dtype: torch.dtype,
) -> None:
    network = nn.Linear(3, 2).to(dtype)
    si = SynapticIntelligence(network, c=500.0)
    si.omega["weight"].fill_(1.0)
    si.anchor["weight"].sub_(1.0)
    optimizer = SGD([network.weight], lr=1e-3)
    si.attach(optimizer)
    task = 1e-5 * torch.randn(2, 3)
    network.weight.grad = task.to(dtype)
    task, before = (t.detach().float().clone() for t in (network.weight.grad, network.weight))
    optimizer.step()
    moved = network.weight.detach().float() - before
    assert bool((moved < -0.5).all())
    torch.testing.assert_close(si.running_sum["weight"], -task * moved, rtol=1e-6, atol=0)


@each_optimizer
def test_with_strength_zero_the_weights_are_bitwise_those_without(
    network: nn.Module, name: str
) -> None:
    si = consolidated(network, c=0.0)
    twin = copy.deepcopy(network)
    optimizer = optimizer_of(name, network)
    si.attach(optimizer)
    go(network, optimizer)
    go(twin, optimizer_of(name, twin))
    for one, other in zip(network.parameters(), twin.parameters(), strict=True):
        assert torch.equal(one, other)


def test_no_step_of_the_first_task_is_changed(network: nn.Module) -> None:
    si, twin = SynapticIntelligence(network, c=100.0), copy.deepcopy(network)
    optimizer = Adam(network.parameters(), lr=0.01)
    si.attach(optimizer)
    go(network, optimizer)
    go(twin, Adam(twin.parameters(), lr=0.01))
    for one, other in zip(network.parameters(), twin.parameters(), strict=True):
        assert torch.equal(one, other)
    assert all(path.any() for path in si.running_sum.values())


def test_what_moves_outside_of_the_step_does_not_count(network: nn.Module) -> None:
    si = consolidated(network)
    optimizer = Adam(network.parameters(), lr=0.01)
    witness = Witness(network, optimizer)
    si.attach(optimizer)
    for _ in range(3):
        nudge(network)
        optimizer.zero_grad()
        loss_of(network).backward()
        nudge(network, 0.1)
        for parameter in network.parameters():
            parameter.data.mul_(0.9)
        optimizer.step()
        nudge(network, -0.2)
    witness.assert_seen_by(si, rtol=1e-12, atol=1e-15)


def test_the_total_gradient_is_what_the_optimiser_was_given(network: nn.Module) -> None:
    si = consolidated(network, gradient="total")
    optimizer = Adam(network.parameters(), lr=0.01)
    si.attach(optimizer)
    loss_of(network).backward()
    nudge(network)
    task, pull = gradients(network), pulls(network, si)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    optimizer.step()
    for name, parameter in network.named_parameters():
        expected = -(task[name] + pull[name]) * (parameter.detach() - before[name])
        torch.testing.assert_close(si.running_sum[name], expected, rtol=1e-11, atol=1e-14)


def test_a_step_without_a_gradient_of_a_protected_parameter_is_none(network: nn.Module) -> None:
    si = SynapticIntelligence(network, exclude=["bias"])
    optimizer = SGD(network.parameters(), lr=0.1)
    si.attach(optimizer)
    optimizer.step()
    bias = network.get_parameter("bias")
    bias.grad = torch.ones_like(bias)
    before = bias.detach().clone()
    optimizer.step()
    assert si.steps == 0
    torch.testing.assert_close(bias, before - 0.1)
    go(network, optimizer)
    assert si.steps == 3


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_spoilt_gradient_that_never_comes_to_a_step_leaves_no_trace(
    network: nn.Module, value: float
) -> None:
    si = consolidated(network)
    optimizer = SGD(network.parameters(), lr=0.05)
    si.attach(optimizer)
    go(network, optimizer)
    before = snapshot(si)
    (value * loss_of(network)).backward()
    si.keep_gradient()
    optimizer.zero_grad()
    assert_unchanged(si, before)
    loss_of(network).backward()
    si.keep_gradient()
    optimizer.step()
    assert all(path.isfinite().all() for path in si.running_sum.values())
