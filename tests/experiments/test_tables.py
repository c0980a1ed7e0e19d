import csv
import io
from pathlib import Path

import pytest
from rich.console import Console

from experiments.plots import draw_all
from experiments.records import Matrix, Result, Row
from experiments.statistics import Estimate, Summary, summarise
from experiments.strategies import STRATEGIES
from experiments.streams import SCENARIOS
from experiments.tables import WIDTH, percent, print_report, size, write_summary
from tests.experiments.made_up import describe as describe_made_up
from tests.experiments.made_up import ended, on_experiences, search
from tests.experiments.tiny import describe

REASON = "KeyError: 'a parameter with a long name that no strategy ever saw before this one'"


def outcome(strategy: str, seed: int) -> Result:
    # As wide as cells can get.
    low = 0.1 * seed
    rows: Matrix = tuple(tuple(low if i < t else 1.0 for i in range(5)) for t in range(5))
    once = STRATEGIES[strategy].trains_once
    return Result(rows[-1:] if once else rows, 1e-3 * (seed + 12), 60.04, 188_160_000, 0, 0, 1)


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return [
        Row(describe(strategy, scenario=scenario, seed=seed), outcome(strategy, seed), None, {})
        if strategy != "rwalk"
        else Row(describe(strategy, scenario=scenario, seed=seed), None, REASON, {})
        for strategy in STRATEGIES
        for scenario in SCENARIOS
        for seed in range(3)
    ]


@pytest.fixture(scope="module")
def told(rows: list[Row]) -> str:
    file = io.StringIO()
    print_report(summarise(rows), Console(file=file, width=WIDTH, highlight=False))
    return file.getvalue()


def test_the_report_fits_eighty_columns_and_cuts_nothing(told: str) -> None:
    assert WIDTH <= 80
    assert max(len(line) for line in told.splitlines()) <= 80
    assert "…" not in told
    assert all(character == "\n" or character.isprintable() for character in told)


def test_every_strategy_is_told_in_every_scenario(told: str) -> None:
    for strategy in STRATEGIES.values():
        lines = [line for line in told.splitlines() if line.startswith(strategy.label + "  ")]
        assert len(lines) == len(SCENARIOS), strategy.label


def test_a_row_has_its_interval_n_and_costs(told: str) -> None:
    naive = next(line for line in told.splitlines() if line.startswith("Naive"))
    # Final accuracies 20 %, 28 % and 36 %; t(0.975, 2) * 8 / sqrt(3) = 19.9.
    cells = "Naive|28.0 ± 19.9|90.0 ± 24.8|-90.0 ± 24.8|3|1.00|60|188.2 MB"
    assert naive.split() == cells.replace("|", " ").split()


def test_joint_has_no_forgetting(told: str) -> None:
    joint = next(line for line in told.splitlines() if line.startswith("Joint"))
    assert joint.split()[4:7] == ["-", "-", "3"]


def test_a_failed_strategy_says_why_and_for_which_seeds(told: str) -> None:
    flat = " ".join(told.split())
    assert f"RWalk failed: {REASON} (seeds 0, 1, 2)" in flat


def test_one_seed_gives_no_interval() -> None:
    assert percent(Estimate(0.5, None, 1)) == "50.0"
    assert percent(Estimate(-0.0001, 0.01, 3)) == "0.0 ± 1.0"
    assert percent(None) == "-"


def test_sizes_have_units() -> None:
    assert [size(count) for count in (0, 999, 65_000, 10_832_000)] == [
        "0 B",
        "999 B",
        "65 kB",
        "10.8 MB",
    ]


def test_summary_csv_has_a_row_per_summary(rows: list[Row], tmp_path: Path) -> None:
    summaries: list[Summary] = summarise(rows)
    with write_summary(summaries, tmp_path).open(newline="") as file:
        written = list(csv.DictReader(file))
    assert len(written) == len(summaries) == len(STRATEGIES) * len(SCENARIOS)
    naive, rwalk = written[0], next(row for row in written if row["strategy"] == "rwalk")
    assert float(naive["average_accuracy"]) == pytest.approx(0.28)
    assert naive["n"] == "3"
    assert rwalk["average_accuracy"] == ""
    assert REASON in rwalk["failures"]


def few(rows: list[Row]) -> list[Row]:
    return [
        row
        for row in rows
        if row.description.strategy in ("naive", "si", "joint")
        and row.description.data.scenario in ("task", "domain")
    ]


def test_figures_are_drawn_from_rows_alone(rows: list[Row], tmp_path: Path) -> None:
    paths = draw_all(few(rows), tmp_path)
    assert [path.name for path in paths] == [
        "accuracy-split_mnist.png",
        "matrices-split_mnist-task.png",
        "matrices-split_mnist-domain.png",
    ]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


def test_nothing_is_drawn_where_everything_failed(tmp_path: Path) -> None:
    assert draw_all([Row(describe("si"), None, REASON, {})], tmp_path) == []


def test_variants_of_a_method_are_told_apart_in_the_terminal_and_in_the_summary(
    tmp_path: Path,
) -> None:
    summaries = summarise(search(strengths=2, seeds=1))
    file = io.StringIO()
    print_report(summaries, Console(file=file, width=WIDTH, highlight=False))
    flat = " ".join(file.getvalue().split())
    assert "c = 1" in flat
    assert "c = 10" in flat
    with write_summary(summaries, tmp_path).open(newline="") as written:
        labels = [row["label"] for row in csv.DictReader(written)]
    assert labels[:2] == ["SI (si-avalanche), c = 1", "SI (si-avalanche), c = 10"]


def test_the_same_data_have_one_table_whatever_else_was_measured() -> None:
    rows = [
        ended(on_experiences(describe_made_up(strategy), count), experiences=count)
        for strategy in ("naive", "si")
        for count in (2, 3)
    ]
    file = io.StringIO()
    print_report(summarise(rows), Console(file=file, width=WIDTH, highlight=False))
    assert [file.getvalue().count(f"experiences = {count}") for count in (2, 3)] == [1, 1]


def test_figures_take_the_number_of_experiences_from_the_matrices(tmp_path: Path) -> None:
    rows = [
        ended(on_experiences(describe_made_up(strategy), count), experiences=count)
        for count in (1, 12)
        for strategy in ("naive", "si", "joint")
    ]
    names = [path.name for path in draw_all(rows, tmp_path)]
    assert names == [
        "accuracy-split_mnist.png",
        "matrices-split_mnist-domain.png",
        "matrices-split_mnist-domain-2.png",
    ]


def test_si_is_held_against_naive_and_the_best_baseline_pair_by_pair(told: str) -> None:
    flat = " ".join(told.split())
    # Every strategy has the same accuracies here, seed by seed.
    assert "SI (si-avalanche): +0.0 ± 0.0 (n = 3) over Naive; +0.0 ± 0.0 (n = 3) over" in flat
    assert "the best baseline" in flat
