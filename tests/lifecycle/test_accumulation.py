"""Gradients accumulated over several iterations, optimisers that are replaced or reset."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from avalanche.training import Naive
from avalanche.training.plugins import SupervisedPlugin
from torch.optim import LBFGS, SGD, Adam

from si_avalanche import CallOrderError, SIPlugin
from tests.digits import digits_benchmark, naive, network, parts, same, train, weights, with_si
from tests.lifecycle.test_precision import Watch
from tests.witness import Witness


class Now(SGD):
    """An optimiser that steps and clears its gradients only in every n-th iteration."""

    def __init__(self, parameters: Any, every: int, **more: Any) -> None:
        super().__init__(parameters, **more)
        self.every, self.iteration = every, 0

    def zero_grad(self, set_to_none: bool = True) -> None:
        if self.iteration % self.every == 0:
            super().zero_grad(set_to_none)


class Accumulating(Naive):
    """Steps in every n-th iteration; the loss is divided where the subclass of users would."""

    def __init__(self, *, every: int, divide: str, **more: Any) -> None:
        super().__init__(**more)
        self.every, self.divide = every, divide

    def criterion(self) -> Any:
        loss = super().criterion()
        return loss / self.every if self.divide == "in the loss" else loss

    def backward(self) -> None:
        divisor = self.every if self.divide == "in the backward pass" else 1
        (self.loss / divisor).backward()

    def optimizer_step(self) -> None:
        assert isinstance(self.optimizer, Now)
        self.optimizer.iteration += 1
        if self.optimizer.iteration % self.every == 0:
            self.optimizer.step()


def accumulating(plugin: SIPlugin | None, every: int, divide: str, **more: Any) -> Any:
    model = network()
    optimizer = Now(model.parameters(), every, lr=0.05, momentum=0.5)
    strategy = Accumulating(
        every=every,
        divide=divide,
        **parts(model, optimizer, **{"plugins": [plugin] if plugin else [], **more}),
    )
    if isinstance(plugin, Watch):
        plugin.witness = Witness(model, optimizer)
    return strategy


DIVIDE = ["in the loss", "in the backward pass", "nowhere"]


@pytest.mark.parametrize("divide", DIVIDE)
@pytest.mark.parametrize("every", [2, 3, 5])
def test_the_path_integral_takes_the_accumulated_gradient_once_per_step(
    every: int, divide: str
) -> None:
    plugin = Watch(c=2.0)
    train(accumulating(plugin, every, divide), digits_benchmark().train_stream[:3])
    assert plugin.si.tasks == 3


@pytest.mark.parametrize("divide", ["in the loss", "in the backward pass"])
def test_accumulating_equals_one_batch_of_all_samples(divide: str) -> None:
    """Full batches: the penalty of accumulated thirds weighs as much as that of the whole."""
    stream = digits_benchmark().train_stream[:3]
    ends = []
    for every in (1, 3):
        plugin = SIPlugin(c=2.0)
        whole = {"train_mb_size": 2000, "train_epochs": 4 * every}
        train(accumulating(plugin, every, divide, **whole), stream)
        ends.append(plugin.si.omega)
    for name, omega in ends[0].items():
        torch.testing.assert_close(ends[1][name], omega, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("divide", DIVIDE)
def test_switched_off_while_gradients_accumulate_it_changes_nothing(divide: str) -> None:
    ends = []
    for plugin in (SIPlugin(c=0), None):
        strategy = accumulating(plugin, 3, divide)
        train(strategy, digits_benchmark().train_stream[:2])
        ends.append(weights(strategy.model))
    assert same(*ends)


def test_clipping_what_has_accumulated_so_far_is_welcome() -> None:
    class Clip(SupervisedPlugin):
        """Clips after every backward pass."""

        def after_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
            torch.nn.utils.clip_grad_norm_(strategy.model.parameters(), 0.2)

    for place in (0, 1):
        plugin = Watch(c=2.0)
        strategy = accumulating(plugin, 3, "nowhere")
        strategy.plugins.insert(place, Clip())
        train(strategy, digits_benchmark().train_stream[:2])


def test_a_restore_between_two_accumulating_iterations_is_not_part_of_the_path() -> None:
    class Restore(SupervisedPlugin):
        """Sets the weights back to what they were at first, in the midst of accumulation."""

        def before_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
            if strategy.clock.train_exp_iterations == 7:
                strategy.model.load_state_dict(network().state_dict())

    for place in (0, 1):
        plugin = Watch(c=2.0)
        strategy = accumulating(plugin, 3, "in the loss")
        strategy.plugins.insert(place, Restore())
        train(strategy, digits_benchmark().train_stream[:2])


def replace(strategy: Any) -> None:
    strategy.optimizer = Adam(strategy.model.parameters(), lr=0.01)


def reset(strategy: Any) -> None:
    strategy.optimizer.state.clear()


@pytest.mark.parametrize("change", [replace, reset])
@pytest.mark.parametrize("hook", ["before_training_exp", "before_training_iteration"])
def test_optimisers_may_be_replaced_or_reset(change: Callable[[Any], None], hook: str) -> None:
    plugin = SIPlugin(c=2.0)
    witnesses: list[Witness] = []

    def act(strategy: Any) -> None:
        if strategy.clock.train_exp_counter == 1 and not witnesses:
            change(strategy)
            witnesses.append(Witness(strategy.model, strategy.optimizer))

    class Change(SupervisedPlugin):
        """Changes the optimiser at the start of the second experience."""

    setattr(Change, hook, lambda self, strategy, **_: act(strategy))

    class Check(SupervisedPlugin):
        """Compares before the consolidation."""

        def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
            if witnesses:
                witnesses[0].assert_seen_by(plugin.si, rtol=1e-3, atol=1e-7)

    train(naive(network(), [Check(), plugin, Change()]), digits_benchmark().train_stream[:2])
    assert witnesses


def test_an_optimiser_that_is_given_a_closure_is_refused_before_weights_move() -> None:
    class WithClosure(Naive):
        """Lets the optimiser compute gradients, as LBFGS wants."""

        def closure(self) -> Any:
            self.optimizer.zero_grad()
            loss = self._criterion(self.forward(), self.mb_y)
            loss.backward()
            return loss

        def optimizer_step(self) -> None:
            self.optimizer.step(self.closure)

    model = network()
    strategy = WithClosure(**parts(model, LBFGS(model.parameters()), plugins=[SIPlugin()]))
    before = weights(model)
    with pytest.raises(CallOrderError, match="LBFGS was given a closure"):
        strategy.train(digits_benchmark().train_stream[0])
    assert same(before, weights(model))


def test_avalanches_reset_of_the_optimiser_is_no_obstacle() -> None:
    plugin = SIPlugin()
    strategy = with_si(network(), plugin)
    for experience in digits_benchmark().train_stream[:2]:
        strategy.train(experience, reset_optimizer_state=True)
    assert plugin.si.tasks == 2
