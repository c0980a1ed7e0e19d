"""What must hold by calculation, whatever the code looks like."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Optimizer

from si_avalanche import SynapticIntelligence, formulas
from si_avalanche.settings import Clamp


class Weights(nn.Module):
    """A bare vector of weights, for losses that are written by hand."""

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.theta = nn.Parameter(start.clone())


def descend(
    network: Weights, loss_of: Callable[[Tensor], Tensor], rate: float, steps: int
) -> SynapticIntelligence:
    """Plain gradient descent on one task, recorded; the task is not yet consolidated."""
    si = SynapticIntelligence(network, xi=1e-12)
    optimizer = SGD(network.parameters(), lr=rate)
    si.attach(optimizer)
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(network.theta).backward()
        optimizer.step()
    return si


def error_of_the_summed_path_integral(rate: float) -> float:
    """Difference of the summed path integral and the loss drop, of an MLP trained for time 1."""
    torch.manual_seed(3)
    network = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    x, y = torch.randn(32, 5, dtype=torch.float64), torch.arange(32) % 3
    si = SynapticIntelligence(network)
    optimizer = SGD(network.parameters(), lr=rate)
    si.attach(optimizer)
    start = functional.cross_entropy(network(x), y).item()
    for _ in range(round(1 / rate)):
        optimizer.zero_grad()
        functional.cross_entropy(network(x), y).backward()
        optimizer.step()
    drop = start - functional.cross_entropy(network(x), y).item()
    assert drop > 0.05
    return sum(omega.sum().item() for omega in si.running_sum.values()) - drop


def test_the_summed_path_integral_is_the_loss_drop_up_to_an_error_linear_in_the_rate() -> None:
    errors = [error_of_the_summed_path_integral(rate) for rate in (0.04, 0.02, 0.01)]
    assert abs(errors[-1]) < 1e-3
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.05)
    assert errors[1] / errors[2] == pytest.approx(2, rel=0.05)


def quadratic(hessian: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda theta: (hessian * theta**2).sum() / 2


@pytest.mark.parametrize("rate", [0.5, 0.2, 0.1])
def test_descent_on_a_quadratic_makes_importance_h_over_two_minus_rate_h(rate: float) -> None:
    hessian = torch.tensor([0.9, 1.7, 3.0], dtype=torch.float64)
    network = Weights(torch.tensor([1.0, -2.0, 0.7], dtype=torch.float64))
    si = descend(network, quadratic(hessian), rate, steps=300)
    si.update_omega()
    torch.testing.assert_close(si.omega["theta"], hessian / (2 - rate * hessian), rtol=1e-9, atol=0)


def test_towards_gradient_flow_the_surrogate_with_c_one_becomes_the_quadratic_itself() -> None:
    hessian = torch.tensor([2.0, 0.7], dtype=torch.float64)
    elsewhere = torch.tensor([0.3, 0.4], dtype=torch.float64)
    ratios = []
    for rate in (0.04, 0.02, 0.01):
        network = Weights(torch.tensor([1.0, -2.0], dtype=torch.float64))
        si = descend(network, quadratic(hessian), rate, steps=round(15 / rate))
        si.update_omega()
        with torch.no_grad():
            network.theta.copy_(elsewhere)
        ratios.append(si.penalty().item() / quadratic(hessian)(elsewhere).item())
    assert ratios[-1] == pytest.approx(1, abs=0.01)
    assert (ratios[0] - 1) / (ratios[1] - 1) == pytest.approx(2, rel=0.05)


def test_noise_alone_on_a_flat_loss_makes_a_path_integral_of_rate_variance_steps() -> None:
    rate, sigma, steps, copies = 0.1, 2.0, 50, 20_000
    generator = torch.Generator().manual_seed(0)
    network = Weights(torch.zeros(copies, dtype=torch.float64))
    si = descend(
        network,
        lambda theta: (
            theta * sigma * torch.randn(copies, generator=generator, dtype=torch.float64)
        ).sum(),
        rate,
        steps,
    )
    predicted = rate * sigma**2 * steps
    standard_error = rate * sigma**2 * math.sqrt(2 * steps / copies)
    assert abs(si.running_sum["theta"].mean().item() - predicted) < 4 * standard_error


tensors = st.lists(st.floats(-10, 10), min_size=4, max_size=4).map(
    lambda values: torch.tensor(values, dtype=torch.float64)
)


@given(theta=tensors, star=tensors, omega=tensors, c=st.floats(0, 100))
def test_the_penalty_gradient_in_closed_form_is_that_of_autograd(
    theta: Tensor, star: Tensor, omega: Tensor, c: float
) -> None:
    theta.requires_grad_()
    (automatic,) = torch.autograd.grad(formulas.penalty([theta], [star], [omega], c), theta)
    zero, weights = [torch.zeros_like(theta)], [theta.detach()]
    (closed,) = formulas.add_penalty_gradient(zero, weights, [star], [omega], c)
    torch.testing.assert_close(closed, automatic, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("factor", [1.0, 0.25, 8.0])
def test_both_uses_take_the_same_step_and_give_the_same_path_integral(factor: float) -> None:
    (calls, calls_si), (attached, attached_si) = trained_pair()
    x = torch.randn(16, 4, dtype=torch.float64)
    for network, si in ((calls, calls_si), (attached, attached_si)):
        optimizer = SGD(network.parameters(), lr=0.1)
        loss = network(x).square().mean()
        if network is calls:
            (factor * (loss + si.penalty())).backward()
            optimizer.step()
            si.update_running_sum()
        else:
            si.c = factor
            si.attach(optimizer)
            (factor * loss).backward()
            optimizer.step()
    for name, path in calls_si.running_sum.items():
        torch.testing.assert_close(path, attached_si.running_sum[name], rtol=1e-12, atol=1e-15)
    for one, other in zip(calls.parameters(), attached.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-15)


def trained_pair() -> list[tuple[nn.Module, SynapticIntelligence]]:
    """Two equal networks after one task, moved away from the anchor."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1)).double()
    x = torch.randn(16, 4, dtype=torch.float64)
    pair: list[tuple[nn.Module, SynapticIntelligence]] = []
    for copy_ in (network, copy.deepcopy(network)):
        si = SynapticIntelligence(copy_)
        optimizer = SGD(copy_.parameters(), lr=0.1)
        si.attach(optimizer)
        for _ in range(5):
            optimizer.zero_grad()
            copy_(x).square().mean().backward()
            optimizer.step()
        si.update_omega()
        si.detach()
        with torch.no_grad():
            for parameter in copy_.parameters():
                parameter.add_(0.3)
        pair.append((copy_, si))
    return pair


@settings(deadline=None, max_examples=20)
@given(c=st.floats(0, 1000))
def test_the_path_integral_of_a_replayed_trajectory_does_not_depend_on_c(c: float) -> None:
    expected, actual = replay(0.0), replay(c)
    for name, path_integral in expected.running_sum.items():
        torch.testing.assert_close(actual.running_sum[name], path_integral, rtol=1e-9, atol=1e-12)


class Given(Optimizer):
    """Moves weights along a trajectory that is given, whatever their gradients are."""

    def __init__(self, network: Weights) -> None:
        super().__init__(network.parameters(), {})
        self.next = torch.zeros(0)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for parameter in self.param_groups[0]["params"]:
            parameter.add_(self.next)


def replay(c: float) -> SynapticIntelligence:
    """Two tasks along a fixed trajectory of weights and task gradients."""
    generator = torch.Generator().manual_seed(5)
    network = Weights(torch.zeros(6, dtype=torch.float64))
    si = SynapticIntelligence(network, c=c)
    optimizer = Given(network)
    si.attach(optimizer)
    for task in range(2):
        for _ in range(8):
            step = torch.randn(6, generator=generator, dtype=torch.float64)
            network.theta.grad = torch.randn(6, generator=generator, dtype=torch.float64) - step
            optimizer.next = 0.1 * step
            optimizer.step()
        if task == 0:
            si.update_omega()
    assert si.omega["theta"].max() > 0
    return si


def test_the_numerator_of_the_importance_is_the_path_integral_not_its_square() -> None:
    omega, delta = torch.tensor([3.0, -3.0]), torch.tensor([0.5, 0.5])
    (new,) = formulas.consolidate([torch.zeros(2)], [omega], [delta], xi=0.75, clamp="none")
    assert new.tolist() == [3.0, -3.0]


@given(
    old=st.floats(0, 100),
    omega=st.floats(-100, 100),
    delta=st.floats(-10, 10),
    decay=st.none() | st.floats(0, 1),
    clamp=st.sampled_from(["accumulated", "per_task"]),
)
def test_clamped_importance_is_never_negative_and_never_below_what_no_clamp_gives(
    old: float, omega: float, delta: float, decay: float | None, clamp: Clamp
) -> None:
    before, path, displacement = ([torch.tensor([v]).double()] for v in (old, omega, delta))
    (clamped,) = formulas.consolidate(before, path, displacement, 0.1, clamp, decay)
    (free,) = formulas.consolidate(before, path, displacement, 0.1, "none", decay)
    assert clamped.item() >= 0
    assert clamped.item() >= free.item() - 1e-12
    if free.item() >= 0 and (clamp == "accumulated" or omega >= 0):
        assert clamped.item() == pytest.approx(free.item(), abs=1e-12)


@pytest.mark.parametrize(
    ("tensors", "found"),
    [
        ([], False),
        ([torch.zeros(0)], False),
        ([torch.zeros(3), torch.zeros(2, 2)], False),
        ([torch.zeros(3), torch.tensor([0.0, -2.0])], True),
        ([torch.zeros(0), torch.tensor(torch.nan)], True),
        ([torch.tensor([1e-60, 0.0], dtype=torch.float64), torch.zeros(3)], True),
        ([torch.tensor([torch.inf], dtype=torch.float16)], True),
    ],
)
def test_the_smallest_entry_that_is_not_zero_is_seen(tensors: list[Tensor], found: bool) -> None:
    assert formulas.any_nonzero(tensors) is found
