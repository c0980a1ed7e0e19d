import csv
from dataclasses import replace
from pathlib import Path

import pytest

from experiments.cli import main
from experiments.protocols import PROTOCOLS, Protocol, Run, read_protocol, shortened
from experiments.records import Result, Row
from experiments.reproduce.figures import draw
from experiments.reproduce.outcomes import Outcome, lines, outcome
from experiments.reproduce.telling import tell
from experiments.strategies import STRATEGIES
from experiments.streams import STREAMS

PROTOCOL = read_protocol("zenke2017-split-mnist")
C0, C1 = PROTOCOL.runs


def row(last: list[float], seed: int, run: Run = C1) -> Row:
    matrix = tuple(tuple(1.0 if i >= t else last[i] for i in range(5)) for t in range(4))
    result = Result((*matrix, tuple(last)), 1e-3, 0.0, 0, 0.0, 0.0, 1.0)
    return Row(replace(run.description, seed=seed), result, None, {})


def ten(run: Run = C1, spread: float = 0.01) -> Outcome:
    rows = [
        row([value + spread * (-1) ** seed for value in run.published.tasks], seed, run)
        for seed in range(10)
    ]
    return outcome(PROTOCOL, run, rows)


def test_an_interval_that_holds_the_published_figure_says_so() -> None:
    told = lines(ten())
    assert [line.what for line in told] == [*(f"task {t}" for t in range(1, 6)), "mean"]
    assert all(line.holds is True for line in told[:5])
    assert [line.published for line in told] == [*C1.published.tasks, C1.published.mean]
    assert all(line.measured.n == 10 for line in told)


def test_an_interval_beside_the_published_figure_says_so() -> None:
    rows = [row([0.9 + 0.001 * seed] * 5, seed) for seed in range(10)]
    assert all(line.holds is False for line in lines(outcome(PROTOCOL, C1, rows)))


def test_fewer_seeds_are_reduced_and_not_compared() -> None:
    rows = [row(list(C1.published.tasks), seed) for seed in range(9)]
    found = outcome(PROTOCOL, C1, rows)
    assert found.reduced == "9 of 10 seeds"
    for line in lines(found):
        assert (line.published, line.holds) == (None, None)


@pytest.mark.parametrize("epochs", [2, 11])
def test_another_number_of_epochs_is_reduced_and_not_compared(epochs: int) -> None:
    run = shortened(C1, epochs, None)
    rows = [row(list(C1.published.tasks), seed, run) for seed in range(10)]
    found = outcome(PROTOCOL, run, rows)
    assert found.reduced == f"{epochs} of 10 epochs"
    assert all(line.published is None for line in lines(found))


def test_failed_seeds_count_as_missing_and_are_told() -> None:
    rows = [row(list(C1.published.tasks), seed) for seed in range(9)]
    rows.append(Row(replace(C1.description, seed=9), None, "RuntimeError: broken", {}))
    found = outcome(PROTOCOL, C1, rows)
    assert (found.n, found.reduced, found.failures) == (
        9,
        "9 of 10 seeds",
        ("RuntimeError: broken",),
    )


def test_one_published_seed_has_no_interval_and_no_verdict() -> None:
    protocol = read_protocol("zenke2017-permuted-mnist")
    run = protocol.runs[1]
    matrix = tuple(tuple(0.97 for _ in range(10)) for _ in range(10))
    only = Row(run.description, Result(matrix, 0, 0, 0, 0, 0, 0), None, {})
    found = outcome(protocol, run, [only])
    assert found.reduced == ""
    assert {line.holds for line in lines(found)} == {None}
    assert lines(found)[-1].published == 0.9694


def test_from_scratch_each_task_counts_right_after_its_own_training() -> None:
    protocol = read_protocol("zenke2017-split-cifar")
    scratch = next(run for run in protocol.runs if run.name == "scratch")
    matrix = tuple(tuple(0.8 if i == t else 0.1 for i in range(6)) for t in range(6))
    rows = [
        Row(replace(scratch.description, seed=s), Result(matrix, 0, 0, 0, 0, 0, 0), None, {})
        for s in range(5)
    ]
    found = outcome(protocol, scratch, rows)
    assert [estimate.mean for estimate in found.tasks] == [0.8] * 6
    assert found.mean is not None
    assert found.mean.mean == pytest.approx(0.8)


def rows_of(protocol: Protocol, run: Run) -> list[Row]:
    tasks = 10 if "permuted" in protocol.name else 6 if "cifar" in protocol.name else 5
    matrix = tuple(tuple(0.7 + 0.02 * t for _ in range(tasks)) for t in range(tasks))
    return [
        Row(replace(run.description, seed=s), Result(matrix, 0, 0, 0, 0, 0, 0), None, {})
        for s in range(protocol.seeds)
    ]


def flat(protocol: Protocol) -> list[Outcome]:
    return [outcome(protocol, run, rows_of(protocol, run)) for run in protocol.runs]


@pytest.mark.parametrize(
    "name",
    [
        "zenke2017-split-mnist",
        "zenke2017-permuted-mnist",
        "zenke2017-split-cifar",
        "vandeven2019-split-mnist",
    ],
)
def test_every_form_of_figure_is_drawn(name: str, tmp_path: Path) -> None:
    protocol = read_protocol(name)
    path = draw(protocol, flat(protocol), tmp_path / "figure.png")
    assert path.read_bytes().startswith(b"\x89PNG")


ASKED = ["reproduce", "zenke2017-split-mnist", "--epochs", "1", "--seeds", "0", "1"]


def test_a_reduced_reproduction_runs_tells_and_goes_on(
    tmp_path: Path, data_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "results"
    place = ["--processes", "1", "--data-root", str(data_root), "--results", str(folder)]
    assert main([*ASKED, "--only", "c1", *place]) == 0
    first = capsys.readouterr().out
    assert "Reduced, 1 of 10 epochs, 2 of 10 seeds, and not compared: all runs." in first
    assert {path.name for path in folder.iterdir() if not path.name.startswith(".")} >= {
        "trials.jsonl",
        "published.csv",
        "zenke2017-split-mnist.png",
        "report.html",
    }
    with (folder / "published.csv").open(newline="") as file:
        told = list(csv.DictReader(file))
    assert len(told) == 6
    assert {line["published"] for line in told} == {""}
    assert {line["n"] for line in told} == {"2"}

    assert main([*ASKED, *place]) == 0
    assert len((folder / "trials.jsonl").read_text().splitlines()) == 4
    second = capsys.readouterr().out
    assert "c = 0" in second
    assert "SI, c = 1" in second


def test_what_is_reduced_is_told_once_with_its_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    protocol = read_protocol("hsu2018-split-mnist")
    few = ("task-si", "class-si")
    outcomes = [
        outcome(protocol, each.run, rows_of(protocol, each.run)[:3])
        if each.run.name in few
        else each
        for each in flat(protocol)
    ]
    tell(protocol, outcomes, rows_of(protocol, protocol.runs[0]), tmp_path)
    told = " ".join(capsys.readouterr().out.split())
    assert "Reduced, 3 of 10 seeds, and not compared: SI, task; SI, class." in told
    assert told.count("Reduced") == 1


def test_missing_files_are_told_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ["--data-root", str(tmp_path), "--results", str(tmp_path / "results")]
    assert main([*ASKED, *place]) == 2
    assert "train-images-idx3-ubyte" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_the_list_names_experiments_streams_and_strategies_unbroken(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["list"]) == 0
    told = capsys.readouterr().out.split()
    for name in (*PROTOCOLS, *STREAMS, *STRATEGIES):
        assert name in told
