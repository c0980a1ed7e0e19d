"""What the rows of a record say, over seeds: accuracy, forgetting, transfer, cost, differences."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median
from typing import TypeAlias

from experiments.records import Data, Description, Matrix, Network, Result, Row, Training
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
    """One description, over seeds.

    :param description: what was run, with the seed 0 in place of each trial's own.
    :param n: trials that ended; the others are in ``failures``.
    :param forgetting: None if it was trained only once; so for backward transfer.
    :param seconds_per_iteration: time per training iteration; this and all costs below are the
        median over seeds, None if no trial ended.
    :param time_ratio: time per training iteration over Naive's of the same seed; None without
        Naive.
    :param extra_passes: passes over the data beyond the epochs.
    :param extra_bytes: state held beyond what Naive holds.
    :param seconds: wall time of a whole trial.
    :param failures: reason of each failed trial, by seed.
    :param to_naive: average accuracy less Naive's of the same seed; its ``n`` counts the seeds
        that both have. None for Naive itself and without Naive.
    :param to_best: average accuracy less the best other baseline's, likewise; None without one.
    :param best: the description of that baseline, with the seed 0.
    """

    description: Description
    n: int
    average_accuracy: Estimate | None
    forgetting: Estimate | None
    backward_transfer: Estimate | None
    seconds_per_iteration: float | None
    time_ratio: float | None
    extra_passes: float | None
    extra_bytes: float | None
    seconds: float | None
    failures: tuple[tuple[int, str], ...]
    to_naive: Estimate | None = None
    to_best: Estimate | None = None
    best: Description | None = None


def known(value: float | None) -> float:
    """Take a cost from a summary.

    :param value: that of trials of which at least one ended.
    :return: the value.
    """
    assert value is not None
    return value


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
    # It takes longer to import than to use, and a search waits for it only after its trials.
    from scipy import stats

    quantile = stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)
    return Estimate(fmean(values), float(quantile * stats.sem(values)), n)


def difference(a: Mapping[int, float], b: Mapping[int, float]) -> Estimate | None:
    """Estimate ``a - b``, paired by seed.

    :param a: values by seed.
    :param b: values by seed.
    :return: mean and Student interval of the differences over the seeds that both have, and their
        number ``n``, which is smaller than that of either if the seeds are not the same; None
        without a common seed.
    """
    pairs = [a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())]
    return estimate(pairs) if pairs else None


def accuracies(rows: Iterable[Row]) -> dict[int, float]:
    """Gather average accuracies by seed, for :func:`difference`.

    :param rows: the trials of one description; those that failed are left out.
    :return: average accuracy by seed.
    """
    return {
        row.description.seed: average_accuracy(row.result.accuracy) for row in rows if row.result
    }


def summarise(rows: Iterable[Row]) -> list[Summary]:
    """Summarise a record over seeds.

    :param rows: the trials.
    :return: one summary for each description less its seed, in the order of the registries.
    """
    groups = by_variant(rows)
    return [_compared(_summary(key, groups), groups) for key in groups]


_Groups: TypeAlias = dict[Description, list[Row]]


def by_variant(rows: Iterable[Row]) -> _Groups:
    """Put the trials together that differ by their seed alone.

    :param rows: the trials.
    :return: the trials of each description less its seed, in the order of the registries; what
        was measured on the same data stands together.
    """
    groups: _Groups = defaultdict(list)
    for row in rows:
        groups[replace(row.description, seed=0)].append(row)
    return {key: groups[key] for key in sorted(groups, key=_place)}


def _place(key: Description) -> tuple[int, int, str, int, str, float, str]:
    return (
        _index(key.data.stream, STREAMS),
        _index(key.data.scenario, SCENARIOS),
        repr(key.data),
        _index(key.strategy, STRATEGIES),
        key.strategy,
        -1.0 if key.strength is None else key.strength,
        repr(key),
    )


def _index(name: str, known: Mapping[str, object]) -> int:
    return list(known).index(name) if name in known else len(known)


def _question(key: Description) -> tuple[Data, Network, Training, str]:
    return key.data, key.network, key.training, key.device


def _rivals(key: Description, groups: _Groups) -> dict[Description, list[Row]]:
    return {
        other: rows
        for other, rows in groups.items()
        if other.strategy != key.strategy and _question(other) == _question(key)
    }


def _naive(key: Description, groups: _Groups) -> list[Row]:
    rivals = {key: groups[key], **_rivals(key, groups)}
    return next((rows for other, rows in rivals.items() if other.strategy == "naive"), [])


def _is_baseline(strategy: str) -> bool:
    # A record may name a strategy that this version has no more.
    return strategy not in STRATEGIES or STRATEGIES[strategy].baseline


def _compared(summary: Summary, groups: _Groups) -> Summary:
    key = summary.description
    own = accuracies(groups[key])
    to_best = {}
    for other, rows in _rivals(key, groups).items():
        scores = accuracies(rows)
        pairs = difference(own, scores) if _is_baseline(other.strategy) else None
        if pairs:
            to_best[other] = (pairs, fmean(scores.values()))
    # First by the seeds in common: a baseline must not win by failing where it is hard.
    best = max(to_best, key=lambda each: (to_best[each][0].n, to_best[each][1]), default=None)
    naive = accuracies(_naive(key, groups)) if key.strategy != "naive" else {}
    return replace(
        summary,
        to_naive=difference(own, naive),
        to_best=to_best[best][0] if best else None,
        best=best,
    )


def _summary(key: Description, groups: _Groups) -> Summary:
    rows = groups[key]
    ended = {row.description.seed: row.result for row in rows if row.result}
    results = list(ended.values())
    ratios = _time_ratios(ended, _naive(key, groups))
    return Summary(
        description=key,
        n=len(results),
        average_accuracy=over_seeds(results, average_accuracy),
        forgetting=over_seeds(results, forgetting),
        backward_transfer=over_seeds(results, backward_transfer),
        seconds_per_iteration=_median(each.seconds_per_iteration for each in results),
        time_ratio=_median(ratios),
        extra_passes=_median(each.extra_passes for each in results),
        extra_bytes=_median(each.extra_bytes for each in results),
        seconds=_median(each.seconds for each in results),
        failures=tuple(
            (row.description.seed, row.failure) for row in rows if row.failure is not None
        ),
    )


def _time_ratios(ended: Mapping[int, Result], naive: Iterable[Row]) -> list[float]:
    times = {row.description.seed: row.result.seconds_per_iteration for row in naive if row.result}
    return [
        result.seconds_per_iteration / times[seed]
        for seed, result in ended.items()
        # A clock that is too coarse says nothing.
        if times.get(seed)
    ]


def _median(values: Iterable[float]) -> float | None:
    known = list(values)
    return median(known) if known else None


def over_seeds(
    results: Iterable[Result], metric: Callable[[Matrix], float | None]
) -> Estimate | None:
    """Estimate a metric over seeds.

    :param results: one for each seed.
    :param metric: of an accuracy matrix; None where it says nothing.
    :return: the estimate over the values there are; None if there is none.
    """
    values = [metric(result.accuracy) for result in results]
    known = [value for value in values if value is not None]
    return estimate(known) if known else None
