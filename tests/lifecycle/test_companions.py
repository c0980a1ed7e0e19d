"""Other plugins before and behind ours: what they do to gradients, weights and the loss."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from avalanche.training import Naive
from avalanche.training.plugins import SupervisedPlugin
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from si_avalanche import CallOrderError, SIPlugin
from tests.digits import (
    digits_benchmark,
    naive,
    network,
    parts,
    same,
    train,
    weights,
)
from tests.lifecycle.witness import ORDERS, WitnessPlugin, arranged

Change = Callable[[nn.Module], object]


class At(SupervisedPlugin):
    """Does something to the model in one hook, in some or all iterations of an experience."""

    def __init__(self, hook: str, change: Change, first: int = 0) -> None:
        super().__init__()

        def call(strategy: Any, *args: Any, **kwargs: Any) -> None:
            if strategy.clock.train_exp_iterations >= first:
                with torch.no_grad():
                    change(strategy.model)

        setattr(self, hook, call)


class Loss(SupervisedPlugin):
    """Puts something into the strategy's loss."""

    def __init__(self, change: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self._change = change

    def before_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        strategy.loss = self._change(strategy)


def check(
    order: str,
    other: Callable[[], SupervisedPlugin],
    build: Callable[..., Naive] = naive,
    **options: Any,
) -> None:
    """Compare with a run without us, and with a witness."""
    stream = digits_benchmark().train_stream[:2]
    trained = []
    for plugins in ([other()], arranged(order, other(), SIPlugin(c=0.0, **options))):
        model = network()
        train(build(model, plugins), stream)
        trained.append(weights(model))
    assert same(*trained)

    plugin = SIPlugin(c=1.0, **options)
    witness = WitnessPlugin(plugin)
    model = network()
    train(build(model, [witness, *arranged(order, other(), plugin)]), stream)
    assert witness.steps > 20
    assert witness.agrees()
    assert plugin.si.total_importance() > 0
    assert not same(weights(model), trained[0])


def halved(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.grad = None if parameter.grad is None else 0.5 * parameter.grad


def without_bias(model: nn.Module) -> None:
    model.get_parameter("classifier.bias").grad = None


GRADIENTS: dict[str, Change] = {
    "norm clipped": lambda model: clip_grad_norm_(model.parameters(), 0.1),
    "values clipped": lambda model: clip_grad_value_(model.parameters(), 0.01),
    "replaced": halved,
    "removed": without_bias,
}


@pytest.mark.parametrize("first", [0, 3], ids=["always", "sometimes"])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("hook", ["after_backward", "before_update"])
@pytest.mark.parametrize("kind", GRADIENTS)
def test_gradients_that_another_plugin_changes(
    kind: str, hook: str, order: str, first: int
) -> None:
    check(order, lambda: At(hook, GRADIENTS[kind], first))


class Clips(Naive):
    """A strategy that changes gradients by itself, before or behind all plugins."""

    def __init__(self, *, where: str, kind: str, first: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._where, self._change, self._first = where, GRADIENTS[kind], first

    def backward(self) -> None:
        super().backward()
        self._clip("before")

    def optimizer_step(self) -> None:
        self._clip("behind")
        super().optimizer_step()

    def _clip(self, where: str) -> None:
        if where == self._where and self.clock.train_exp_iterations >= self._first:
            with torch.no_grad():
                self._change(self.model)


@pytest.mark.parametrize("first", [0, 3], ids=["always", "sometimes"])
@pytest.mark.parametrize("where", ORDERS)
@pytest.mark.parametrize("kind", GRADIENTS)
def test_gradients_that_the_strategy_changes(kind: str, where: str, first: int) -> None:
    def build(model: nn.Module, plugins: Sequence[SupervisedPlugin]) -> Naive:
        return Clips(where=where, kind=kind, first=first, **parts(model, plugins=list(plugins)))

    check("before", SupervisedPlugin, build)


@pytest.mark.parametrize("first", [0, 3], ids=["always", "sometimes"])
def test_gradients_that_a_hook_of_the_optimiser_changes(first: int) -> None:
    def build(model: nn.Module, plugins: Sequence[SupervisedPlugin]) -> Naive:
        strategy = naive(model, plugins)

        def clip(*_: object) -> None:
            if strategy.clock.train_exp_iterations >= first:
                clip_grad_norm_(model.parameters(), 0.1)

        strategy.optimizer.register_step_pre_hook(clip)
        return strategy

    check("before", SupervisedPlugin, build)


def grown(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.mul_(1.01)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    "hook",
    [
        "before_training_epoch",
        "before_training_iteration",
        "before_forward",
        "after_backward",
        "before_update",
        "after_update",
        "after_training_iteration",
        "after_training_epoch",
    ],
)
def test_weights_that_another_plugin_moves_are_no_steps(hook: str, order: str) -> None:
    check(order, lambda: At(hook, grown))


@pytest.mark.parametrize("order", ORDERS)
def test_gradients_that_another_plugin_left_there_are_not_those_of_the_loss(order: str) -> None:
    def leave(strategy: Any) -> Tensor:
        strategy.model(strategy.mb_x).square().mean().backward()
        return strategy.loss

    check(order, lambda: Loss(leave))


def weighed_in(strategy: Any) -> Tensor:
    strategy.loss += 0.1 * strategy.model.features.weight.square().sum()
    return strategy.loss


LOSSES: dict[str, Callable[[Any], Tensor]] = {
    "added in place": weighed_in,
    "added": lambda s: s.loss + 0.1 * s.model.features.weight.square().sum(),
    "mixed": lambda s: 0.5 * s.loss + 0.1 * s.model.features.weight.square().sum(),
    "doubled": lambda s: s.loss * 2,
    "replaced": lambda s: 0.5 * s._criterion(s.model(s.mb_x), s.mb_y),
}
REFUSED_BEHIND = {
    "doubled": "multiplied by 2 on its way backward.*before SIPlugin",
    "replaced": "replaced strategy.loss after SIPlugin.*list that plugin before SIPlugin",
}


@pytest.mark.parametrize(
    ("kind", "order"),
    [(k, o) for k in LOSSES for o in ORDERS if o == "before" or k not in REFUSED_BEHIND],
)
def test_what_another_plugin_puts_into_the_loss_is_part_of_it(kind: str, order: str) -> None:
    check(order, lambda: Loss(LOSSES[kind]))


@pytest.mark.parametrize("kind", REFUSED_BEHIND)
def test_a_loss_that_is_another_one_behind_us_asks_for_the_order_before_a_weight_moves(
    kind: str,
) -> None:
    model = network()
    start = weights(model)
    strategy = naive(model, [SIPlugin(), Loss(LOSSES[kind])])
    with pytest.raises(CallOrderError, match=REFUSED_BEHIND[kind]):
        train(strategy, digits_benchmark().train_stream[:1])
    assert same(start, weights(model))
