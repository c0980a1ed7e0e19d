from experiments.records import Choice, Result, Row
from experiments.strategies import STRATEGIES, with_strength
from experiments.tune import best, plan
from tests.experiments.tiny import describe

CHOICE = Choice(
    streams=("digits",),
    scenarios=("task", "class"),
    strategies=tuple(with_strength()),
    seeds=(100, 101, 102),
    epochs=None,
    device="cpu",
    evaluation="validation",
)


def row(strength: float, accuracy: float, seed: int = 0) -> Row:
    outcome = Result(((accuracy,),), 0.0, 0.0, 0, 0.0, 0.0, 0.0)
    return Row(describe("si", strength=strength, seed=seed), outcome, None, {})


def test_every_method_is_tried_at_its_whole_grid_on_validation_data() -> None:
    trials = plan(CHOICE)
    assert len(trials) == len(set(trials)) == 2 * 3 * 7 * 7
    assert {trial.evaluation for trial in trials} == {"validation"}
    assert {trial.epochs for trial in trials} == {15}
    for method in with_strength():
        tried = {trial.strength for trial in trials if trial.strategy == method}
        assert tried == set(STRATEGIES[method].grid)


def test_the_best_mean_over_seeds_is_chosen() -> None:
    rows = [row(1, 0.9), row(1, 0.1, 1), row(2, 0.6), row(2, 0.6, 1), row(3, 0.5), row(3, 0.5, 1)]
    found = best(rows)
    assert (found.strength, found.accuracy) == (2, 0.6)
    assert not found.at_edge


def test_a_tie_goes_to_the_middle_and_a_flat_grid_is_told() -> None:
    found = best([row(strength, 0.5) for strength in (1, 2, 3, 4, 5)])
    assert found.strength == 3
    assert found.flat


def test_the_edge_of_the_grid_is_told() -> None:
    assert best([row(1, 0.5), row(2, 0.6)]).at_edge


def test_a_strength_that_fails_on_a_seed_does_not_win_by_its_other_seeds() -> None:
    failed = Row(describe("si", strength=1, seed=1), None, "ValueError: x", {})
    found = best([row(1, 0.9), failed, row(2, 0.6), row(2, 0.6, 1)])
    assert found.strength == 2
