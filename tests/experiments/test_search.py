import math

import pytest

from experiments.errors import BadValueError
from experiments.records import Description
from experiments.search import BEYOND, Found, Target, Tried, search
from experiments.statistics import Estimate
from tests.experiments.invented import Machine, describe

SEEDS = (100, 101, 102)
LOW, HIGH = 1e-2, 1e6


def target(strategy: str = "si") -> Target:
    return Target(
        LOW, HIGH, lambda strength, seed: describe(strategy, strength=strength, seed=seed)
    )


def peak(description: Description) -> float:
    """Best at 10 ** 3.3, in no seed alike."""
    assert description.strength is not None
    distance = math.log10(description.strength) - 3.3
    return 0.9 - 0.05 * distance**2 + 0.001 * (description.seed - 101)


def tried(strength: float, accuracy: float | None) -> Tried:
    if accuracy is None:
        return Tried(strength, None, "ValueError: x")
    return Tried(strength, Estimate(accuracy, None, 1))


def found(*accuracies: float | None) -> Found:
    return Found(tuple(tried(float(place), each) for place, each in enumerate(accuracies)))


def test_a_peak_between_the_first_strengths_is_found() -> None:
    best = search({"a": target()}, SEEDS, 12, Machine(peak))["a"].best
    assert best is not None
    assert abs(math.log10(best.strength) - 3.3) < 0.2
    assert best.accuracy is not None
    assert best.accuracy.n == 3
    assert best.accuracy.mean == pytest.approx(0.9, abs=0.002)


def test_every_method_has_the_same_budget_over_its_whole_range_and_all_seeds() -> None:
    machine = Machine(peak)
    outcome = search({name: target(name) for name in ("si", "ewc")}, SEEDS, 7, machine)
    for name in ("si", "ewc"):
        strengths = [each.strength for each in outcome[name].tried]
        assert len(strengths) == 7
        assert (strengths[0], strengths[-1]) == (LOW, HIGH)
        asked = [(each.strength, each.seed) for each in machine.ran if each.strategy == name]
        assert sorted(asked) == sorted((s, seed) for s in strengths for seed in SEEDS)


@pytest.mark.parametrize("place", [-3.6, 7.8])
def test_a_peak_beyond_an_end_of_the_range_is_found(place: float) -> None:
    def surface(description: Description) -> float:
        assert description.strength is not None
        return 0.9 - 0.05 * abs(math.log10(description.strength) - place)

    outcome = search({"a": target()}, SEEDS, 10, Machine(surface))["a"]
    assert outcome.best is not None
    assert abs(math.log10(outcome.best.strength) - place) < 0.5
    assert not outcome.at_edge
    assert outcome.tried[0].strength >= LOW / BEYOND
    assert outcome.tried[-1].strength <= HIGH * BEYOND


def test_a_peak_within_the_range_keeps_the_search_there() -> None:
    tried = search({"a": target()}, SEEDS, 12, Machine(peak))["a"].tried
    assert (tried[0].strength, tried[-1].strength) == (LOW, HIGH)


def test_the_choice_does_not_depend_on_the_order_in_which_trials_end() -> None:
    forwards = search({"a": target()}, SEEDS, 9, Machine(peak))
    assert search({"a": target()}, SEEDS, 9, Machine(peak, backwards=True)) == forwards


def test_a_search_that_was_cut_off_goes_on_where_it_stopped() -> None:
    whole = Machine(peak)
    expected = search({"a": target()}, SEEDS, 9, whole)
    machine = Machine(peak, dies_after=2)
    with pytest.raises(KeyboardInterrupt):
        search({"a": target()}, SEEDS, 9, machine)
    assert 0 < len(machine.ran) < len(whole.ran)
    machine.calls_left = None
    assert search({"a": target()}, SEEDS, 9, machine) == expected
    assert machine.ran == whole.ran


def test_a_strength_that_fails_on_a_seed_counts_as_zero_and_says_why() -> None:
    def surface(description: Description) -> float:
        if description.strength == HIGH and description.seed == 101:
            raise ValueError("too strong")
        return 0.9 if description.strength == HIGH else 0.5

    outcome = search({"a": target()}, SEEDS, 3, Machine(surface))["a"]
    assert outcome.best != outcome.tried[-1]
    assert outcome.tried[-1].failure == "ValueError: too strong"
    assert outcome.tried[-1].score == 0.0


def test_a_method_that_always_fails_has_no_best_strength() -> None:
    def surface(_description: Description) -> float:
        raise ValueError("never")

    outcome = search({"a": target()}, SEEDS, 4, Machine(surface))["a"]
    assert outcome.best is None
    assert not outcome.flat
    assert not outcome.at_edge


def test_a_search_with_too_few_strengths_is_refused() -> None:
    with pytest.raises(BadValueError, match=r"2 strengths.*at least 3"):
        search({"a": target()}, SEEDS, 2, Machine(peak))


def test_a_tie_goes_to_the_middle_and_a_flat_range_is_told() -> None:
    flat = found(0.5, 0.5, 0.5, 0.5, 0.5)
    assert flat.best == flat.tried[2]
    assert flat.flat
    assert not flat.at_edge
    assert not found(0.5, 0.6, 0.5).flat


def test_strengths_that_fail_are_no_part_of_a_flat_range() -> None:
    assert not found(0.5, 0.5, None).flat


@pytest.mark.parametrize("accuracies", [(0.9, 0.6, 0.5), (0.5, 0.6, 0.9)])
def test_the_edge_of_the_range_is_told(accuracies: tuple[float, ...]) -> None:
    assert found(*accuracies).at_edge
    assert not found(0.5, 0.9, 0.6).at_edge
