import math
from dataclasses import replace

import pytest

from experiments.records import Matrix, Option, Options, Result, Row, options
from experiments.statistics import (
    Estimate,
    Summary,
    average_accuracy,
    backward_transfer,
    difference,
    estimate,
    forgetting,
    summarise,
)
from tests.experiments.invented import describe, result
from tests.experiments.made_up import on_experiences

# After three experiences: the first fell from a later peak, the second rose.
MATRIX: Matrix = ((0.9, 0.1, 0.0), (1.0, 0.6, 0.2), (0.5, 0.7, 0.8))


def row(
    strategy: str,
    seed: int,
    outcome: Result | None,
    failure: str | None = None,
    settings: Options = (),
) -> Row:
    trial = replace(describe(strategy, seed=seed), options=settings)
    return Row(trial, outcome, failure, {})


def scored(strategy: str, *scores: float, **changes: Option) -> list[Row]:
    """One row per seed from 0, each of one accuracy."""
    return [
        row(strategy, seed, result(each), settings=options(**changes))
        for seed, each in enumerate(scores)
    ]


def failed(strategy: str, seed: int, reason: str = "ValueError: no") -> Row:
    return row(strategy, seed, None, reason)


def summary_of(strategy: str, rows: list[Row]) -> Summary:
    (found,) = (each for each in summarise(rows) if each.description.strategy == strategy)
    return found


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


def test_a_difference_is_paired_by_seed() -> None:
    # Far apart from seed to seed, and always by 1, 2, 3 between the two.
    found = difference({0: 1.0, 1: 12.0, 2: 103.0}, {2: 100.0, 1: 10.0, 0: 0.0})
    assert found is not None
    assert found.mean == pytest.approx(2.0)
    assert found.half_width == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert found.n == 3


def test_seeds_of_only_one_side_are_left_out_and_n_says_so() -> None:
    assert difference({0: 0.5, 1: 0.9}, {1: 0.75, 2: 0.1}) == Estimate(0.9 - 0.75, None, 1)
    assert difference({0: 0.5}, {1: 0.5}) is None


def test_equal_differences_have_an_interval_of_no_width() -> None:
    assert difference({0: 0.5, 1: 1.0}, {0: 0.25, 1: 0.75}) == Estimate(0.25, 0.0, 2)


def test_every_method_is_compared_with_naive_of_the_same_seeds() -> None:
    rows = [*scored("naive", 0.25, 0.5), *scored("ewc", 0.5, 0.75, 0.1), *scored("si", 0.75)]
    assert summary_of("ewc", rows).to_naive == Estimate(0.25, 0.0, 2)
    assert summary_of("si", rows).to_naive == Estimate(0.5, None, 1)
    assert summary_of("naive", rows).to_naive is None


def test_the_best_baseline_is_neither_si_nor_a_method_that_keeps_all_data() -> None:
    rows = [
        *scored("naive", 0.2),
        *scored("si", 0.75),
        *scored("ewc", 0.5),
        *scored("lwf", 0.4),
        *scored("cumulative", 0.95),
        *scored("joint", 1.0),
    ]
    found = {each.description.strategy: each.best for each in summarise(rows)}
    assert {name: best.strategy for name, best in found.items() if best} == {
        "naive": "ewc",
        "si": "ewc",
        "ewc": "lwf",
        "lwf": "ewc",
        "cumulative": "ewc",
        "joint": "ewc",
    }
    assert summary_of("si", rows).to_best == Estimate(0.25, None, 1)
    assert summary_of("joint", rows).to_best == Estimate(0.5, None, 1)


def test_a_baseline_that_failed_on_a_seed_is_not_the_best_by_its_other_seeds() -> None:
    rows = [*scored("si", 0.5, 0.5), *scored("ewc", 0.4, 0.4), *scored("mas", 0.9)]
    rows.append(failed("mas", 1))
    best = summary_of("si", rows).best
    assert best is not None
    assert best.strategy == "ewc"


def test_a_baseline_on_another_network_is_no_baseline() -> None:
    other = row("ewc", 0, result(0.9))
    wide = replace(other.description.network, hidden=(99,))
    other = replace(other, description=replace(other.description, network=wide))
    assert summary_of("si", [*scored("si", 0.5), other]).to_best is None


def test_variants_of_a_method_are_told_apart() -> None:
    rows = scored("si", 0.5, 0.7, xi=0.1) + scored("si", 0.9, xi=0.001)
    found = {dict(each.description.options)["xi"]: each for each in summarise(rows)}
    assert found[0.1].n == 2
    assert found[0.001].average_accuracy == Estimate(0.9, None, 1)


def test_a_baseline_is_not_compared_with_a_variant_of_itself() -> None:
    rows = [*scored("ewc", 0.5, mode="a"), *scored("ewc", 0.9, mode="b"), *scored("lwf", 0.25)]
    best = [each.best for each in summarise(rows) if each.description.strategy == "ewc"]
    assert [each.strategy for each in best if each] == ["lwf", "lwf"]


def test_time_is_compared_with_naive_of_the_same_seed() -> None:
    # Seed by seed the ratios are 2, 1 and 4; over the median of Naive they would be 1, 1 and 8.
    rows = [row("naive", s, result(1.0, seconds=t)) for s, t in enumerate((1.0, 2.0, 4.0))]
    rows += [row("si", s, result(1.0, seconds=t)) for s, t in enumerate((2.0, 2.0, 16.0))]
    naive, si = summarise(rows)
    assert naive.time_ratio == 1.0
    assert si.time_ratio == 2.0


def test_without_naive_there_is_no_ratio() -> None:
    assert summarise([row("si", 0, result(1.0))])[0].time_ratio is None


def test_a_naive_whose_time_was_too_short_to_measure_gives_no_ratio() -> None:
    rows = [row("naive", s, result(1.0, seconds=t)) for s, t in enumerate((0.0, 2.0))]
    rows += [row("si", s, result(1.0, seconds=3.0)) for s in range(2)]
    assert summary_of("si", rows).time_ratio == 1.5
    assert summary_of("si", [rows[0], *rows[2:]]).time_ratio is None


def test_which_of_two_naives_counts_does_not_depend_on_which_ended_first() -> None:
    a, b, si = scored("naive", 0.25, mode="a"), scored("naive", 0.5, mode="b"), scored("si", 0.75)
    found = summarise([*a, *b, *si])
    assert found == summarise([*b, *a, *si])
    assert [each.to_naive for each in found] == [None, None, Estimate(0.5, None, 1)]
    assert [each.time_ratio for each in found] == [1.0, 1.0, 1.0]


def test_which_of_two_equal_baselines_is_the_best_does_not_depend_on_which_ended_first() -> None:
    ewc, lwf, si = scored("ewc", 0.5), scored("lwf", 0.5), scored("si", 0.75)
    assert summarise([*ewc, *lwf, *si]) == summarise([*lwf, *ewc, *si])


def test_a_trial_that_was_repeated_counts_once_at_its_last_end() -> None:
    rows = [*scored("si", 0.25), *scored("si", 0.5), failed("si", 0), *scored("naive", 0.25)]
    found = summary_of("si", rows)
    assert (found.n, found.average_accuracy) == (1, Estimate(0.5, None, 1))
    assert found.to_naive == Estimate(0.25, None, 1)


def test_costs_are_medians_over_seeds() -> None:
    outcomes = [
        Result(((1.0,),), t, passes, size, 0.0, 0.0, wall)
        for t, passes, size, wall in ((1, 0, 10, 5), (9, 3, 30, 7), (2, 1, 20, 99))
    ]
    found = summary_of("si", [row("si", seed, each) for seed, each in enumerate(outcomes)])
    assert (found.seconds_per_iteration, found.extra_passes) == (2, 1)
    assert (found.extra_bytes, found.seconds) == (20, 7)


def test_failed_trials_are_counted_apart() -> None:
    rows = [
        row("si", 0, result(0.5)),
        failed("si", 1),
        row("si", 2, result(0.7)),
    ]
    (summary,) = summarise(rows)
    assert summary.n == 2
    assert summary.average_accuracy is not None
    assert summary.average_accuracy.n == 2
    assert summary.average_accuracy.mean == pytest.approx(0.6)
    assert summary.failures == ((1, "ValueError: no"),)


def test_a_strategy_that_always_failed_still_has_a_summary() -> None:
    (summary,) = summarise([failed("rwalk", 0)])
    assert summary.n == 0
    assert summary.average_accuracy is None


def test_summaries_come_in_the_order_of_the_registry() -> None:
    rows = [row(name, 0, result(1.0)) for name in ("joint", "si", "naive")]
    assert [summary.description.strategy for summary in summarise(rows)] == ["naive", "si", "joint"]


def test_what_was_measured_on_the_same_data_stands_together() -> None:
    rows = [
        replace(each, description=on_experiences(each.description, count))
        for name in ("naive", "si")
        for count in (2, 3)
        for each in scored(name, 0.5)
    ]
    order = [each.description for each in summarise(rows)]
    assert [(each.data.experiences, each.strategy) for each in order] == [
        *((2, "naive"), (2, "si")),
        *((3, "naive"), (3, "si")),
    ]


def test_variants_of_a_strategy_that_is_no_more_stand_together_by_strength() -> None:
    trials = [
        replace(describe(name), strength=strength)
        for strength in (2.0, None, 0.0)
        for name in ("old", "older")
    ]
    order = [each.description for each in summarise([Row(t, None, "no", {}) for t in trials])]
    assert [(each.strategy, each.strength) for each in order] == [
        *(("old", None), ("old", 0.0), ("old", 2.0)),
        *(("older", None), ("older", 0.0), ("older", 2.0)),
    ]
