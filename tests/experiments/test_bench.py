"""What the bench keeps, tells and draws, and what can be asked of it."""

import platform
from collections.abc import Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest
import torch

from experiments.bench import PARTS, run
from experiments.bench.methods import METHODS, OURS, PLAIN, PLAIN_FUSED
from experiments.bench.pictures import draw_all
from experiments.bench.rows import CSV, Row, read_rows, write_rows
from experiments.bench.telling import conditions, markdown, sheets
from experiments.bench.timing import Spread
from experiments.bench.workloads import Extent, Workload
from experiments.cli import main
from experiments.errors import ResultsError
from experiments.parser import make_parser
from tests.experiments.small_bench import SMALL, TINY

pytestmark = pytest.mark.usefixtures("_single_calls")


ROWS = [
    Row(
        "step",
        "tiny, with a comma",
        'three "quoted" calls',
        rounds=3,
        parameters=8,
        seconds_min=1 / 3,
        ratio_median=1.1,
        machine="x86_64, 2 CPUs",
        threads=2,
    ),
    Row("memory", "tiny", "no SI", "memory", state_bytes=0, peak_bytes=-5),
]


def test_rows_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    assert read_rows(write_rows(ROWS, tmp_path / CSV)) == ROWS


def test_a_file_that_the_bench_did_not_write_is_refused(tmp_path: Path) -> None:
    path = tmp_path / CSV
    path.write_text("part,workload\nstep,tiny\n")
    with pytest.raises(ResultsError, match="has not the columns of the bench"):
        read_rows(path)


def test_tables_tell_median_and_extremes_against_both_optimisers() -> None:
    base = Row("step", "tiny", PLAIN, parameters=8, rounds=3, threads=2)
    one, other = Spread(1, 1, 1), Spread(0.8, 0.8, 0.8)
    rows = [
        base.timed(3, seconds=Spread(1e-3, 2e-3, 3e-3), ratio=one, fused_ratio=Spread(1, 1.25, 2)),
        replace(base, method=PLAIN_FUSED).timed(3, seconds=one, ratio=other, fused_ratio=one),
        replace(base, method=OURS).timed(
            3, seconds=one, ratio=Spread(1.1, 1.2, 1.345), fused_ratio=Spread(1.3, 1.5, 1.7)
        ),
        replace(
            base,
            part="memory",
            method=OURS,
            parameter_bytes=1000,
            state_bytes=4000,
            peak_bytes=4500,
        ),
    ]
    default, fused, state, peak = sheets(rows)
    assert default.lines == (
        (PLAIN, "2.00 ms"),
        (PLAIN_FUSED, "0.80 (0.80\N{EN DASH}0.80)"),
        (OURS, "1.20 (1.10\N{EN DASH}1.34)"),
    )
    assert fused.lines == (
        (PLAIN, "1.25 (1.00\N{EN DASH}2.00)"),
        (PLAIN_FUSED, "1000 ms"),
        (OURS, "1.50 (1.30\N{EN DASH}1.70)"),
    )
    assert state.lines == ((OURS, "4.00 (4 kB)"),)
    assert peak.lines == ((OURS, "4.50 (4 kB)"),)
    assert "| si-avalanche | 1.20 (1.10\N{EN DASH}1.34) |\n" in markdown(rows)


def test_tables_tell_threads_rounds_and_versions() -> None:
    base = Row("step", "large", OURS, rounds=15, machine="m", threads=2, torch="2.9")
    told = conditions([base, replace(base, workload="small", threads=1)])
    assert told.startswith("m; 2 threads, 1 for small; ")
    assert "PyTorch 2.9" in told
    assert "; 15 rounds; " in told


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    def small(device: str) -> Extent:
        assert device == "cpu"
        return SMALL

    monkeypatch.setattr(run, "extent_on", small)


ONCE = ["--rounds", "2", "--threads", "1"]
MEASURED = [part for part in PARTS if part != "trial"]


@pytest.mark.usefixtures("_small")
def test_the_bench_measures_tells_draws_and_keeps_every_part(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "bench"
    assert main(["bench", "--parts", *MEASURED, *ONCE, "--results", str(folder)]) == 0
    told = capsys.readouterr().out
    for entry in METHODS.values():
        assert entry.label in told
    assert {path.name for path in folder.iterdir()} == {
        "bench.csv",
        "table.md",
        "ratios.png",
        "growth.png",
    }
    rows = read_rows(folder / CSV)
    assert {row.part for row in rows} == set(MEASURED)
    assert {row.threads for row in rows} == {1}
    assert {row.torch for row in rows} == {metadata.version("torch")}
    assert (folder / "table.md").read_text() == markdown(rows)
    written = (folder / CSV).read_text() + (folder / "table.md").read_text()
    assert platform.node() not in written
    assert str(tmp_path) not in written


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("part", MEASURED)
def test_a_part_can_be_measured_alone(part: str, tmp_path: Path) -> None:
    assert main(["bench", "--parts", part, *ONCE, "--results", str(tmp_path)]) == 0
    assert {row.part for row in read_rows(tmp_path / CSV)} == {part}
    drawn = {path.name for path in tmp_path.glob("*.png")}
    growing = part in ("parameters", "tensors", "tasks")
    assert drawn == (set() if part == "memory" else {"growth.png" if growing else "ratios.png"})


def test_a_small_network_is_measured_on_one_thread_and_the_others_as_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pair = (TINY, replace(TINY, name="alone", threads=1))
    monkeypatch.setattr(run, "extent_on", lambda _device: Extent(pair))
    seen = []

    def measured(workload: Workload, *_: object) -> list[Row]:
        seen.append((workload.name, torch.get_num_threads()))
        return [Row("memory", workload.name, OURS, parameter_bytes=2, state_bytes=8, peak_bytes=8)]

    monkeypatch.setattr(run, "measure_steps", measured)
    monkeypatch.setattr(run, "measure_iterations", measured)
    before = torch.get_num_threads()
    try:
        arguments = ["--parts", "step", "avalanche", "--threads", "2", "--results", str(tmp_path)]
        assert main(["bench", *arguments]) == 0
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == [("tiny", 2), ("tiny", 2), ("alone", 1), ("alone", 1)]
    assert [(row.workload, row.threads) for row in read_rows(tmp_path / CSV)] == seen
    assert "; 2 threads, 1 for alone; " in (tmp_path / "table.md").read_text()


def test_everything_is_measured_in_fifteen_rounds_unless_asked_otherwise() -> None:
    asked = make_parser().parse_args(["bench"])
    assert (asked.rounds, asked.parts) == ("15", list(PARTS))


@pytest.mark.usefixtures("_small")
def test_results_of_another_run_are_not_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / CSV).write_text("mine")
    assert main(["bench", *ONCE, "--results", str(tmp_path)]) == 2
    assert "give another folder with --results" in capsys.readouterr().err
    assert (tmp_path / CSV).read_text() == "mine"


BAD = [
    (["--parts", "stepp"], ["part 'stepp'", "nearest name is 'step'", "trial"]),
    (["--parts"], ["no part given"]),
    (["--parts", "step", "step"], ["part 'step' is given more than once"]),
    (["--rounds", "0"], ["number of rounds '0'", "at least 1"]),
    (["--threads", "two"], ["number of threads 'two'"]),
    (["--device", "gpu"], ["device 'gpu'", "cuda"]),
    (["--device", "cuda:99"], ["device 'cuda:99' is not available"]),
    (["--stream", "digit"], ["stream 'digit'", "nearest name is 'digits'"]),
    (["--stream", "split_mnist", "--data-root", "/nowhere"], ["MNIST/raw"]),
]


@pytest.mark.parametrize(("arguments", "named"), BAD)
def test_what_cannot_be_measured_is_one_clear_error_before_any_work(
    arguments: Sequence[str],
    named: Sequence[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["bench", *arguments]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("error: ")
    assert all(part in told.err for part in named)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_drawn_of_nothing(tmp_path: Path) -> None:
    assert draw_all([], tmp_path) == []
