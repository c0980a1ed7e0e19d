"""Update, penalty and path integral as one compiled pass: the same numbers as by hooks."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import CosineAnnealingLR

from si_avalanche import SynapticIntelligence
from tests.exactness.lives import (
    OPTIMIZERS,
    Life,
    assert_same,
    both,
    each_optimizer,
    network,
)
from tests.exactness.steps import loss_of


@each_optimizer
def test_heads_that_join_later_step_with_a_count_of_their_own(name: str) -> None:
    plain, fused = lives = [Life(network(), name, fused) for fused in (False, True)]
    for life in lives:
        for step in range(6):
            life.step(life.loss(step))
    assert_same([plain, fused])
    fused.witness.assert_seen_by(fused.si, rtol=1e-10, atol=1e-13)
    assert fused.si.running_sum["heads.1.weight"].any()
    assert not fused.si.running_sum["heads.2.weight"].any()


@each_optimizer
def test_what_the_optimiser_keeps_is_pytorchs_own(name: str) -> None:
    """The same keys, dtypes, shapes and values as without SI, where the penalty is nothing."""
    lives = [Life(network(), name, fused, c=0.0) for fused in (None, True)]
    for life in lives:
        for step in range(5):
            life.step(life.loss(step))
    plain, fused = (life.optimizer.state_dict() for life in lives)
    assert fused.keys() == plain.keys()
    assert fused["param_groups"] == plain["param_groups"]
    assert fused["state"].keys() == plain["state"].keys()
    for number, kept in plain["state"].items():
        assert list(fused["state"][number]) == list(kept)
        for key, value in kept.items():
            found = fused["state"][number][key]
            assert type(found) is type(value)
            torch.testing.assert_close(found, value, rtol=1e-12, atol=1e-12)
    for one, other in zip(lives[0].model.parameters(), lives[1].model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@each_optimizer
@pytest.mark.parametrize("before", [False, True])
def test_a_training_is_resumed_from_a_state_dict_in_its_middle(name: str, before: bool) -> None:
    """By hooks before it or in one pass, in one pass after it."""
    plain, going = Life(network(), name, False), Life(network(), name, before)
    for step in range(8):
        plain.step(plain.loss(step))
        if step == 4:
            saved: list[Any] = copy.deepcopy(
                [x.state_dict() for x in (going.model, going.si, going.optimizer)]
            )
            going = Life(network(), name, True)
            going.model.load_state_dict(saved[0])
            going.si.load_state_dict(saved[1])
            going.optimizer.load_state_dict(saved[2])
        going.step(going.loss(step))
    assert_same([plain, going])


@pytest.mark.parametrize("change", ["loaded", "cleared", "of another"])
@pytest.mark.parametrize("joins", [False, True])
@each_optimizer
def test_state_and_rates_that_change_under_way_are_followed(
    name: str, joins: bool, change: str
) -> None:
    lives = [Life(network(), name, fused) for fused in (False, True)]
    for life in lives:
        life.joins = life.joins and joins
        schedule = CosineAnnealingLR(life.optimizer, T_max=7)
        for step in range(7):
            if step == 5:
                state = copy.deepcopy(life.optimizer.state_dict())
                if change == "cleared":
                    life.optimizer.state.clear()
                elif change == "of another":
                    for kept in state["state"].values():
                        kept.update(
                            {key: 2 * value for key, value in kept.items() if value is not None}
                        )
                if change != "cleared":
                    life.optimizer.load_state_dict(state)
                life.si.c = 0.7 if joins else 0.0
            life.step(life.loss(step))
            schedule.step()
    assert_same(lives)


def test_momentum_switched_on_and_off_under_way_is_followed() -> None:
    lives = [Life(network(), "sgd", fused) for fused in (False, True)]
    for life in lives:
        for step in range(8):
            life.optimizer.param_groups[0]["momentum"] = 0.9 * (2 <= step < 5)
            life.step(life.loss(step))
    assert_same(lives)


@each_optimizer
def test_groups_with_other_rates_and_parameters_outside_of_si(name: str) -> None:
    lives = [Life(network(), name, None, exclude=["heads.0"]) for _ in range(2)]
    for life, fused in zip(lives, (False, True), strict=True):
        life.si.omega["trunk.bias"].zero_()
        kind, hyper = OPTIMIZERS[name]
        extra = nn.Parameter(torch.ones(2, dtype=torch.float64))
        groups = [
            {"params": [life.model.get_parameter("trunk.weight"), extra], "lr": 0.003},
            {"params": list(life.model.get_submodule("heads").parameters()), "weight_decay": 0.0},
            {"params": [life.model.get_parameter("trunk.bias")]},
        ]
        life.optimizer = kind(groups, **copy.deepcopy(hyper))
        life.si.attach(life.optimizer, fused=fused)
        for step in range(5):
            life.step(life.loss(step) + extra.square().sum())
        assert bool((extra < 1).all())
    assert_same(lives)


@pytest.mark.parametrize("gradient", ["task", "total"])
@pytest.mark.parametrize("keeps", [False, True])
@each_optimizer
def test_the_total_gradient_and_a_kept_one_are_integrated(
    name: str, keeps: bool, gradient: Any
) -> None:
    lives = [Life(network(), name, fused, gradient=gradient) for fused in (False, True)]
    for life in lives:
        for step in range(4):
            life.optimizer.zero_grad()
            life.loss(step).backward()
            if keeps:
                life.si.keep_gradient()
            nn.utils.clip_grad_norm_(life.model.parameters(), 0.05)
            life.optimizer.step()
    assert_same(lives)
    if keeps and gradient == "task":
        lives[1].witness.assert_seen_by(lives[1].si, rtol=1e-10, atol=1e-13)


class Shapes(nn.Module):
    """Parameters of all forms: no entry, no dimension, other orders in memory, gaps."""

    def __init__(self) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.empty(0, 4))
        self.scale = nn.Parameter(torch.tensor(0.7))
        self.one = nn.Parameter(torch.ones(1))
        self.last = nn.Conv2d(3, 5, 2).to(memory_format=torch.channels_last)
        self.turned = nn.Parameter(torch.randn(4, 6).t())
        self.gaps = nn.Parameter(torch.randn(5, 4, 2)[..., 0])
        self.more = nn.ParameterList(torch.randn(n + 1) for n in range(9))

    def forward(self, step: int) -> Tensor:
        generator = torch.Generator().manual_seed(step)
        total = self.scale * self.one.sum() + self.nothing.sum()
        for p in [self.last.weight, self.last.bias, self.turned, self.gaps, *self.more]:
            noise = torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.dtype)
            total = total + (p - noise).square().sum().double()
        return total


@each_optimizer
def test_parameters_of_any_shape_and_layout(name: str) -> None:
    torch.manual_seed(0)
    model = Shapes().double()
    assert not model.turned.is_contiguous()
    lives = both(model, name, lambda model, step: model(step))
    assert_same(lives)
    assert all(path.any() or not path.numel() for path in lives[1].si.running_sum.values())


@each_optimizer
def test_single_and_double_precision_in_one_model(name: str) -> None:
    torch.manual_seed(0)
    model = Shapes().double()
    for part in (model.last, model.more):
        part.float()
    lives = both(model, name, lambda model, step: model(step))
    assert_same(lives, tolerance=2e-6)
    assert lives[1].si.running_sum["last.weight"].dtype == torch.float32
    assert lives[1].si.running_sum["turned"].dtype == torch.float64


def test_the_gradients_are_the_very_same_tensors_with_the_same_values_after_the_step() -> None:
    life = Life(network(), "adam", True)
    for step in range(2):
        life.optimizer.zero_grad()
        life.loss(step).backward()
        found = [p.grad for p in life.model.parameters()]
        values = [None if g is None else g.clone() for g in found]
        life.optimizer.step()
        for p, gradient, value in zip(life.model.parameters(), found, values, strict=True):
            assert p.grad is gradient
            assert gradient is None or (value is not None and torch.equal(gradient, value))


def test_closures_accumulation_and_steps_that_never_come() -> None:
    lives = [Life(network(), "adam", fused) for fused in (False, True)]
    for life in lives:
        optimizer: Any = life.optimizer
        for step in range(4):

            def closure(life: Life = life, step: int = step) -> Any:
                life.optimizer.zero_grad()
                (100 * life.loss(step)).backward()
                life.optimizer.zero_grad()
                life.loss(step).backward()
                loss = life.loss(step + 9)
                loss.backward()
                return loss.detach()

            loss = optimizer.step(closure)
            assert isinstance(loss, Tensor)
    assert_same(lives)


def test_a_penalty_a_hundred_million_times_the_task_gradient_costs_no_digit() -> None:
    model = nn.Linear(3, 2)
    si = SynapticIntelligence(model, c=500.0)
    si.omega["weight"].fill_(1.0)
    si.anchor["weight"].sub_(1.0)
    optimizer = SGD([model.weight], lr=1e-3)
    si.attach(optimizer, fused=True)
    model.weight.grad = 1e-5 * torch.randn(2, 3)
    task, before = model.weight.grad.clone(), model.weight.detach().clone()
    optimizer.step()
    moved = model.weight.detach() - before
    assert bool((moved < -0.5).all())
    torch.testing.assert_close(si.running_sum["weight"], -task * moved, rtol=1e-6, atol=0)


def test_importance_earned_and_a_classifier_that_grew_are_followed() -> None:
    lives = []
    for fused in (False, True):
        torch.manual_seed(0)
        model: Any = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
        si = SynapticIntelligence(model, c=20.0)
        for width in (2, 2, 3):
            torch.manual_seed(width)
            if model[2].out_features < width:
                wider = nn.Linear(4, width).double()
                with torch.no_grad():
                    wider.weight[:2], wider.bias[:2] = model[2].weight, model[2].bias
                model[2] = wider
                si.begin_task()
            optimizer = Adam(model.parameters(), lr=0.02)
            si.detach()
            si.attach(optimizer, fused=fused)
            for _ in range(4):
                optimizer.zero_grad()
                loss_of(model).backward()
                optimizer.step()
            si.update_omega()
        lives.append((model, si))
    for one, other in zip(lives[0][0].parameters(), lives[1][0].parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)
    for name, omega in lives[0][1].omega.items():
        assert omega.any()
        torch.testing.assert_close(lives[1][1].omega[name], omega, rtol=1e-9, atol=1e-12)
