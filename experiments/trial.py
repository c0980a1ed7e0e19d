"""One trial: a description in, a result out. Nothing is printed, nothing global is kept."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from avalanche.evaluation.metrics import (
    accuracy_metrics,
    bwt_metrics,
    forgetting_metrics,
    loss_metrics,
)
from avalanche.logging import CSVLogger, TensorboardLogger
from avalanche.training.determinism.rng_manager import RNGManager
from avalanche.training.plugins import EvaluationPlugin
from torch import nn

from experiments.checks import require_runnable
from experiments.cost import IterationTimer, PassCounter, extra_bytes
from experiments.evaluator import AccuracyEvaluator
from experiments.loading import InMemoryLoader
from experiments.models import make_model
from experiments.phases import Phases
from experiments.records import Description, Place, Result, Training
from experiments.strategies import STRATEGIES, Settings
from experiments.streams import input_shape, make_benchmark
from experiments.streams.online import online_parts
from experiments.untyped import (
    AvalancheStrategy,
    Benchmark,
    Evaluator,
    Experience,
    Experiences,
    Logger,
)

_LOGGERS = {"tensorboard": TensorboardLogger, "csv": CSVLogger}
EVALUATION_BATCH = 1024
TRAINING, EVALUATION = "training", "evaluation"


def run_trial(description: Description, place: Place, phases: Phases | None = None) -> Result:
    """Train one strategy on one stream and measure it.

    :param description: what to train, on what, and how.
    :param place: where data are read and logs written.
    :param phases: what the seconds of ``TRAINING`` and ``EVALUATION`` are added to, for whoever
        wants to know them apart.
    :return: accuracies and costs.
    :raises BadValueError: if parts of the description do not go together.
    """
    started = time.perf_counter()
    require_runnable(description)
    benchmark = make_benchmark(
        description.data,
        description.seed,
        Path(place.data_root),
        global_labels=description.network.head != "multi",
    )
    loggers = _make_loggers(description, place)
    # The same seed gives every strategy the same initial weights ...
    seed_generators(description.seed, 0)
    strategy = _make_strategy(description, benchmark.train_stream, loggers)
    timer = IterationTimer(strategy.device)
    timer.attach(strategy)
    counter = PassCounter(strategy.model)
    rows, metrics = _train_and_evaluate(
        description, strategy, benchmark, counter, phases or Phases()
    )
    _close(loggers)
    return Result(
        accuracy=tuple(rows),
        seconds_per_iteration=timer.median(),
        extra_passes=counter.extra_passes(),
        extra_bytes=extra_bytes(strategy),
        avalanche_forgetting=_stream_metric(metrics, "StreamForgetting"),
        avalanche_backward_transfer=_stream_metric(metrics, "StreamBWT"),
        seconds=time.perf_counter() - started,
        importance=_importance(strategy),
    )


def _train_and_evaluate(
    description: Description,
    strategy: AvalancheStrategy,
    benchmark: Benchmark,
    counter: PassCounter,
    phases: Phases,
) -> tuple[list[tuple[float, ...]], Mapping[str, Any]]:
    training = description.training
    rows: list[tuple[float, ...]] = []
    metrics: Mapping[str, Any] = {}
    lessons = _lessons(description, benchmark.train_stream)
    for number, lesson in enumerate(lessons, start=1):
        # ... and the same batches, whatever else it draws between experiences.
        seed_generators(description.seed, number)
        samples = sum(len(part.dataset) for part in lesson)
        _forget(strategy.optimizer, training.reset)
        with phases.timed(TRAINING), counter.training(samples, _passes(training, samples)):
            strategy.train(lesson, eval_streams=[], drop_last=training.drop_last)
        with phases.timed(EVALUATION):
            metrics = strategy.eval(benchmark.streams[description.data.evaluation])
        rows.append(_accuracies(metrics))
    return rows, metrics


def _lessons(description: Description, experiences: Experiences) -> list[list[Experience]]:
    if STRATEGIES[description.strategy].trains_once:
        return [list(experiences)]
    if description.data.scenario != "online":
        return [[experience] for experience in experiences]
    size, drop_last = description.training.batch_size, description.training.drop_last
    return [
        online_parts(experience, size, _state(description.seed, number), drop_last=drop_last)
        for number, experience in enumerate(experiences, start=1)
    ]


def _passes(training: Training, samples: int) -> float:
    if training.iterations is None:
        assert training.epochs is not None
        return training.epochs
    return training.iterations * training.batch_size / samples


def _forget(optimizer: torch.optim.Optimizer, reset: str) -> None:
    if reset == "all":
        optimizer.state.clear()
    elif reset == "moments":
        for state in optimizer.state.values():
            state["exp_avg"].zero_()
            state["exp_avg_sq"].zero_()


def _importance(strategy: AvalancheStrategy) -> dict[str, float]:
    from si_avalanche import SIPlugin

    own = [plugin for plugin in strategy.plugins if isinstance(plugin, SIPlugin)]
    return {
        name: float(importance.sum())
        for plugin in own
        for name, importance in plugin.si.omega.items()
    }


def seed_generators(seed: int, number: int) -> None:
    """Seed every random generator for one part of a trial.

    :param seed: the trial's seed.
    :param number: the part: 0 for the initial weights, then the experiences from 1.
    """
    RNGManager.set_random_seeds(_state(seed, number))


def _state(seed: int, number: int) -> int:
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def _make_strategy(
    description: Description, experiences: Experiences, loggers: list[Logger]
) -> AvalancheStrategy:
    training = description.training
    model = make_model(description.network, input_shape(description.data), experiences)
    parts = {
        "model": model,
        "optimizer": torch.optim.Adam(
            model.parameters(), lr=training.learning_rate, eps=training.epsilon, fused=True
        ),
        "criterion": nn.CrossEntropyLoss(),
        "train_mb_size": training.batch_size,
        "train_epochs": training.epochs or 1,
        "eval_mb_size": EVALUATION_BATCH,
        "device": description.device,
        "plugins": [],
        "evaluator": _make_evaluator(description.strategy, loggers),
    }
    settings = Settings(
        strength=description.strength or 0.0,
        memory=description.memory,
        options=dict(description.options),
        online=description.data.scenario == "online",
    )
    strategy = STRATEGIES[description.strategy].build(parts, settings)
    strategy.plugins.append(InMemoryLoader(training.iterations))
    return strategy


def _make_evaluator(strategy: str, loggers: list[Logger]) -> Evaluator:
    if not loggers:
        return AccuracyEvaluator()
    metrics = [
        accuracy_metrics(epoch=True, experience=True, stream=True),
        forgetting_metrics(experience=True, stream=True),
        bwt_metrics(stream=True),
        loss_metrics(epoch=True, experience=True),
    ]
    if strategy == "si":
        from si_avalanche import si_metrics

        metrics.append(si_metrics())
    return EvaluationPlugin(*metrics, loggers=loggers)


def _make_loggers(description: Description, place: Place) -> list[Logger]:
    data = description.data
    parts = (data.stream, data.scenario, description.strategy, description.seed, description.name)
    name = "-".join(str(part) for part in parts)
    return [_LOGGERS[kind](str(Path(place.log_folder) / kind / name)) for kind in place.loggers]


def _close(loggers: list[Logger]) -> None:
    for logger in loggers:
        # Avalanche's TensorBoard logger leaves closing to its writer.
        (logger.writer if hasattr(logger, "writer") else logger).close()


def _accuracies(metrics: Mapping[str, Any]) -> tuple[float, ...]:
    # Names end in the experience's number, zero-padded, so that they sort by it.
    names = sorted(
        (name for name in metrics if name.startswith("Top1_Acc_Exp/eval_phase")),
        key=lambda name: name.rsplit("/", 1)[-1],
    )
    return tuple(float(metrics[name]) for name in names)


def _stream_metric(metrics: Mapping[str, Any], metric: str) -> float:
    return next(float(value) for name, value in metrics.items() if name.startswith(metric + "/"))
