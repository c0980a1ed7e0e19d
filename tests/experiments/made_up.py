"""Rows as trials leave them, made up: what a report is told about, without any training."""

from __future__ import annotations

import random
from dataclasses import replace

from experiments.records import Data, Description, Matrix, Network, Result, Row, Training, options
from experiments.strategies import STRATEGIES

VERSIONS = {
    "python": "3.11.7",
    "torch": "2.9.0",
    "avalanche-lib": "0.6.0",
    "machine": "x86_64, 2 cores",
    "date": "2026-11-22",
}


def describe(
    strategy: str,
    *,
    stream: str = "split_mnist",
    scenario: str = "domain",
    seed: int = 0,
    strength: float | None = None,
    **own: float | str | bool | None,
) -> Description:
    return Description(
        data=Data(stream, scenario),
        strategy=strategy,
        strength=strength,
        network=Network(),
        training=Training(batch_size=64, learning_rate=1e-3, epochs=2),
        seed=seed,
        options=options(**own),
        memory=500,
    )


def matrix(experiences: int, loss: float, rows: int | None = None) -> Matrix:
    """Accuracies that fall by ``loss`` with every experience learnt since."""
    full = tuple(
        tuple(max(0.1, 0.98 - loss * max(0, t - i)) if i <= t else 0.5 for i in range(experiences))
        for t in range(experiences)
    )
    return full if rows is None else full[-rows:]


def ended(description: Description, *, experiences: int = 5, loss: float | None = None) -> Row:
    """A trial that ended, its numbers drawn from its description."""
    noise = random.Random(description.name)
    order = (
        list(STRATEGIES).index(description.strategy) if description.strategy in STRATEGIES else 1
    )
    usual = 0.25 / (1 + order) + noise.uniform(0, 0.01)
    once = description.strategy in STRATEGIES and STRATEGIES[description.strategy].trains_once
    importance = (
        {"hidden.0.weight": 9.5, "hidden.0.bias": 0.5, "head.weight": 4.0, "head.bias": 1.0}
        if description.strategy == "si"
        else {}
    )
    accuracy = matrix(experiences, usual if loss is None else loss, 1 if once else None)
    result = Result(
        accuracy=accuracy,
        seconds_per_iteration=1e-3 * (1 + 0.2 * order + noise.uniform(0, 0.1)),
        extra_passes=1.0 if description.strategy.startswith("ewc") else 0.0,
        extra_bytes=700_000 * order,
        avalanche_forgetting=0.0,
        avalanche_backward_transfer=0.0,
        seconds=20.0 + order,
        importance=importance,
    )
    return Row(description, result, None, VERSIONS)


def failed(description: Description, reason: str = "ValueError: it broke") -> Row:
    return Row(description, None, reason, VERSIONS)


def comparison(seeds: int = 3) -> list[Row]:
    """Every strategy in every scenario; RWalk fails."""
    return [
        failed(which) if strategy == "rwalk" else ended(which)
        for scenario in ("task", "domain", "class")
        for strategy in STRATEGIES
        for seed in range(seeds)
        for which in [describe(strategy, scenario=scenario, seed=seed)]
    ]


def search(strengths: int = 7, seeds: int = 2) -> list[Row]:
    """The same methods at many strengths."""
    return [
        ended(describe(strategy, seed=seed, strength=10.0**exponent), loss=0.02 * (1 + exponent % 5))
        for strategy in ("si", "ewc", "mas")
        for exponent in range(strengths)
        for seed in range(seeds)
    ]


def with_epochs(row: Row, epochs: int) -> Row:
    """The same trial, trained for longer."""
    training = replace(row.description.training, epochs=epochs)
    return replace(row, description=replace(row.description, training=training))
