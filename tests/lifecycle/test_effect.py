"""Synaptic Intelligence switched off is Naive to the last bit; switched on, it is not."""

from typing import Any

import pytest
import torch
from avalanche.training import Replay
from avalanche.training.plugins import LwFPlugin, SupervisedPlugin, SynapticIntelligencePlugin
from torch import nn
from torch.optim import SGD, Adam

from si_avalanche import SI, SIPlugin
from tests.digits import (
    digits_benchmark,
    naive,
    network,
    parts,
    same,
    silent_evaluator,
    train,
    weights,
    with_si,
)

OPTIMIZERS: list[Any] = [
    lambda p: SGD(p, lr=0.05, momentum=0.9, weight_decay=1e-3),
    lambda p: Adam(p, lr=1e-3),
]


def weights_after_each_experience(make: Any, optimizer: Any, experiences: int = 3) -> list[Any]:
    model = network()
    strategy = make(model, optimizer=optimizer(model.parameters()))
    torch.manual_seed(1)
    history = []
    for experience in digits_benchmark().train_stream[:experiences]:
        strategy.train(experience)
        history.append(weights(model))
    return history


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=["sgd", "adam"])
def test_with_c_zero_the_weights_are_bitwise_those_of_naive(optimizer: Any) -> None:
    off = weights_after_each_experience(
        lambda model, **more: with_si(model, SIPlugin(c=0), **more), optimizer
    )
    plain = weights_after_each_experience(naive, optimizer)
    assert all(same(a, b) for a, b in zip(off, plain, strict=True))


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=["sgd", "adam"])
def test_with_c_above_zero_the_first_experience_is_naive_and_the_later_ones_are_not(
    optimizer: Any,
) -> None:
    plugin = SIPlugin(c=1.0)
    on = weights_after_each_experience(
        lambda model, **more: with_si(model, plugin, **more), optimizer
    )
    plain = weights_after_each_experience(naive, optimizer)
    assert same(on[0], plain[0])
    assert all(not torch.equal(on[t][name], plain[t][name]) for t in (1, 2) for name in on[t])
    assert plugin.si.total_importance() > 0
    assert all(omega.any() for omega in plugin.si.omega.values())


def test_avalanches_own_plugin_on_the_cpu_is_naive_which_the_tests_here_would_not_let_pass() -> (
    None
):
    own = SynapticIntelligencePlugin(si_lambda=1e6)
    built_in = weights_after_each_experience(
        lambda model, **more: naive(model, [own], **more), OPTIMIZERS[0]
    )
    plain = weights_after_each_experience(naive, OPTIMIZERS[0])
    assert all(same(a, b) for a, b in zip(built_in, plain, strict=True))
    assert not any(importance.data.any() for importance in own.ewc_data[1].values())


def test_protection_keeps_important_weights_nearer_to_the_anchor() -> None:
    distances = []
    for c in (0.0, 10.0):
        plugin = SIPlugin(c=c)
        model = network()
        strategy = with_si(model, plugin)
        stream = digits_benchmark().train_stream
        train(strategy, stream[:1])
        omega = {name: importance.clone() for name, importance in plugin.si.omega.items()}
        anchor = weights(model)
        train(strategy, stream[1:2])
        distances.append(
            sum((omega[n] * (w - anchor[n]) ** 2).sum().item() for n, w in weights(model).items())
        )
    assert distances[1] < 0.5 * distances[0]


def test_the_strategy_is_naive_plus_the_plugin_and_copies_the_list_of_plugins() -> None:
    stream = digits_benchmark().train_stream[:2]
    by_plugin, by_strategy = network(), network()
    train(with_si(by_plugin, SIPlugin(c=2.0, xi=0.01, decay=0.5)), stream)
    mine: list[Any] = []
    strategy = SI(**parts(by_strategy, plugins=mine), c=2.0, xi=0.01, decay=0.5)
    train(strategy, stream)
    assert same(weights(by_plugin), weights(by_strategy))
    assert mine == []


def test_the_strategy_takes_keywords_only_and_defaults_to_cross_entropy() -> None:
    model = network()
    optimizer = SGD(model.parameters(), lr=0.1)
    strategy = SI(model=model, optimizer=optimizer, train_mb_size=16, evaluator=silent_evaluator)
    assert isinstance(strategy._criterion, nn.CrossEntropyLoss)
    assert strategy.eval_mb_size == 16
    with pytest.raises(TypeError):
        SI(model=model, optimizer=optimizer, si_lambda=1.0)  # type: ignore[call-arg]


@pytest.mark.parametrize("companion", ["replay", "lwf"])
def test_switched_off_beside_another_method_it_changes_nothing(companion: str) -> None:
    stream = digits_benchmark().train_stream[:3]
    results = []
    for ours in ([], [SIPlugin(c=0)]):
        model = network()
        if companion == "replay":
            strategy: Any = Replay(**parts(model, plugins=ours), mem_size=50)
        else:
            strategy = naive(model, [LwFPlugin(), *ours])
        train(strategy, stream)
        results.append(weights(model))
    assert same(*results)


def test_the_penalty_stays_out_of_the_loss_that_loggers_see() -> None:
    model = network()
    strategy = with_si(model, SIPlugin(c=100.0))
    seen: list[float] = []

    class Spy(SupervisedPlugin):
        """Compares the strategy's loss with the task loss of its mini-batch."""

        def after_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
            task = strategy._criterion(strategy.mb_output, strategy.mb_y)
            seen.append(abs(task.item() - strategy.loss.item()))

    strategy.plugins.insert(0, Spy())
    train(strategy, digits_benchmark().train_stream[:2])
    assert max(seen) == 0
