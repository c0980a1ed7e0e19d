"""A training iteration through Avalanche: without a plugin, with ours, with Avalanche's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import torch
from avalanche.training.plugins import SupervisedPlugin, SynapticIntelligencePlugin
from avalanche.training.supervised import Naive
from torch import nn

from experiments.bench.memory import look_at
from experiments.bench.methods import STRENGTH
from experiments.bench.rows import Row
from experiments.bench.steps import against_both, begin_row
from experiments.bench.timing import How, Statement, in_turn
from experiments.bench.trainee import STEPS_BEFORE, make_adam
from experiments.bench.workloads import Workload
from experiments.cost import extra_bytes
from experiments.streams.samples import Samples, benchmark_of
from experiments.untyped import AvalancheStrategy, Experience
from si_avalanche import SIPlugin

NAIVE, NAIVE_FUSED, OUR_PLUGIN = "Naive", "Naive, fused Adam", "SIPlugin"


def _ours(fused: bool) -> Callable[[], list[Any]]:
    return lambda: [SIPlugin(STRENGTH, fused=fused)]


PLUGINS: dict[str, tuple[Callable[[], list[Any]], bool]] = {
    NAIVE: (list, False),
    NAIVE_FUSED: (list, True),
    OUR_PLUGIN: (_ours(fused=False), False),
    f"{OUR_PLUGIN}, fused Adam": (_ours(fused=False), True),
    f"{OUR_PLUGIN}, one pass": (_ours(fused=True), False),
    f"{OUR_PLUGIN}, one pass, fused Adam": (_ours(fused=True), True),
    # Its strength is twice ours.
    "Avalanche's SI plugin": (lambda: [SynapticIntelligencePlugin(2 * STRENGTH)], False),
}
"""What makes the plugins, and whether the optimiser is ``Adam(fused=True)``, by name; the others
are held against the first two."""


class _Within(SupervisedPlugin, supports_distributed=True):  # type: ignore[call-arg]
    """Calls something once, in the middle of a training, when an epoch is to begin."""

    def __init__(self, call: Statement) -> None:
        super().__init__()
        self._call: Statement | None = call

    def before_training_epoch(self, _strategy: AvalancheStrategy, **_kwargs: object) -> None:
        call, self._call = self._call, None
        if call is not None:
            call()


def measure_iterations(workload: Workload, how: How) -> list[Row]:
    """Train one workload with every plugin.

    All strategies are in the middle of their second experience while their iterations are timed
    in turn: from the first plugin's first hook to the last one's last, without the loader.

    :param workload: what to train.
    :param how: how each iteration is timed.
    :return: a row for each plugin, with time and memory.
    """
    model, inputs, labels = workload.draw(how.device)
    experiences = _experiences(inputs, labels)
    batch = [inputs, labels, torch.zeros_like(labels)]
    strategies = {
        name: _strategy(deepcopy(model), plugins(), fused, workload.batch, how.device)
        for name, (plugins, fused) in PLUGINS.items()
    }
    for strategy in strategies.values():
        strategy.train(experiences[0], eval_streams=[])
    rows: list[Row] = []

    def measure() -> None:
        iterations = {name: _iteration(each, batch) for name, each in strategies.items()}
        for iteration in iterations.values():
            for _ in range(STEPS_BEFORE):
                iteration()
        seconds = in_turn(iterations, how)
        seen = {name: look_at(each, how.device, each) for name, each in iterations.items()}
        begun = []
        for name, (_, fused) in PLUGINS.items():
            row = begin_row("avalanche", workload, name, model)
            plain = seen[NAIVE_FUSED if fused else NAIVE]
            begun.append(row.weighed(extra_bytes(strategies[name]), seen[name], plain))
        rows.extend(against_both(begun, list(seconds.values()), how))

    _amid_training(list(strategies.values()), experiences[1], measure)
    return rows


def _experiences(inputs: torch.Tensor, labels: torch.Tensor) -> list[Experience]:
    samples = [Samples(inputs.cpu(), labels.cpu())] * 2
    parts = {"train": samples, "test": samples}
    made = benchmark_of(parts, "domain", own_classes=False, global_labels=False)
    return list(made.train_stream)


def _strategy(
    model: nn.Module, plugins: list[Any], fused: bool, batch: int, device: str
) -> AvalancheStrategy:
    return Naive(
        model=model,
        optimizer=make_adam(model, fused),
        criterion=nn.CrossEntropyLoss(),
        train_mb_size=batch,
        train_epochs=STEPS_BEFORE,
        device=device,
        plugins=plugins,
        evaluator=None,
    )


def _iteration(strategy: AvalancheStrategy, batch: list[torch.Tensor]) -> Statement:
    # A loader that has its batch already: what a loader takes is nobody's method.
    strategy.dataloader = [batch]
    return lambda: strategy.training_epoch()


def _amid_training(
    strategies: Sequence[AvalancheStrategy], experience: Experience, call: Statement
) -> None:
    """Call something while all strategies are within their training on an experience."""
    if not strategies:
        call()
        return
    first, *others = strategies
    first.plugins.append(_Within(lambda: _amid_training(others, experience, call)))
    first.train(experience, eval_streams=[])
