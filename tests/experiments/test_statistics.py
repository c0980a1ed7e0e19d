import math

import pytest

from experiments.records import Matrix, Result, Row
from experiments.statistics import (
    Estimate,
    average_accuracy,
    backward_transfer,
    estimate,
    forgetting,
    summarise,
)
from tests.experiments.tiny import describe

# After three experiences: the first fell from a later peak, the second rose.
MATRIX: Matrix = ((0.9, 0.1, 0.0), (1.0, 0.6, 0.2), (0.5, 0.7, 0.8))


def result(last: float, seconds: float = 1.0, passes: float = 0.0, size: int = 0) -> Result:
    return Result(((1.0, 0.5), (last, 1.0)), seconds, passes, size, 0.0, 0.0, 1.0)


def row(strategy: str, seed: int, outcome: Result | None, failure: str | None = None) -> Row:
    return Row(describe(strategy, seed=seed), outcome, failure, {})


def test_average_accuracy_is_the_mean_of_the_last_row() -> None:
    assert average_accuracy(MATRIX) == pytest.approx((0.5 + 0.7 + 0.8) / 3)


def test_forgetting_is_measured_from_the_best_earlier_accuracy() -> None:
    assert forgetting(MATRIX) == pytest.approx(((1.0 - 0.5) + (0.6 - 0.7)) / 2)


def test_backward_transfer_is_measured_from_the_accuracy_just_after_learning() -> None:
    assert backward_transfer(MATRIX) == pytest.approx(((0.5 - 0.9) + (0.7 - 0.6)) / 2)


def test_a_strategy_trained_once_has_no_forgetting_and_no_transfer() -> None:
    assert forgetting(((0.9, 0.8),)) is None
    assert backward_transfer(((0.9, 0.8),)) is None


def test_the_interval_is_students() -> None:
    # t(0.975, 2 degrees of freedom) = 4.30265 from any table; the standard deviation is 1.
    found = estimate([1.0, 2.0, 3.0])
    assert found.mean == pytest.approx(2.0)
    assert found.half_width == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert found.n == 3


def test_a_single_value_has_no_interval() -> None:
    assert estimate([0.25]) == Estimate(0.25, None, 1)


def test_time_is_compared_with_naive_of_the_same_seed() -> None:
    # Seed by seed the ratios are 2, 1 and 4; over the median of Naive they would be 1, 1 and 8.
    rows = [row("naive", s, result(1.0, t)) for s, t in enumerate((1.0, 2.0, 4.0))]
    rows += [row("si", s, result(1.0, t)) for s, t in enumerate((2.0, 2.0, 16.0))]
    naive, si = summarise(rows)
    assert naive.time_ratio == 1.0
    assert si.time_ratio == 2.0


def test_without_naive_there_is_no_ratio() -> None:
    assert summarise([row("si", 0, result(1.0))])[0].time_ratio is None


def test_failed_trials_are_counted_apart() -> None:
    rows = [
        row("si", 0, result(0.5)),
        row("si", 1, None, "ValueError: no"),
        row("si", 2, result(0.7)),
    ]
    (summary,) = summarise(rows)
    assert summary.n == 2
    assert summary.average_accuracy is not None
    assert summary.average_accuracy.n == 2
    assert summary.average_accuracy.mean == pytest.approx(0.8)
    assert summary.failures == ((1, "ValueError: no"),)


def test_a_strategy_that_always_failed_still_has_a_summary() -> None:
    (summary,) = summarise([row("rwalk", 0, None, "KeyError: 'x'")])
    assert summary.n == 0
    assert summary.average_accuracy is None


def test_summaries_come_in_the_order_of_the_registry() -> None:
    rows = [row(name, 0, result(1.0)) for name in ("joint", "si", "naive")]
    assert [summary.strategy for summary in summarise(rows)] == ["naive", "si", "joint"]
