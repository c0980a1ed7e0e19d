"""What the rows of a record say, over seeds: accuracy, forgetting, transfer, cost."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev

from scipy.stats import t as student

from experiments.records import Matrix, Result, Row
from experiments.strategies import STRATEGIES
from experiments.streams import SCENARIOS, STREAMS

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds.

    :param half_width: half the 95 % Student interval; None from a single value.
    :param n: the number of values.
    """

    mean: float
    half_width: float | None
    n: int


@dataclass(frozen=True)
class Summary:
    """One strategy in one scenario of one stream.

    :param n: trials that ended; the others are in ``failures``.
    :param forgetting: None if it was trained only once; so for backward transfer.
    :param time_ratio: time per training iteration over Naive's of the same seed, median over
        seeds; None without Naive.
    :param failures: reason of each failed trial, by seed.
    """

    stream: str
    scenario: str
    strategy: str
    strength: float | None
    n: int
    average_accuracy: Estimate | None
    forgetting: Estimate | None
    backward_transfer: Estimate | None
    time_ratio: float | None
    extra_passes: float | None
    extra_bytes: float | None
    failures: tuple[tuple[int, str], ...]


def average_accuracy(accuracy: Matrix) -> float:
    """Average the last row: accuracy over all experiences after the last one.

    :param accuracy: row ``t``, column ``i``: accuracy on ``i`` after training on ``t``.
    :return: the mean of row ``T``.
    """
    return fmean(accuracy[-1])


def forgetting(accuracy: Matrix) -> float | None:
    r"""Average what was lost from the best accuracy, :math:`\max_{t<T} a_{t,i} - a_{T,i}`.

    Chaudhry et al. (2018), over the experiences before the last.

    :param accuracy: row ``t``, column ``i``: accuracy on ``i`` after training on ``t``.
    :return: forgetting, or None from fewer than two rows.
    """
    if len(accuracy) < 2:
        return None
    *earlier, last = accuracy
    return fmean(max(row[i] for row in earlier) - last[i] for i in range(len(earlier)))


def backward_transfer(accuracy: Matrix) -> float | None:
    """Average what was gained since each experience was learnt, :math:`a_{T,i} - a_{i,i}`.

    Lopez-Paz and Ranzato (2017), over the experiences before the last.

    :param accuracy: row ``t``, column ``i``: accuracy on ``i`` after training on ``t``.
    :return: backward transfer, or None from fewer than two rows.
    """
    if len(accuracy) < 2:
        return None
    *earlier, last = accuracy
    return fmean(last[i] - earlier[i][i] for i in range(len(earlier)))


def estimate(values: Sequence[float]) -> Estimate:
    """Take the mean and its Student interval.

    :param values: one per seed, at least one.
    :return: the mean, half the interval's width, and how many values there are.
    """
    n = len(values)
    if n < 2:
        return Estimate(fmean(values), None, n)
    quantile = float(student.ppf((1 + CONFIDENCE) / 2, n - 1))
    return Estimate(fmean(values), quantile * stdev(values) / math.sqrt(n), n)


def summarise(rows: Iterable[Row]) -> list[Summary]:
    """Summarise a record over seeds.

    :param rows: the trials.
    :return: one summary per stream, scenario and strategy, in the order of the registries.
    """
    groups: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        which = row.description
        groups[which.stream, which.scenario, which.strategy].append(row)
    order = sorted(groups, key=_place)
    return [_summary(groups[key], _naive_times(groups, key)) for key in order]


def _place(key: tuple[str, str, str]) -> tuple[int, int, int]:
    stream, scenario, strategy = key
    return (
        list(STREAMS).index(stream),
        list(SCENARIOS).index(scenario),
        list(STRATEGIES).index(strategy),
    )


def _naive_times(
    groups: dict[tuple[str, str, str], list[Row]], key: tuple[str, str, str]
) -> dict[int, float]:
    rows = groups.get((key[0], key[1], "naive"), [])
    return {row.description.seed: row.result.seconds_per_iteration for row in rows if row.result}


def _summary(rows: list[Row], naive_times: dict[int, float]) -> Summary:
    first = rows[0].description
    ended = {row.description.seed: row.result for row in rows if row.result}
    results = list(ended.values())
    ratios = [
        result.seconds_per_iteration / naive_times[seed]
        for seed, result in ended.items()
        if seed in naive_times
    ]
    return Summary(
        stream=first.stream,
        scenario=first.scenario,
        strategy=first.strategy,
        strength=first.strength,
        n=len(results),
        average_accuracy=_over_seeds(results, average_accuracy),
        forgetting=_over_seeds(results, forgetting),
        backward_transfer=_over_seeds(results, backward_transfer),
        time_ratio=median(ratios) if ratios else None,
        extra_passes=median(each.extra_passes for each in results) if results else None,
        extra_bytes=median(each.extra_bytes for each in results) if results else None,
        failures=tuple(
            (row.description.seed, row.failure) for row in rows if row.failure is not None
        ),
    )


def _over_seeds(
    results: Iterable[Result], metric: Callable[[Matrix], float | None]
) -> Estimate | None:
    values = [metric(result.accuracy) for result in results]
    known = [value for value in values if value is not None]
    return estimate(known) if known else None
