"""Loops with a ``GradScaler``: gradients are scaled on their way, some steps are skipped."""

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.amp import GradScaler
from torch.optim import SGD, Adam, AdamW

from si_avalanche import SynapticIntelligence
from tests.exactness.steps import assert_unchanged, consolidated, loss_of, nudge, pulls, snapshot
from tests.witness import Witness

OPTIMIZERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "sgd": (SGD, {"momentum": 0.9}),
    "sgd, pytorch's fused": (SGD, {"momentum": 0.9, "nesterov": True, "fused": True}),
    "adam": (Adam, {}),
    "adam, pytorch's fused": (Adam, {"fused": True, "weight_decay": 0.1}),
    "adamw, foreach": (AdamW, {"foreach": True}),
}
each_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)
each_use = pytest.mark.parametrize("use", ["hooks", "one pass"])
SKIPPED = 2


class Loop:
    """Five steps with a scaler, one of which is skipped for an infinite gradient."""

    def __init__(
        self, name: str, use: str = "hooks", scale: float = 1024.0, **options: Any
    ) -> None:
        torch.manual_seed(0)
        self.network = nn.Linear(3, 2).double()
        self.si = consolidated(self.network, **options)
        kind, more = OPTIMIZERS[name]
        self.optimizer = kind(self.network.parameters(), lr=0.01, **more)
        self.scaler = GradScaler("cpu", init_scale=scale, growth_interval=2)
        self.witness = Witness(self.network, self.optimizer, self.scaler.get_scale)
        self.si.attach(self.optimizer, fused=use == "one pass")

    def go(self, clip: str = "no", steps: int = 5) -> None:
        for k in range(steps):
            self.optimizer.zero_grad()
            self.witness.forget_gradients()
            loss = loss_of(self.network) * (float("inf") if k == SKIPPED else 1.0)
            self.scaler.scale(loss).backward()
            if clip == "kept before unscale_":
                self.si.keep_gradient(self.scaler)
            if clip != "no":
                self.scaler.unscale_(self.optimizer)
            if clip == "kept after unscale_":
                self.si.keep_gradient()
            if clip != "no":
                nn.utils.clip_grad_norm_(self.network.parameters(), 0.01)
            if k == SKIPPED:
                self.witness.forget_gradients()
            self.scaler.step(self.optimizer)
            self.scaler.update()


@each_use
@each_optimizer
@pytest.mark.parametrize("clip", ["no", "kept before unscale_", "kept after unscale_"])
def test_the_task_gradient_is_the_unscaled_one_and_a_skipped_step_adds_nothing(
    name: str, clip: str, use: str
) -> None:
    loop = Loop(name, use)
    loop.go(clip)
    witness, si = loop.witness, loop.si
    for path, expected in ((si.running_sum[n], witness.path_integral[n]) for n in si.running_sum):
        assert path.any()
        torch.testing.assert_close(path, expected, rtol=1e-12, atol=1e-15)


@each_use
@each_optimizer
def test_the_weights_move_as_without_a_scaler(name: str, use: str) -> None:
    found = []
    for scale in (1.0, 4096.0):
        loop = Loop(name, use, scale, c=50.0)
        loop.go()
        found.append([p.detach() for p in loop.network.parameters()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-15)


@each_use
@each_optimizer
def test_a_skipped_step_moves_nothing_and_adds_nothing(name: str, use: str) -> None:
    loop = Loop(name, use)
    loop.go(steps=SKIPPED)
    weights = [p.detach().clone() for p in loop.network.parameters()]
    before = snapshot(loop.si)
    moments = copy.deepcopy(loop.optimizer.state_dict()["state"])
    loop.scaler.scale(float("inf") * loss_of(loop.network)).backward()
    loop.scaler.step(loop.optimizer)
    loop.scaler.update()
    assert_unchanged(loop.si, before)
    for weight, old in zip(loop.network.parameters(), weights, strict=True):
        assert torch.equal(weight, old)
    for number, state in loop.optimizer.state_dict()["state"].items():
        for key, value in state.items():
            assert torch.equal(value, moments[number][key])


@each_optimizer
def test_the_penalty_is_not_scaled(name: str) -> None:
    loop = Loop(name, c=1e4)
    network, si = loop.network, loop.si
    is_fused = OPTIMIZERS[name][1].get("fused", False)
    optimizer = SGD(network.parameters(), lr=1.0, fused=is_fused)
    si.attach(optimizer)
    loop.scaler.scale(0.0 * loss_of(network)).backward()
    network.zero_grad(set_to_none=False)
    pull = pulls(network, si)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    loop.scaler.step(optimizer)
    for key, parameter in network.named_parameters():
        moved = parameter.detach() - before[key]
        torch.testing.assert_close(moved, -pull[key], rtol=1e-11, atol=1e-13)


def test_a_scaler_that_is_switched_off_changes_nothing() -> None:
    found = []
    for enabled in (None, False):
        torch.manual_seed(0)
        network = nn.Linear(3, 2).double()
        si = SynapticIntelligence(network)
        optimizer = SGD(network.parameters(), lr=0.1)
        si.attach(optimizer)
        scaler = GradScaler("cpu", enabled=bool(enabled))
        for _ in range(3):
            optimizer.zero_grad()
            if enabled is None:
                loss_of(network).backward()
                si.keep_gradient()
                optimizer.step()
            else:
                scaler.scale(loss_of(network)).backward()
                si.keep_gradient(scaler)
                scaler.step(optimizer)
                scaler.update()
        found.append(snapshot(si))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_weights_moved_between_the_backward_pass_and_the_step_do_not_count() -> None:
    loop = Loop("adam")
    loop.network.zero_grad()
    loop.witness.forget_gradients()
    loop.scaler.scale(loss_of(loop.network)).backward()
    nudge(loop.network)
    loop.scaler.step(loop.optimizer)
    for path, expected in zip(
        loop.si.running_sum.values(), loop.witness.path_integral.values(), strict=True
    ):
        torch.testing.assert_close(path, expected, rtol=1e-12, atol=1e-15)
