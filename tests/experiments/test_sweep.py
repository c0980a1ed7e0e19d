from pathlib import Path

import pytest

from experiments.records import Description, Place, Row
from experiments.sweep import run_trials
from tests.experiments.tiny import describe

TRIALS = [
    describe("naive"),
    describe("no-such-strategy"),
    describe("si", strength=10.0),
    describe("replay", seed=3),
]


def outcomes(rows: list[Row]) -> dict[Description, object]:
    return {row.description: row.result and row.result.accuracy for row in rows}


@pytest.fixture(scope="module")
def alone(data_root: Path) -> list[Row]:
    return list(run_trials(TRIALS, Place(str(data_root)), processes=1))


def test_a_failing_trial_is_a_row_and_the_others_go_on(alone: list[Row]) -> None:
    assert {row.description for row in alone} == set(TRIALS)
    failed = [row for row in alone if row.result is None]
    assert [row.description for row in failed] == [TRIALS[1]]
    assert failed[0].failure == "KeyError: 'no-such-strategy'"


def test_two_processes_give_what_one_gives(alone: list[Row], data_root: Path) -> None:
    together = list(run_trials(TRIALS, Place(str(data_root)), processes=2))
    assert outcomes(together) == outcomes(alone)


def test_every_row_names_the_versions_it_ran_on(alone: list[Row]) -> None:
    for row in alone:
        assert set(row.versions) == {"python", "torch", "avalanche-lib", "si-avalanche"}
        assert row.versions["avalanche-lib"].startswith("0.6")
