"""Any sequence of what can happen to a model and its state, against the slow reference."""

import copy
from typing import Any

import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from torch import Tensor, nn
from torch.optim import SGD

from si_avalanche import SynapticIntelligence
from tests.reference import ReferenceSI


class Net(nn.Module):
    """A hidden layer and a head, both of which may grow."""

    def __init__(self, hidden: int, outputs: int) -> None:
        super().__init__()
        self.trunk = nn.Linear(3, hidden)
        self.head = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.trunk(x)))


def grown(net: Net, hidden: int, outputs: int) -> Net:
    """A larger network with new parameter objects; old units keep their weights."""
    larger = Net(hidden, outputs).double()
    with torch.no_grad():
        for new, old in zip(larger.parameters(), net.parameters(), strict=True):
            new[tuple(slice(n) for n in old.shape)] = old
            new.requires_grad_(old.requires_grad)
    return larger


class Life(RuleBasedStateMachine):
    """One model in the hands of the fast code, its twin in those of the reference."""

    @initialize(
        seed=st.integers(0, 1000),
        c=st.sampled_from([0.0, 1.0, 5.0]),
        xi=st.sampled_from([0.01, 0.1, 1.0]),
        clamp=st.sampled_from(["accumulated", "per_task", "none"]),
        decay=st.sampled_from([None, 0.3]),
        gradient=st.sampled_from(["task", "total"]),
        first_anchor=st.sampled_from(["initial", "zero"]),
    )
    def begin(self, seed: int, **options: Any) -> None:
        torch.manual_seed(seed)
        # Importance may be negative without a clamp: a strong penalty would drive weights away.
        if options["clamp"] == "none":
            options["c"] = min(options["c"], 0.1)
        self.options = options
        self.net = Net(2, 2).double()
        self.twin = copy.deepcopy(self.net)
        self.si = SynapticIntelligence(self.net, **options)
        self.slow = ReferenceSI(self.twin, **options)
        self.saved: tuple[dict[str, Any], ReferenceSI] | None = None
        self.time = 0

    @rule(
        steps=st.integers(1, 3),
        use=st.sampled_from(["three calls", "attach", "fused", "closure", "clipped"]),
        momentum=st.sampled_from([0.0, 0.5]),
    )
    def train(self, steps: int, use: str, momentum: float) -> None:
        fast, slow = (
            SGD(net.parameters(), lr=0.05, momentum=momentum) for net in (self.net, self.twin)
        )
        if use != "three calls":
            self.si.attach(fast, fused=use == "fused")
        for _ in range(steps):
            self.time += 1
            self.fast_step(fast, use)
            self.slow.train_step(self.loss(self.twin), slow, through_graph=use == "three calls")
        self.si.detach()

    def fast_step(self, optimizer: SGD, use: str) -> None:
        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = self.loss(self.net)
            (loss + self.si.penalty() if use == "three calls" else loss).backward()
            return loss

        if use == "closure":
            optimizer.step(closure)
            return
        closure()
        if use == "clipped":
            # At a bound that is never reached: a change all the same, by a factor of one.
            self.si.keep_gradient()
            nn.utils.clip_grad_norm_(self.net.parameters(), 1e6)
        optimizer.step()
        if use == "three calls":
            self.si.update_running_sum()

    def loss(self, net: Net) -> Tensor:
        generator = torch.Generator().manual_seed(self.time)
        x = torch.randn(5, 3, generator=generator, dtype=torch.float64)
        return (net(x) - x.sum(dim=1, keepdim=True).sin()).square().mean()

    @rule()
    def consolidate(self) -> None:
        self.si.update_omega()
        self.slow.end_task()

    @rule(hidden=st.integers(0, 2), outputs=st.integers(0, 2))
    @precondition(lambda self: self.net.head.out_features < 6)
    def grow(self, hidden: int, outputs: int) -> None:
        wide = self.net.trunk.out_features + hidden, self.net.head.out_features + outputs
        self.net = grown(self.net, *wide)
        self.twin = copy.deepcopy(self.net)
        self.slow.network = self.twin
        self.si.begin_task(self.net)
        self.slow.follow()

    @rule(thaw=st.booleans(), layer=st.sampled_from(["trunk", "head"]))
    def freeze_or_thaw(self, thaw: bool, layer: str) -> None:
        """One layer at a time, so that the loss has something to go backward to."""
        for net in (self.net, self.twin):
            net.requires_grad_(True)
            net.get_submodule(layer).requires_grad_(thaw)
        self.slow.follow()

    @rule()
    def move(self) -> None:
        """As a change of device or a deep copy does: the same weights in other objects."""
        self.net = copy.deepcopy(self.net)
        self.si.begin_task(self.net)

    @rule()
    def save(self) -> None:
        self.saved = self.si.state_dict(), copy.deepcopy(self.slow)

    @rule()
    @precondition(lambda self: self.saved is not None)
    def load(self) -> None:
        """Into an object of its own, for a model that may have grown and trained on since."""
        assert self.saved is not None
        for net in (self.net, self.twin):
            net.requires_grad_(True)
        self.si = SynapticIntelligence(self.net, **self.options)
        self.si.load_state_dict(self.saved[0], may_grow=True)
        self.slow = copy.deepcopy(self.saved[1])
        self.slow.network = self.twin
        self.slow.follow()

    @invariant()
    def the_fast_state_is_the_slow_one(self) -> None:
        if not hasattr(self, "si"):
            return
        self.si.begin_task()
        for fast, slow in (
            (self.si.omega, self.slow.importance),
            (self.si.running_sum, self.slow.path_integral),
            (self.si.prev_params, self.slow.anchor),
        ):
            assert fast.keys() == slow.keys()
            for name, tensor in fast.items():
                expected = torch.tensor(slow[name], dtype=torch.float64).reshape(tensor.shape)
                torch.testing.assert_close(tensor, expected, rtol=1e-9, atol=1e-12)
        assert (self.si.tasks, self.si.steps) == (self.slow.tasks, self.slow.steps)

    @invariant()
    def clamped_importance_is_finite_and_not_negative(self) -> None:
        if hasattr(self, "si") and self.options["clamp"] != "none":
            for omega in self.si.omega.values():
                assert omega.isfinite().all()
                assert (omega >= 0).all()


TestLife = Life.TestCase
TestLife.settings = settings(
    max_examples=60,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
