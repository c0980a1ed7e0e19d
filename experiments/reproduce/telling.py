"""A reproduction told: a table, published.csv, the figure, the report."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments.protocols import Protocol
from experiments.records import Row
from experiments.report import write_report
from experiments.reproduce.figures import draw
from experiments.reproduce.outcomes import Line, Outcome, lines
from experiments.results import RECORD
from experiments.tables import make_console, print_files

PUBLISHED = "published.csv"
_COLUMNS = (
    *("run", "scenario", "figure", "published", "published_error"),
    *("measured", "half_width", "n", "holds", "reduced"),
)
_LEGEND = (
    "Percent. Measured: mean ± half the 95 % Student interval over n seeds. Holds: whether that "
    "interval holds the published figure (no interval from one seed). A reduced run is not "
    "compared."
)


def tell(
    protocol: Protocol, outcomes: Sequence[Outcome], rows: Sequence[Row], folder: Path
) -> None:
    """Print the table, and write table, figure and report.

    :param protocol: what was reproduced.
    :param outcomes: its runs, summarised.
    :param rows: their trials.
    :param folder: where the files go.
    """
    told = [line for each in outcomes for line in lines(each)]
    console = make_console()
    _print(protocol, outcomes, told, console)
    paths = [folder / RECORD, _write(told, folder / PUBLISHED)]
    if told:
        paths.append(draw(protocol, outcomes, folder / f"{protocol.name}.png"))
    notes = [f"{protocol.source}. Measured: {protocol.measure}.", *protocol.notes]
    paths.append(write_report(rows, folder, f"{protocol.title}: {protocol.name}", notes))
    print_files(paths, folder, console)


def _print(
    protocol: Protocol, outcomes: Sequence[Outcome], told: Sequence[Line], console: Console
) -> None:
    several = len({each.run.description.data.scenario for each in outcomes}) > 1

    def name(run: str, scenario: str) -> str:
        return f"{run}, {scenario}" if several else run

    runs = [name(each.run.label, each.run.description.data.scenario) for each in outcomes]
    console.print(Text(f"\n{protocol.title}: {protocol.measure} in percent", style="bold"))
    console.print(Text(protocol.source, style="dim"))
    console.print(_table([name(line.run, line.scenario) for line in told], told))
    for how, which in _reduced(runs, outcomes).items():
        console.print(Text(f"Reduced, {how}, and not compared: {which}."))
    for run, each in zip(runs, outcomes, strict=True):
        for reason in each.failures:
            console.print(Text(f"{run}: failed: {reason}", style="red"))
    for note in (*protocol.notes, _LEGEND):
        console.print(Text(note, style="dim"))


def _table(runs: Sequence[str], told: Sequence[Line]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for heading in ("run", "", "published", "measured", "n", "difference", "holds"):
        table.add_column(heading, justify="left" if heading in ("run", "") else "right")
    for before, run, line in zip(("", *runs), runs, told, strict=False):
        table.add_row("" if run == before else run, *_cells(line))
    return table


def _reduced(runs: Sequence[str], outcomes: Sequence[Outcome]) -> dict[str, str]:
    """Tell which runs are reduced, by what is reduced in them."""
    found: dict[str, list[str]] = {}
    for run, each in zip(runs, outcomes, strict=True):
        if each.reduced:
            found.setdefault(each.reduced, []).append(run)
    everything = len(outcomes)
    return {
        how: "all runs" if len(which) == everything else "; ".join(which)
        for how, which in found.items()
    }


def _cells(line: Line) -> tuple[str, ...]:
    measured = line.measured
    half = "" if measured.half_width is None else f" ± {100 * measured.half_width:.2f}"
    gap = None if line.published is None else 100 * (measured.mean - line.published)
    return (
        line.what,
        _published(line),
        f"{100 * measured.mean:.2f}{half}",
        str(measured.n),
        "-" if gap is None else f"{gap:+.2f}",
        {True: "yes", False: "no", None: "reduced" if line.reduced else "-"}[line.holds],
    )


def _published(line: Line) -> str:
    if line.published is None:
        return "-"
    error = "" if line.published_error is None else f" ({100 * line.published_error:.2f})"
    return f"{100 * line.published:.2f}{error}"


def _write(told: Sequence[Line], path: Path) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, _COLUMNS)
        writer.writeheader()
        for line in told:
            given = (line.run, line.scenario, line.what, line.published, line.published_error)
            measured = (line.measured.mean, line.measured.half_width, line.measured.n)
            cells = (*given, *measured, line.holds, line.reduced)
            writer.writerow(dict(zip(_COLUMNS, cells, strict=True)))
    return path
