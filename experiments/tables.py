"""The comparison told as tables in the terminal and as summary.csv."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from experiments.statistics import Estimate, Summary
from experiments.strategies import STRATEGIES
from experiments.variants import label_among, label_of, panel_title

SUMMARY = "summary.csv"
_ESTIMATES = ("average_accuracy", "forgetting", "backward_transfer", "to_naive", "to_best")
# Wide enough for every column, so that nothing is cut where the terminal's width is unknown.
WIDTH = 80
_LABEL_WIDTH = 1 + max(len(strategy.label) for strategy in STRATEGIES.values())
_LEGEND = (
    "Accuracy, forgetting and backward transfer in percent, mean ± half the 95 % Student "
    "interval over n seeds (no interval from one seed). Points over others: paired by seed; what "
    "keeps all data is no baseline. Time: per training iteration, as a ratio to Naive. Passes: "
    "over the data, beyond the epochs (Avalanche's loader repeats samples where tasks are "
    "uneven). State: held beyond Naive's."
)


def make_console(width: int = WIDTH) -> Console:
    """Make the console that results are told on.

    :param width: how many columns the tables need.
    :return: the terminal, or a plain file of that width.
    """
    console = Console(highlight=False)
    return Console(
        highlight=False, width=max(width, console.width) if console.is_terminal else width
    )


def print_report(summaries: Sequence[Summary], console: Console) -> None:
    """Print one table for each stream and scenario, and what the columns mean.

    :param summaries: what to tell, in order.
    :param console: where to.
    """
    every = [summary.description.data for summary in summaries]
    for data, group in groupby(summaries, lambda summary: summary.description.data):
        labelled = _labelled(list(group))
        console.print(Text(f"\n{panel_title(data, every)}", style="bold"))
        console.print(_table([(label, row) for label, row in labelled if row.n]))
        for label, row in labelled:
            _print_differences(label, row, console)
        for label, row in labelled:
            _print_failures(label, row, console)
    console.print()
    console.print(Text(_LEGEND, style="dim"), width=WIDTH)


def print_files(paths: Iterable[Path], folder: Path, console: Console) -> None:
    """Print where results are.

    :param paths: the files.
    :param folder: where all of them are.
    :param console: where to.
    """
    console.print(f"\nResults in {folder}:", soft_wrap=True)
    for path in paths:
        console.print(f"  {path.name}", soft_wrap=True)


def _labelled(summaries: Sequence[Summary]) -> list[tuple[str, Summary]]:
    descriptions = [summary.description for summary in summaries]
    return [(label_among(each.description, descriptions), each) for each in summaries]


def _table(rows: Iterable[tuple[str, Summary]]) -> Table:
    # The width is spread over the columns, so that narrow contents stand apart and wide ones fit.
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=0, width=WIDTH)
    # A variant's label may be long; what a method is called alone stays on one line.
    table.add_column("\nstrategy", overflow="fold", min_width=_LABEL_WIDTH - 1)
    for heading in (
        "average\naccuracy",
        "\nforgetting",
        "backward\ntransfer",
        "\nn",
        "\ntime",
        "\npasses",
        "\nstate",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for label, row in rows:
        style = "bold" if row.description.strategy == "si" else None
        table.add_row(Text(label), *_cells(row), style=style)
    return table


def _cells(row: Summary) -> list[str]:
    return [
        percent(row.average_accuracy),
        percent(row.forgetting),
        percent(row.backward_transfer),
        str(row.n),
        "-" if row.time_ratio is None else f"{row.time_ratio:.2f}",
        "-" if row.extra_passes is None else _short(row.extra_passes),
        "-" if row.extra_bytes is None else size(row.extra_bytes),
    ]


def _print_differences(label: str, row: Summary, console: Console) -> None:
    """Hold SI, in points of average accuracy, against Naive and the best baseline."""
    if row.description.strategy != "si":
        return
    told = []
    if row.to_naive:
        told.append(f"{_points(row.to_naive)} over Naive")
    if row.to_best and row.best:
        best = label_of(row.best.strategy)
        told.append(f"{_points(row.to_best)} over {best}, the best baseline")
    if told:
        console.print(Text(f"{label}: {'; '.join(told)}"), width=WIDTH)


def _points(value: Estimate) -> str:
    sign = "" if value.mean < 0 else "+"
    return f"{sign}{percent(value)} (n = {value.n})"


def _short(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0").replace("-0", "0")


def _print_failures(label: str, row: Summary, console: Console) -> None:
    reasons: dict[str, list[str]] = {}
    for seed, reason in row.failures:
        reasons.setdefault(reason, []).append(str(seed))
    for reason, seeds in reasons.items():
        which = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)}"
        text = Text(f"failed: {reason} ({which})", style="red")
        if len(label) < _LABEL_WIDTH:
            console.print(Text(label.ljust(_LABEL_WIDTH)), end="")
        else:
            console.print(Text(label), width=WIDTH)
            console.print(" " * _LABEL_WIDTH, end="")
        # The label is on the line already: only the lines that follow are indented.
        lines = text.wrap(console, WIDTH - _LABEL_WIDTH)
        console.print(lines[0])
        for line in lines[1:]:
            console.print(Padding(line, (0, 0, 0, _LABEL_WIDTH)))


def percent(value: Estimate | None) -> str:
    """Write an estimate as a percentage.

    :param value: the estimate, or None.
    :return: such as ``"97.3 ± 0.4"``, ``"97.3"`` from a single seed, ``"-"`` from none.
    """
    if value is None:
        return "-"
    mean = f"{100 * value.mean:.1f}"
    mean = "0.0" if mean == "-0.0" else mean
    return mean if value.half_width is None else f"{mean} ± {100 * value.half_width:.1f}"


def size(count: float) -> str:
    """Write a number of bytes.

    :param count: bytes.
    :return: such as ``"0 B"``, ``"65 kB"`` or ``"10.8 MB"``.
    """
    if count < 1e3:
        return f"{count:.0f} B"
    return f"{count / 1e3:.0f} kB" if count < 1e6 else f"{count / 1e6:.1f} MB"


def write_summary(summaries: Iterable[Summary], folder: Path) -> Path:
    """Write summary.csv: fractions, not percentages, and empty fields for what there is not.

    :param summaries: what to write.
    :param folder: where to.
    :return: the file.
    """
    path = folder / SUMMARY
    groups = groupby(summaries, lambda summary: summary.description.data)
    rows = [_record(label, row) for _, group in groups for label, row in _labelled(list(group))]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def _record(label: str, row: Summary) -> dict[str, object]:
    record: dict[str, object] = {
        "stream": row.description.data.stream,
        "scenario": row.description.data.scenario,
        "strategy": row.description.strategy,
        "label": label,
        "strength": row.description.strength,
        "n": row.n,
    }
    for name in _ESTIMATES:
        value: Estimate | None = getattr(row, name)
        record[name] = value.mean if value else None
        record[f"{name}_half_width"] = value.half_width if value else None
    record["best_baseline"] = row.best.strategy if row.best else None
    record["time_ratio"] = row.time_ratio
    record["extra_passes"] = row.extra_passes
    record["extra_bytes"] = row.extra_bytes
    record["failures"] = "; ".join(f"seed {seed}: {reason}" for seed, reason in row.failures)
    return record
