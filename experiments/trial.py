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

from experiments.cost import IterationTimer, PassCounter, extra_bytes
from experiments.models import make_model
from experiments.records import Description, Place, Result
from experiments.strategies import STRATEGIES, Settings
from experiments.streams import STREAMS, make_benchmark, outputs
from experiments.untyped import AvalancheStrategy, Benchmark, Evaluator, Experiences, Logger

_LOGGERS = {"tensorboard": TensorboardLogger, "csv": CSVLogger}
_EVALUATION_BATCH = 1024


def run_trial(description: Description, place: Place) -> Result:
    """Train one strategy on one stream and measure it.

    :param description: what to train, on what, and how.
    :param place: where data are read and logs written.
    :return: accuracies and costs.
    """
    started = time.perf_counter()
    benchmark = make_benchmark(
        description.stream,
        description.scenario,
        data_root=Path(place.data_root),
        evaluation=description.evaluation,
    )
    loggers = _make_loggers(description, place)
    # The same seed gives every strategy the same initial weights ...
    _seed(description.seed, 0)
    strategy = _make_strategy(description, benchmark.train_stream, loggers)
    timer = IterationTimer(strategy.device)
    timer.attach(strategy)
    counter = PassCounter(type(strategy.model))
    rows, metrics = _train_and_evaluate(description, strategy, benchmark, counter)
    _close(loggers)
    return Result(
        accuracy=tuple(rows),
        seconds_per_iteration=timer.median(),
        extra_passes=counter.extra_passes(),
        extra_bytes=extra_bytes(strategy),
        avalanche_forgetting=_stream_metric(metrics, "StreamForgetting"),
        avalanche_backward_transfer=_stream_metric(metrics, "StreamBWT"),
        seconds=time.perf_counter() - started,
    )


def _train_and_evaluate(
    description: Description,
    strategy: AvalancheStrategy,
    benchmark: Benchmark,
    counter: PassCounter,
) -> tuple[list[tuple[float, ...]], Mapping[str, Any]]:
    once = STRATEGIES[description.strategy].trains_once
    lessons = [benchmark.train_stream] if once else list(benchmark.train_stream)
    rows: list[tuple[float, ...]] = []
    metrics: Mapping[str, Any] = {}
    for number, lesson in enumerate(lessons, start=1):
        # ... and the same batches, whatever else it draws between experiences.
        _seed(description.seed, number)
        samples = sum(len(exp.dataset) for exp in (lesson if once else [lesson]))
        with counter.training(samples, description.epochs):
            strategy.train(lesson, eval_streams=[], reset_optimizer_state=True)
        metrics = strategy.eval(benchmark.streams[description.evaluation])
        rows.append(_accuracies(metrics))
    return rows, metrics


def _seed(seed: int, number: int) -> None:
    state = np.random.SeedSequence([seed, number]).generate_state(1)[0]
    RNGManager.set_random_seeds(int(state))


def _make_strategy(
    description: Description, experiences: Experiences, loggers: list[Logger]
) -> AvalancheStrategy:
    stream = STREAMS[description.stream]
    model = make_model(
        description.scenario,
        features=stream.features,
        hidden=description.hidden,
        outputs=outputs(description.scenario),
        experiences=experiences,
        normalised=bool(description.normalisation),
    )
    parts = {
        "model": model,
        "optimizer": torch.optim.Adam(model.parameters(), lr=description.learning_rate),
        "criterion": nn.CrossEntropyLoss(),
        "train_mb_size": description.batch_size,
        "train_epochs": description.epochs,
        "eval_mb_size": _EVALUATION_BATCH,
        "device": description.device,
        "plugins": [],
        "evaluator": _make_evaluator(description.strategy, loggers),
    }
    settings = Settings(
        strength=description.strength or 0.0,
        damping=description.damping,
        memory=description.memory,
        normalisation=description.normalisation,
    )
    return STRATEGIES[description.strategy].build(parts, settings)


def _make_evaluator(strategy: str, loggers: list[Logger]) -> Evaluator:
    logged = bool(loggers)
    metrics = [
        accuracy_metrics(epoch=logged, experience=True, stream=True),
        forgetting_metrics(experience=logged, stream=True),
        bwt_metrics(stream=True),
    ]
    if logged:
        metrics.append(loss_metrics(epoch=True, experience=True))
    if logged and strategy == "si":
        from si_avalanche import si_metrics

        metrics.append(si_metrics())
    return EvaluationPlugin(*metrics, loggers=loggers)


def _make_loggers(description: Description, place: Place) -> list[Logger]:
    name = "-".join(
        str(part)
        for part in (
            description.stream,
            description.scenario,
            description.strategy,
            description.seed,
        )
    )
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
