"""Iterations that bring no gradient, no step, or one that nobody announced."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from avalanche.training import Naive
from avalanche.training.plugins import SupervisedPlugin
from torch import nn
from torch.amp import GradScaler
from torch.optim import SGD, Optimizer

from si_avalanche import CallOrderError, ConfigurationError, SIPlugin
from tests.digits import Network, digits_benchmark, naive, network, parts, same, train, weights
from tests.lifecycle.test_accumulation import accumulating

STREAM = digits_benchmark().train_stream[:3]
BAD = (3, 4)


class Guard(SupervisedPlugin):
    """Spoils the gradients of some iterations, and throws spoilt gradients away."""

    def __init__(self, to_none: bool) -> None:
        super().__init__()
        self.to_none = to_none

    def after_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        if strategy.clock.train_exp_iterations in BAD:
            for parameter in strategy.model.parameters():
                parameter.grad.fill_(float("nan"))
            strategy.optimizer.zero_grad(set_to_none=self.to_none)


@pytest.mark.parametrize("to_none", [False, True])
@pytest.mark.parametrize("order", ["before", "behind"])
def test_gradients_that_a_guard_throws_away_leave_no_trace(order: str, to_none: bool) -> None:
    ends = []
    for c in (None, 0.0, 1.0):
        plugin = SIPlugin(0.0 if c is None else c)
        plugins = [Guard(to_none), *([] if c is None else [plugin])]
        model = network()
        train(naive(model, plugins[:: 1 if order == "before" else -1]), STREAM)
        ends.append(weights(model))
    assert same(ends[0], ends[1])
    assert plugin.si.tasks == 3
    assert all(omega.isfinite().all() and omega.any() for omega in plugin.si.omega.values())


class SkipsBackward(Naive):
    """Leaves some batches out."""

    def backward(self) -> None:
        if self.clock.train_exp_iterations not in BAD:
            super().backward()


class NeedsNoGradient(Naive):
    """Has a loss without a gradient in some iterations."""

    def criterion(self) -> Any:
        loss = super().criterion()
        return loss.detach() if self.clock.train_exp_iterations in BAD else loss

    def backward(self) -> None:
        if self.loss.requires_grad:
            super().backward()


@pytest.mark.parametrize("kind", [SkipsBackward, NeedsNoGradient])
def test_iterations_without_a_backward_pass_are_iterations_without_a_step(
    kind: type[Naive],
) -> None:
    ends = []
    for plugins in ([], [SIPlugin(0.0)], [SIPlugin(1.0)]):
        model = network()
        train(kind(**parts(model, plugins=plugins)), STREAM)
        ends.append(weights(model))
    assert same(ends[0], ends[1])
    assert not same(ends[0], ends[2])


def by_data(strategy: Any) -> None:
    for parameter in strategy.model.parameters():
        parameter.data.add_(parameter.grad, alpha=-0.05)


def by_hand(strategy: Any) -> None:
    with torch.no_grad():
        for parameter in strategy.model.parameters():
            parameter.sub_(0.05 * parameter.grad)


@pytest.mark.parametrize("step", [by_data, by_hand])
def test_steps_that_another_than_the_optimiser_makes_are_refused(
    step: Callable[[Any], None],
) -> None:
    class Own(Naive):
        """Moves the weights by itself."""

        def optimizer_step(self) -> None:
            step(self)

    with pytest.raises(CallOrderError, match="made no step"):
        Own(**parts(network(), plugins=[SIPlugin()])).train(STREAM[0])


def test_an_optimiser_without_hooks_is_refused_before_weights_move() -> None:
    class Lookahead(Optimizer):
        """Wraps another one and forgets to call the constructor of its class."""

        def __init__(self, inner: Optimizer) -> None:
            self.inner = inner
            self.param_groups, self.state = inner.param_groups, inner.state
            self.defaults = inner.defaults

        def step(self, closure: Any = None) -> Any:
            return self.inner.step(closure)

    model = network()
    strategy = naive(model, [SIPlugin()], optimizer=Lookahead(SGD(model.parameters(), lr=0.05)))
    before = weights(model)
    with pytest.raises(ConfigurationError, match="Lookahead takes no hooks"):
        strategy.train(STREAM[0])
    assert same(before, weights(model))


def test_two_plugins_in_one_strategy_are_refused() -> None:
    model = network()
    before = weights(model)
    with pytest.raises(ConfigurationError, match="two SIPlugins"):
        naive(model, [SIPlugin(), SIPlugin()]).train(STREAM[0])
    assert same(before, weights(model))


def test_a_plugin_that_has_met_a_model_is_not_trained_with_another() -> None:
    plugin = SIPlugin()
    model = network()
    plugin.meet(model)
    assert plugin.si.total_importance() == 0
    torch.manual_seed(7)
    with pytest.raises(ConfigurationError, match="another strategy's model"):
        naive(Network(), [plugin]).train(STREAM[0])
    train(naive(model, [plugin]), STREAM)
    assert plugin.si.tasks == 3


class Clip(SupervisedPlugin):
    """Clips what has accumulated so far, after every backward pass."""

    def after_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        nn.utils.clip_grad_norm_(strategy.model.parameters(), 0.2)


@pytest.mark.parametrize("c", [0.0, 1e-12])
@pytest.mark.parametrize("order", ["before", "behind"])
def test_what_is_done_to_gradients_between_accumulating_passes_is_not_undone(
    order: str, c: float
) -> None:
    ends = []
    for plugins in (
        [Clip()],
        [Clip(), SIPlugin(c)] if order == "before" else [SIPlugin(c), Clip()],
    ):
        strategy = accumulating(None, 3, "nowhere", plugins=plugins)
        train(strategy, STREAM)
        ends.append(weights(strategy.model))
    for name, expected in ends[0].items():
        torch.testing.assert_close(ends[1][name], expected, rtol=0, atol=1e-6 if c else 0)


class HiddenScaler(Naive):
    """Scales by something that grows, where nobody finds it."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.held = {"scaler": GradScaler("cpu", init_scale=1.0, growth_interval=3)}

    def backward(self) -> None:
        self.held["scaler"].scale(self.loss).backward()

    def optimizer_step(self) -> None:
        self.held["scaler"].step(self.optimizer)
        self.held["scaler"].update()


def test_a_hidden_scale_that_grows_is_refused_when_it_does() -> None:
    with pytest.raises(CallOrderError, match="multiplied by 2 on its way"):
        HiddenScaler(**parts(network(), plugins=[SIPlugin()])).train(STREAM[0])


def test_a_scaler_that_scales_nothing_changes_nothing() -> None:
    class Unused(Naive):
        """Holds a scaler and does without."""

        scaler = GradScaler("cpu")

    found = []
    for kind in (Naive, Unused):
        plugin = SIPlugin()
        train(kind(**parts(network(), plugins=[plugin])), STREAM[:1])
        found.append(plugin.si.total_importance())
    assert torch.equal(*found)


def test_a_scaler_that_scales_something_else_is_refused() -> None:
    class Elsewhere(Naive):
        """Scales another loss."""

        scaler = GradScaler("cpu")

        def backward(self) -> None:
            self.scaler.scale(torch.ones(1))
            super().backward()

    with pytest.raises(CallOrderError, match="it was not scaled"):
        Elsewhere(**parts(network(), plugins=[SIPlugin()])).train(STREAM[0])
