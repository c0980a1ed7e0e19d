"""What holds for every network, whatever its weights and its data."""

from collections.abc import Callable
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from si_avalanche import SynapticIntelligence

OPTIMIZERS: dict[str, Callable[[Any], Optimizer]] = {
    "sgd": lambda p: SGD(p, lr=0.05, momentum=0.9),
    "adam": lambda p: Adam(p, lr=0.02, eps=1e-3),
}
SETTINGS = {
    "seed": st.integers(0, 10_000),
    "optimizer": st.sampled_from(sorted(OPTIMIZERS)),
    "c": st.sampled_from([0.0, 0.5, 5.0]),
    "xi": st.sampled_from([0.001, 0.1, 1.0]),
    "clamp": st.sampled_from(["accumulated", "per_task"]),
    "decay": st.sampled_from([None, 0.0, 0.4, 1.0]),
}


def learn(model: nn.Module, si: SynapticIntelligence, optimizer: str, tasks: int = 3) -> None:
    """A few steps on a few tasks; the data depend on nothing but the numbers of task and step."""
    for task in range(tasks):
        descent = OPTIMIZERS[optimizer](model.parameters())
        si.attach(descent)
        for step in range(4):
            generator = torch.Generator().manual_seed(100 * task + step)
            x = torch.randn(6, 3, generator=generator, dtype=torch.float64)
            descent.zero_grad()
            (model(x) - (task + 1) * x.sin()).square().mean().backward()
            descent.step()
        si.update_omega()


def perceptron() -> Any:
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 3)).double()


@settings(deadline=None)
@given(**SETTINGS)
def test_clamped_importance_is_finite_and_not_negative(
    seed: int, optimizer: str, **options: Any
) -> None:
    torch.manual_seed(seed)
    model = perceptron()
    si = SynapticIntelligence(model, **options)
    learn(model, si, optimizer)
    for omega in si.omega.values():
        assert omega.isfinite().all()
        assert (omega >= 0).all()


@settings(deadline=None)
@given(**SETTINGS, order=st.permutations(range(5)))
def test_renumbering_hidden_units_renumbers_their_importance(
    seed: int, optimizer: str, order: list[int], **options: Any
) -> None:
    torch.manual_seed(seed)
    model, renumbered = perceptron(), perceptron()
    with torch.no_grad():
        for name, weight in zip(renumber(model, order), renumbered.parameters(), strict=True):
            weight.copy_(name)
    objects = [SynapticIntelligence(m, **options) for m in (model, renumbered)]
    for m, si in zip((model, renumbered), objects, strict=True):
        learn(m, si, optimizer)
    plain = objects[0].omega
    expected = [
        plain["0.weight"][order],
        plain["0.bias"][order],
        plain["2.weight"][:, order],
        plain["2.bias"],
    ]
    for found, wanted in zip(objects[1].omega.values(), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-7, atol=1e-9)


def renumber(model: nn.Sequential, order: list[int]) -> list[Tensor]:
    first, bias, second, output = model.parameters()
    return [first[order], bias[order], second[:, order], output]


class Split(nn.Module):
    """The same perceptron with its first layer in two parameters."""

    def __init__(self, whole: Any, at: int) -> None:
        super().__init__()
        first = whole[0].weight.detach()
        self.top = nn.Parameter(first[:at].clone())
        self.bottom = nn.Parameter(first[at:].clone())
        self.bias = nn.Parameter(whole[0].bias.detach().clone())
        self.second = nn.Linear(5, 3).double()
        self.second.load_state_dict(whole[2].state_dict())

    def forward(self, x: Tensor) -> Tensor:
        weight = torch.cat([self.top, self.bottom])
        return self.second(torch.tanh(nn.functional.linear(x, weight, self.bias)))


@settings(deadline=None)
@given(**SETTINGS, at=st.integers(0, 5))
def test_splitting_a_parameter_in_two_changes_nothing(
    seed: int, optimizer: str, at: int, **options: Any
) -> None:
    torch.manual_seed(seed)
    whole = perceptron()
    split = Split(whole, at)
    one, two = SynapticIntelligence(whole, **options), SynapticIntelligence(split, **options)
    learn(whole, one, optimizer)
    learn(split, two, optimizer)
    both = torch.cat([two.omega["top"], two.omega["bottom"]])
    torch.testing.assert_close(both, one.omega["0.weight"], rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(
        two.omega["second.weight"], one.omega["2.weight"], rtol=1e-7, atol=1e-9
    )


@settings(deadline=None)
@given(**SETTINGS, times=st.integers(1, 3))
def test_consolidating_without_a_step_changes_nothing(
    seed: int, optimizer: str, times: int, **options: Any
) -> None:
    torch.manual_seed(seed)
    model = perceptron()
    si = SynapticIntelligence(model, **options)
    learn(model, si, optimizer, tasks=2)
    before = si.state_dict()
    for _ in range(times):
        si.update_omega()
    after = si.state_dict()
    assert after["tasks"] == before["tasks"] == 2
    for kind in ("importance", "path_integral", "anchor"):
        assert all(torch.equal(after[kind][n], before[kind][n]) for n in before[kind])
