"""Early stopping, schedules and checkpoints beside ours, in both orders."""

import io
from typing import Any

import pytest
import torch
from avalanche.evaluation.metrics import WeightCheckpoint, accuracy_metrics
from avalanche.training.plugins import EarlyStoppingPlugin, LRSchedulerPlugin, SupervisedPlugin
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import ExponentialLR, ReduceLROnPlateau

from si_avalanche import SIPlugin
from tests.digits import digits_benchmark, naive, network, same, silent_evaluator, train, weights
from tests.lifecycle.witness import ORDERS, WitnessPlugin, arranged


class Best(SupervisedPlugin):
    """Notes for each experience what early stopping found best, and whether it is restored."""

    def __init__(self, stopping: EarlyStoppingPlugin) -> None:
        super().__init__()
        self._stopping = stopping
        self.restored: list[bool] = []

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.restored.append(same(weights(strategy.model), self._stopping.best_state))


def stopped_early(mode: str, order: str, plugin: SIPlugin | None) -> tuple[nn.Module, Best, int]:
    """Train until it gets worse on the first classes, which the second experience soon does."""
    benchmark, model = digits_benchmark(), network()
    other = EarlyStoppingPlugin(patience=2, val_stream_name="test_stream", peval_mode=mode)
    best, witness = Best(other), WitnessPlugin(plugin or SIPlugin())
    strategy = naive(
        model,
        [best, other] if plugin is None else [best, witness, *arranged(order, other, plugin)],
        optimizer=SGD(model.parameters(), lr=0.5, momentum=0.9),
        train_epochs=15,
        train_mb_size=64,
        evaluator=silent_evaluator(accuracy_metrics(stream=True)),
        eval_every=1,
        peval_mode=mode,
    )
    torch.manual_seed(1)
    for experience in benchmark.train_stream[:2]:
        strategy.train(experience, eval_streams=[[benchmark.test_stream[0]]])
        if plugin is not None:
            assert same(dict(plugin.si.anchor), weights(model))
    assert witness.agrees()
    return model, best, strategy.clock.train_iterations


@pytest.mark.filterwarnings(
    # Of every early stopping, before the first evaluation.
    "ignore:Metric Top1_Acc_Stream used by the EarlyStopping:UserWarning"
)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("mode", ["epoch", "iteration"])
def test_early_stopping_restores_weights_that_the_anchor_follows(mode: str, order: str) -> None:
    alone, _, steps = stopped_early(mode, order, None)
    assert steps < 15 * 8
    idle, _, idle_steps = stopped_early(mode, order, SIPlugin(c=0.0))
    assert same(weights(alone), weights(idle))
    assert idle_steps == steps
    plugin = SIPlugin(c=1.0)
    _, best, _ = stopped_early(mode, order, plugin)
    # By iterations one more step is made after the weights were restored.
    assert best.restored == [mode == "epoch"] * 2
    assert plugin.si.total_importance() > 0


class Rates(SupervisedPlugin):
    """Notes the learning rate of every step."""

    def __init__(self) -> None:
        super().__init__()
        self.used: list[float] = []

    def before_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.used.append(strategy.optimizer.param_groups[0]["lr"])


def scheduled(kind: str, optimizer: SGD) -> LRSchedulerPlugin:
    if kind == "plateau":
        # What never falls far enough is a plateau from the first epoch on.
        plateau = ReduceLROnPlateau(optimizer, patience=0, threshold=0.99)
        return LRSchedulerPlugin(plateau, metric="train_loss")
    return LRSchedulerPlugin(ExponentialLR(optimizer, 0.7), step_granularity=kind)


@pytest.mark.filterwarnings(
    # Avalanche turns the loss into a number for metric-driven schedules.
    "ignore:Converting a tensor with requires_grad=True to a scalar:UserWarning"
)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", ["epoch", "iteration", "plateau"])
def test_schedules_of_the_learning_rate(kind: str, order: str) -> None:
    stream = digits_benchmark().train_stream[:2]
    trained, used = [], []
    for c in (None, 0.0, 1.0):
        model = network()
        optimizer = SGD(model.parameters(), lr=0.05, momentum=0.9)
        other, plugin = scheduled(kind, optimizer), SIPlugin(c=c or 0.0)
        rates, witness = Rates(), WitnessPlugin(plugin)
        plugins = [other] if c is None else [witness, *arranged(order, other, plugin)]
        train(naive(model, [rates, *plugins], optimizer=optimizer, train_epochs=4), stream)
        trained.append(weights(model))
        used.append(rates.used)
        assert witness.agrees()
    assert same(trained[0], trained[1])
    assert not same(trained[0], trained[2])
    assert min(used[0]) < 0.05
    assert used[0] == used[1]


def test_weight_checkpoints_are_those_of_the_model_and_the_path_integral_is_witnessed() -> None:
    metric = WeightCheckpoint()
    plugin = SIPlugin(c=1.0)
    witness = WitnessPlugin(plugin)
    model = network()
    strategy = naive(model, [witness, plugin], evaluator=silent_evaluator(metric))
    train(strategy, digits_benchmark().train_stream[:2])
    kept = torch.load(io.BytesIO(metric.result()), weights_only=False)
    assert same(weights(kept), weights(model))
    assert witness.agrees()
