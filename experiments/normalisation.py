"""What to do about batch normalisation: the three policies of our SI, and Naive, measured."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

from rich.console import Console
from rich.table import Table

from experiments.compare import describe, run_and_record
from experiments.records import Choice, Description, Place, Row
from experiments.results import make_folder
from experiments.statistics import Estimate, average_accuracy, estimate, forgetting
from experiments.strategies import STRATEGIES
from experiments.tune import best

POLICIES = ("protect", "exclude", "freeze")
SEARCH_SEEDS = (100, 101, 102)
GRID = STRATEGIES["si"].grid


def study(choice: Choice, place: Place, processes: int, folder: Path) -> int:
    """Choose a strength for each policy on validation data, then compare on the test data.

    :param choice: streams, scenarios and seeds; its strategies are not looked at.
    :param place: where data are read.
    :param processes: how many trials run at once.
    :param folder: where the two records and the summary go.
    :return: exit status, 0 unless every trial failed.
    """
    searched = run_and_record(_search(choice), place, processes, make_folder(folder / "search"))
    cells = list(product(choice.streams, choice.scenarios, ("naive", *POLICIES)))
    strengths = {
        cell: None if cell[2] == "naive" else best(_rows_of(searched, cell)).strength
        for cell in cells
    }
    trials = [
        _describe(choice, *cell, seed, strengths[cell]) for cell in cells for seed in choice.seeds
    ]
    rows = run_and_record(trials, place, processes, make_folder(folder))
    lines = [_line(cell, strengths[cell], _rows_of(rows, cell)) for cell in cells]
    _tell(lines, folder / "normalisation.csv")
    return 0 if any(row.result for row in rows) else 1


Cell = tuple[str, str, str]


def _search(choice: Choice) -> list[Description]:
    choice = replace(choice, evaluation="validation")
    return [
        _describe(choice, stream, scenario, policy, seed, strength)
        for stream, scenario, policy, seed, strength in product(
            choice.streams, choice.scenarios, POLICIES, SEARCH_SEEDS, GRID
        )
    ]


def _describe(
    choice: Choice, stream: str, scenario: str, policy: str, seed: int, strength: float | None
) -> Description:
    strategy = "naive" if policy == "naive" else "si"
    description = describe(choice, stream, scenario, strategy, seed, strength)
    return replace(description, normalisation=policy)


def _rows_of(rows: Sequence[Row], cell: Cell) -> list[Row]:
    return [
        row
        for row in rows
        if (row.description.stream, row.description.scenario, row.description.normalisation) == cell
    ]


def _line(cell: Cell, strength: float | None, rows: Sequence[Row]) -> dict[str, str]:
    matrices = [row.result.accuracy for row in rows if row.result]
    lost = [value for value in map(forgetting, matrices) if value is not None]
    return {
        "stream": cell[0],
        "scenario": cell[1],
        "policy": cell[2],
        "c": "" if strength is None else f"{strength:g}",
        "accuracy": _percent(estimate([average_accuracy(each) for each in matrices])),
        "forgetting": _percent(estimate(lost)),
        "n": str(len(matrices)),
    }


def _percent(value: Estimate) -> str:
    half = "" if value.half_width is None else f" ± {100 * value.half_width:.1f}"
    return f"{100 * value.mean:.1f}{half}"


def _tell(lines: Sequence[dict[str, str]], file: Path) -> None:
    table = Table(title="Batch normalisation: accuracy and forgetting in %, mean ± 95 % interval")
    for name in lines[0]:
        table.add_column(name)
    for line in lines:
        table.add_row(*line.values())
    Console().print(table)
    with file.open("w", newline="") as out:
        writer = csv.DictWriter(out, lines[0].keys())
        writer.writeheader()
        writer.writerows(lines)
