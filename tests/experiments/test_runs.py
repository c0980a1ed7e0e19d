"""Runs into a folder: gone on with, killed, or two at once."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil
import pytest

from experiments.errors import ResultsError
from experiments.progress import run_and_record
from experiments.records import Place, Row
from experiments.results import RECORD, read_rows
from experiments.sweep import Engine
from experiments.worker import Trial
from tests.experiments import stubs

SEEDS = list(range(24))
HERE = Engine()
PROCESSES = Engine("joblib", workers=2)
DASK = Engine("dask", workers=2)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    (tmp_path / "notes").mkdir()
    return Place(log_folder=str(tmp_path / "notes"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "results"


def run(
    seeds: list[int], place: Place, engine: Engine, folder: Path, trial: Trial = stubs.steady
) -> list[Row]:
    return run_and_record([stubs.describe(each) for each in seeds], place, engine, folder, trial)


def run_all(place: Place, engine: Engine, folder: Path) -> None:
    assert seeds_of(run(SEEDS, place, engine, folder)) == SEEDS


def seeds_of(rows: list[Row]) -> list[int]:
    assert [row.result for row in rows] == [stubs.result(r.description.seed) for r in rows]
    return [row.description.seed for row in rows]


def start(place: Place, engine: Engine, folder: Path) -> BaseProcess:
    process = get_context("spawn").Process(target=run_all, args=(place, engine, folder))
    process.start()
    return process


def wait_until(true: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def recorded(folder: Path) -> int:
    record = folder / RECORD
    return len(record.read_bytes().splitlines()) if record.exists() else 0


def test_what_is_done_is_skipped_and_the_display_says_so(
    place: Place, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert seeds_of(run([0, 1], place, HERE, folder)) == [0, 1]
    assert "done before" not in capsys.readouterr().err
    assert seeds_of(run([1, 2, 0, 3], place, HERE, folder)) == [0, 1, 2, 3]
    told = capsys.readouterr()
    assert "4/4" in told.err
    assert "2 of 4 done before" in told.err
    assert told.out == ""
    assert stubs.starts(place) == [0, 1, 2, 3]


def test_rows_are_those_of_the_trials_asked_for(place: Place, folder: Path) -> None:
    run([0, 1, 2], place, HERE, folder)
    assert seeds_of(run([2, 1, 1], place, HERE, folder)) == [1, 2]


def test_a_trial_that_failed_is_tried_again(
    place: Place, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run([0, 1], place, HERE, folder, stubs.failing)
    assert [row.failure for row in first] == [None, "ValueError: a seed that fails"]
    assert "1 failed" in capsys.readouterr().err
    assert seeds_of(run([0, 1], place, HERE, folder)) == [0, 1]
    assert stubs.starts(place) == [0, 1]


def test_nothing_but_the_record_and_its_lock_stays_in_the_folder(
    place: Place, folder: Path
) -> None:
    run([0, 1], place, HERE, folder)
    assert {path.name for path in folder.iterdir()} == {RECORD, f".{RECORD}.lock"}


def test_a_record_that_cannot_be_read_is_refused_before_the_work(
    place: Place, folder: Path
) -> None:
    run([0], place, HERE, folder)
    with (folder / RECORD).open("a") as file:
        file.write("not a trial\n")
    with pytest.raises(ResultsError, match="line 2 is not a trial"):
        run([0, 1], place, HERE, folder)
    assert stubs.starts(place) == [0]


@pytest.mark.parametrize(
    "engine",
    [pytest.param(PROCESSES, id="joblib"), pytest.param(DASK, id="dask")],
)
def test_a_killed_run_loses_only_what_was_running(
    engine: Engine, place: Place, folder: Path
) -> None:
    process = start(place, engine, folder)
    wait_until(lambda: recorded(folder) >= 4)
    workers = psutil.Process(process.pid).children(recursive=True)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    done = seeds_of(read_rows(folder / RECORD))
    assert 4 <= len(done) < len(SEEDS)
    # No worker outlives what started it, whatever it was running.
    assert psutil.wait_procs(workers, timeout=20)[1] == []

    run_all(place, HERE, folder)
    started = stubs.starts(place)
    assert [seed for seed in done if started.count(seed) > 1] == []
    # What ran, and what had ended and was not yet written.
    assert len(started) - len(SEEDS) <= 2 * engine.workers


def test_an_interrupted_run_ends_its_workers_and_lets_go_of_its_trials(
    place: Place, folder: Path
) -> None:
    process = start(place, PROCESSES, folder)
    wait_until(lambda: recorded(folder) >= 2)
    workers = psutil.Process(process.pid).children(recursive=True)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)
    process.join(20)
    assert process.exitcode == 1
    assert psutil.wait_procs(workers, timeout=20)[1] == []
    assert list(folder.glob(".*.claim")) == []


def test_two_runs_into_one_folder_share_the_work(place: Place, folder: Path) -> None:
    runs = [start(place, PROCESSES, folder) for _ in range(2)]
    for each in runs:
        each.join(120)
    assert [each.exitcode for each in runs] == [0, 0]
    assert stubs.starts(place) == SEEDS
    assert recorded(folder) == len(SEEDS)
    assert list(folder.glob(".*.claim")) == []


def test_a_run_takes_over_from_one_that_was_killed_while_it_waited(
    place: Place, folder: Path
) -> None:
    slow = get_context("spawn").Process(
        target=run, args=([0, 1], place, HERE, folder, stubs.never_ending)
    )
    slow.start()
    wait_until(lambda: stubs.starts(place) == [0])
    other = get_context("spawn").Process(target=run, args=([0, 1], place, HERE, folder))
    other.start()
    wait_until(lambda: recorded(folder) == 1)
    assert other.is_alive()
    slow.kill()
    other.join(60)
    assert other.exitcode == 0
    assert seeds_of(read_rows(folder / RECORD)) == [0, 1]
