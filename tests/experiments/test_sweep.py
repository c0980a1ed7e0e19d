from __future__ import annotations

from collections.abc import Iterator
from multiprocessing import get_context
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from experiments import sweep, worker
from experiments.errors import BadValueError, EngineError, UnknownNameError
from experiments.records import Description, Place, Row
from experiments.sweep import Engine, run_trials
from experiments.worker import gpu_of, run_row
from tests.experiments import stubs, tiny

SEEDS = range(6)
HERE = Engine()
PROCESSES = Engine("joblib", workers=2)
DASK = Engine("dask", workers=2)
ENGINES = [
    pytest.param(HERE, id="this process"),
    pytest.param(PROCESSES, id="joblib"),
    pytest.param(DASK, id="dask"),
]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    (tmp_path / "notes").mkdir()
    return Place(log_folder=str(tmp_path / "notes"))


def outcomes(rows: list[Row]) -> dict[Description, object]:
    return {row.description: row.result and row.result.accuracy for row in rows}


@pytest.mark.parametrize("engine", ENGINES)
def test_a_failing_trial_is_a_row_and_the_others_go_on(engine: Engine, place: Place) -> None:
    trials = [stubs.describe(seed) for seed in SEEDS]
    rows = {row.description.seed: row for row in run_trials(trials, place, engine, stubs.failing)}
    assert sorted(rows) == list(SEEDS)
    assert rows.pop(1).failure == "ValueError: a seed that fails"
    assert "measured a number that is not finite" in str(rows.pop(2).failure)
    assert {seed: row.result for seed, row in rows.items()} == {
        seed: stubs.result(seed) for seed in SEEDS if seed not in (1, 2)
    }


def test_a_process_that_dies_costs_the_trial_that_it_ran_alone(place: Place) -> None:
    trials = [stubs.describe(seed) for seed in SEEDS]
    rows = list(run_trials(trials, place, PROCESSES, stubs.deadly))
    (failed,) = (row for row in rows if row.result is None)
    assert failed.description.seed == 1
    assert "terminated" in str(failed.failure)
    assert sorted(row.description.seed for row in rows) == list(SEEDS)
    assert stubs.starts(place) == [seed for seed in SEEDS if seed != 1]


def test_dask_gives_the_trial_of_a_worker_that_died_to_another(place: Place) -> None:
    trials = [stubs.describe(seed) for seed in SEEDS]
    rows = list(run_trials(trials, place, DASK, stubs.deadly_once))
    assert outcomes(rows) == {each: stubs.result(each.seed).accuracy for each in trials}


def test_dask_gives_up_a_trial_that_kills_its_workers(place: Place) -> None:
    import dask

    trials = [stubs.describe(seed) for seed in (0, 1, 2)]
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}):
        rows = {r.description.seed: r for r in run_trials(trials, place, DASK, stubs.deadly)}
    assert str(rows[1].failure).startswith("KilledWorker")
    assert [rows[seed].result for seed in (0, 2)] == [stubs.result(seed) for seed in (0, 2)]


@pytest.mark.parametrize("engine", ENGINES)
def test_trials_are_taken_only_when_a_worker_is_or_will_be_free(
    engine: Engine, place: Place
) -> None:
    taken = []

    def one_by_one() -> Iterator[Description]:
        for seed in range(9):
            taken.append(seed)
            yield stubs.describe(seed)

    rows = run_trials(one_by_one(), place, engine, stubs.steady)
    next(rows)
    assert len(taken) <= 1 + 2 * engine.workers
    assert len(list(rows)) == 8


def test_a_scheduler_elsewhere_is_used_by_its_address(place: Place) -> None:
    from dask.distributed import LocalCluster

    trials = [stubs.describe(seed) for seed in SEEDS]
    with LocalCluster(n_workers=1, threads_per_worker=3, dashboard_address=None) as cluster:
        engine = Engine("dask", address=cluster.scheduler_address)
        rows = list(run_trials(trials, place, engine, stubs.alone))
    assert [row.failure for row in rows] == [None] * len(SEEDS)


def test_no_scheduler_at_the_address_is_an_error_that_says_how_to_start_one(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "_SECONDS_TO_CONNECT", 0.5)
    for address in ("tcp://127.0.0.1:1", "nonsense://"):
        engine = Engine("dask", address=address)
        with pytest.raises(EngineError, match=f"no Dask scheduler at '{address}'.*dask scheduler"):
            list(run_trials([stubs.describe(0)], place, engine, stubs.steady))


@pytest.mark.parametrize("engine", ENGINES)
def test_no_trials_are_no_rows(engine: Engine, place: Place) -> None:
    assert list(run_trials([], place, engine, stubs.steady)) == []


@pytest.mark.parametrize("engine", ENGINES[:2])
def test_an_error_in_the_list_of_trials_reaches_who_asked(engine: Engine, place: Place) -> None:
    def broken() -> Iterator[Description]:
        yield from (stubs.describe(seed) for seed in range(5))
        raise EngineError("no more")

    with pytest.raises(EngineError, match="no more"):
        list(run_trials(broken(), place, engine, stubs.steady))


def test_an_engine_that_cannot_be_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="unknown engine 'dsak'; the nearest name is 'dask'"):
        Engine("dsak")
    with pytest.raises(
        BadValueError, match=r"'tcp://host:8786' is Dask's and the engine is joblib"
    ):
        Engine("joblib", address="tcp://host:8786")
    with pytest.raises(BadValueError, match="number of workers is 0"):
        Engine("dask", workers=0)
    with pytest.raises(BadValueError, match="number of threads is -1"):
        Engine(threads=-1)


def test_a_trial_has_the_threads_that_were_asked_for_and_its_row_tells(place: Place) -> None:
    import torch

    before = torch.get_num_threads()
    row = run_row(stubs.describe(0), place, 3, stubs.threads_as_accuracy)
    assert row.result is not None
    assert row.result.accuracy == ((3.0,),)
    assert row.versions["threads"] == "3"
    assert torch.get_num_threads() == before


def test_gpus_are_dealt_in_turn() -> None:
    assert [gpu_of(number, 3) for number in range(5)] == [
        "cuda:0",
        "cuda:1",
        "cuda:2",
        "cuda:0",
        "cuda:1",
    ]
    assert gpu_of(7, 1) == "cuda:0"


def own_number(numbers: SimpleQueue[int], stay: Event) -> None:
    numbers.put(worker._worker_number())
    stay.wait(30)


def test_processes_of_a_machine_have_numbers_of_their_own() -> None:
    spawn = get_context("spawn")
    numbers: SimpleQueue[int] = spawn.SimpleQueue()
    stay = spawn.Event()
    processes = [spawn.Process(target=own_number, args=(numbers, stay)) for _ in range(2)]
    for process in processes:
        process.start()
    mine = worker._worker_number()
    found = {mine, numbers.get(), numbers.get()}
    stay.set()
    for process in processes:
        process.join()
    assert len(found) == 3
    assert worker._worker_number() == mine


@pytest.mark.parametrize(
    ("device", "gpus", "chosen"),
    [("cuda", 4, ["cuda:2"]), ("cuda", 1, []), ("cuda:1", 4, []), ("cpu", 4, [])],
)
def test_a_worker_takes_its_own_gpu_only_where_there_is_a_choice(
    device: str,
    gpus: int,
    chosen: list[str],
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken: list[str] = []
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    # Lightning lets PyTorch judge by that count whether there is one at all.
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.cuda.set_device", taken.append)
    monkeypatch.setattr(worker, "_worker_number", lambda: 6)
    description = stubs.describe(0, device=device)
    row = run_row(description, place, 1, stubs.steady)
    assert taken == chosen
    assert row.description == description


REAL = [
    tiny.describe("naive"),
    tiny.describe("no-such-strategy"),
    tiny.describe("si", strength=10.0),
    tiny.describe("replay", seed=3),
]


def test_every_engine_measures_what_one_process_alone_does(data_root: Path) -> None:
    place = Place(str(data_root))
    alone = list(run_trials(REAL, place, HERE))
    assert {row.description for row in alone} == set(REAL)
    (failed,) = (row for row in alone if row.result is None)
    assert failed.failure == "KeyError: 'no-such-strategy'"
    for engine in (PROCESSES, Engine("dask", workers=1)):
        assert outcomes(list(run_trials(REAL, place, engine))) == outcomes(alone)
