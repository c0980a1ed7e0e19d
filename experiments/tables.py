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
from experiments.streams import SCENARIOS, STREAMS

SUMMARY = "summary.csv"
# Wide enough for every column, so that nothing is cut where the terminal's width is unknown.
WIDTH = 80
_LABEL_WIDTH = 1 + max(len(strategy.label) for strategy in STRATEGIES.values())
_LEGEND = (
    "Accuracy, forgetting and backward transfer in percent, mean ± half the 95 % Student "
    "interval over n seeds (no interval from one seed). Time: per training iteration, as a "
    "ratio to Naive. Passes: over the data, beyond the epochs (Avalanche's loader repeats samples "
    "where tasks are uneven). State: held beyond Naive's."
)


def make_console() -> Console:
    """Make the console that results are told on.

    :return: the terminal, or a plain file of ``WIDTH`` columns.
    """
    console = Console(highlight=False)
    return Console(
        highlight=False, width=max(WIDTH, console.width) if console.is_terminal else WIDTH
    )


def print_report(summaries: Sequence[Summary], console: Console) -> None:
    """Print one table for each stream and scenario, and what the columns mean.

    :param summaries: what to tell, in order.
    :param console: where to.
    """
    for (stream, scenario), group in groupby(summaries, lambda s: (s.stream, s.scenario)):
        rows = list(group)
        title = f"{STREAMS[stream].title}, {SCENARIOS[scenario]}"
        console.print(Text(f"\n{title[0].upper()}{title[1:]}", style="bold"))
        console.print(_table([row for row in rows if row.n]))
        for row in rows:
            _print_failures(row, console)
    console.print()
    console.print(Text(_LEGEND, style="dim"), width=WIDTH)


def _table(rows: Iterable[Summary]) -> Table:
    # The width is spread over the columns, so that narrow contents stand apart and wide ones fit.
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=0, width=WIDTH)
    table.add_column("\nstrategy", no_wrap=True, min_width=_LABEL_WIDTH - 1)
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
    for row in rows:
        style = "bold" if row.strategy == "si" else None
        table.add_row(*_cells(row), style=style)
    return table


def _cells(row: Summary) -> list[str]:
    return [
        STRATEGIES[row.strategy].label,
        percent(row.average_accuracy),
        percent(row.forgetting),
        percent(row.backward_transfer),
        str(row.n),
        "-" if row.time_ratio is None else f"{row.time_ratio:.2f}",
        "-" if row.extra_passes is None else _short(row.extra_passes),
        "-" if row.extra_bytes is None else size(row.extra_bytes),
    ]


def _short(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0").replace("-0", "0")


def _print_failures(row: Summary, console: Console) -> None:
    reasons: dict[str, list[str]] = {}
    for seed, reason in row.failures:
        reasons.setdefault(reason, []).append(str(seed))
    for reason, seeds in reasons.items():
        which = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)}"
        label = STRATEGIES[row.strategy].label.ljust(_LABEL_WIDTH)
        text = Text(f"failed: {reason} ({which})", style="red")
        console.print(Text(label), end="")
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
    rows = [_record(summary) for summary in summaries]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def _record(row: Summary) -> dict[str, object]:
    record: dict[str, object] = {
        "stream": row.stream,
        "scenario": row.scenario,
        "strategy": row.strategy,
        "label": STRATEGIES[row.strategy].label,
        "strength": row.strength,
        "n": row.n,
    }
    for name in ("average_accuracy", "forgetting", "backward_transfer"):
        value: Estimate | None = getattr(row, name)
        record[name] = value.mean if value else None
        record[f"{name}_half_width"] = value.half_width if value else None
    record["time_ratio"] = row.time_ratio
    record["extra_passes"] = row.extra_passes
    record["extra_bytes"] = row.extra_bytes
    record["failures"] = "; ".join(f"seed {seed}: {reason}" for seed, reason in row.failures)
    return record
