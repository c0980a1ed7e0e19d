"""The rows told as tables: in the terminal, and as Markdown for the docs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments.bench.methods import ONE_PASS_FUSED, OURS, PLAIN, PLAIN_FUSED
from experiments.bench.rows import Row
from experiments.bench.through_avalanche import NAIVE, NAIVE_FUSED
from experiments.tables import size

MARKDOWN = "table.md"
WIDTH = 120
"""How many columns the widest table takes."""


@dataclass(frozen=True)
class Sheet:
    """A table, wherever it is shown.

    :param title: what it tells.
    :param headings: of its columns.
    :param lines: its cells.
    """

    title: str
    headings: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]


def sheets(rows: Sequence[Row]) -> list[Sheet]:
    """Arrange rows into tables.

    :param rows: what was measured.
    :return: a table for each thing that was, times before bytes before growth.
    """
    by_part = {name: [row for row in rows if row.part == name] for name in _SHEETS}
    return [sheet for name, own in by_part.items() if own for sheet in _SHEETS[name](own)]


def conditions(rows: Sequence[Row]) -> str:
    """Tell where, when and with what rows were measured.

    :param rows: all of one run.
    :return: one line.
    """
    first, rest = rows[0], [row for row in rows if row.threads != rows[0].threads]
    exceptions = dict.fromkeys(f", {row.threads} for {row.workload}" for row in rest)
    rounds = sorted({row.rounds for row in rows if row.rounds})
    return (
        f"{first.machine}; {first.threads} threads{''.join(exceptions)}; "
        f"Python {first.python}, PyTorch {first.torch}, "
        f"Avalanche {first.avalanche}, si-avalanche {first.si_avalanche}; "
        f"{' or '.join(map(str, rounds))} rounds; {first.date}"
    )


def print_rows(rows: Sequence[Row], console: Console) -> None:
    """Print all tables.

    :param rows: what was measured, at least one row.
    :param console: where to.
    """
    for sheet in sheets(rows):
        # Not the table's own title, which is broken where a narrow table ends.
        console.print(Text(sheet.title, style="italic"))
        table = Table(box=box.SIMPLE_HEAD, show_edge=False)
        for number, heading in enumerate(sheet.headings):
            table.add_column(heading, justify="right" if number else "left")
        for line in sheet.lines:
            table.add_row(*line, style="bold" if line[0] == OURS else None)
        console.print(table)
        console.print()
    console.print(Text(conditions(rows), style="dim"))


def markdown(rows: Sequence[Row]) -> str:
    """Write all tables as Markdown.

    :param rows: what was measured, at least one row.
    :return: the text, with where and when it was measured above.
    """
    parts = [f"{conditions(rows)}."]
    for sheet in sheets(rows):
        lines = [
            f"**{sheet.title}**",
            "",
            _line(sheet.headings),
            f"|---|{'--:|' * (len(sheet.headings) - 1)}",
        ]
        lines += [_line(line) for line in sheet.lines]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def write_markdown(rows: Sequence[Row], folder: Path) -> Path:
    """Write what :func:`markdown` gives.

    :param rows: what was measured.
    :param folder: where to.
    :return: the file.
    """
    path = folder / MARKDOWN
    path.write_text(markdown(rows), encoding="utf-8")
    return path


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _by_method(
    title: str, rows: Sequence[Row], cell: Callable[[Row], str], heading: str = "method"
) -> Sheet:
    """One line for each method, one column for each workload."""
    workloads = tuple(dict.fromkeys(row.workload for row in rows))
    found = {(row.method, row.workload): cell(row) for row in rows}
    return Sheet(
        title,
        (heading, *workloads),
        tuple(
            (method, *(found.get((method, workload), "") for workload in workloads))
            for method in dict.fromkeys(row.method for row in rows)
        ),
    )


def _against_both(
    title: str, rows: Sequence[Row], plain: tuple[str, str], heading: str
) -> list[Sheet]:
    kinds = ("ratio", "fused_ratio")
    return [
        _by_method(
            f"{title}, {one} = 1: median (least\N{EN DASH}most)", rows, _ratio(one, kind), heading
        )
        for one, kind in zip(plain, kinds, strict=True)
    ]


def _steps(rows: Sequence[Row]) -> list[Sheet]:
    return _against_both("A training step", rows, (PLAIN, PLAIN_FUSED), "method")


def _avalanche(rows: Sequence[Row]) -> list[Sheet]:
    plain = NAIVE, NAIVE_FUSED
    with_state = [row for row in rows if row.method not in plain]
    return [
        *_against_both("An iteration through Avalanche", rows, plain, "plugin"),
        *_memory(with_state, "through Avalanche, ", "plugin"),
    ]


def _memory(rows: Sequence[Row], where: str = "", heading: str = "method") -> list[Sheet]:
    held = [row for row in rows if row.method not in (PLAIN, PLAIN_FUSED)]
    cells = {
        f"Bytes of state, {where}in parameters' bytes": _multiple("state_bytes"),
        f"Peak of a step beyond that without SI, {where}in parameters' bytes": _multiple(
            "peak_bytes"
        ),
    }
    if any(row.waits is not None for row in held):
        title = f"Waits for the GPU in a step, {where}beyond those without SI"
        cells[title] = lambda row: str(row.waits)
    return [_by_method(title, held, cell, heading) for title, cell in cells.items()]


def _growth(
    title: str, heading: str, of: Callable[[Row], int | None]
) -> Callable[[Sequence[Row]], list[Sheet]]:
    def arranged(rows: Sequence[Row]) -> list[Sheet]:
        default, fused = _ratio(PLAIN, "ratio"), _ratio(PLAIN_FUSED, "fused_ratio")
        columns = {PLAIN: default, OURS: default, PLAIN_FUSED: fused, ONE_PASS_FUSED: fused}
        lines = []
        for workload in dict.fromkeys(row.workload for row in rows):
            own = {row.method: row for row in rows if row.workload == workload}
            cells = (cell(own[method]) for method, cell in columns.items())
            lines.append((f"{of(own[PLAIN]):,}", *cells))
        return [Sheet(title, (heading, *columns), tuple(lines))]

    return arranged


def _tasks(rows: Sequence[Row]) -> list[Sheet]:
    lines = []
    for tasks in dict.fromkeys(row.tasks for row in rows):
        own = {(row.method, row.what): row for row in rows if row.tasks == tasks}
        step, consolidation = own[OURS, "step"], own[OURS, "consolidation"]
        state = step.state_bytes or 0
        lines.append(
            (
                f"{tasks}",
                _time(own[PLAIN, "step"]),
                _ratio(PLAIN, "ratio")(step),
                _time(consolidation),
                size(state),
            )
        )
    headings = ("tasks so far", "no SI", "with SI", "consolidation", "state")
    title = f"Task after task, {rows[0].workload}, ten at a time"
    return [Sheet(title, headings, tuple(lines))]


_SHEETS: dict[str, Callable[[Sequence[Row]], list[Sheet]]] = {
    "step": _steps,
    "memory": _memory,
    "avalanche": _avalanche,
    "parameters": _growth(
        "A step as parameters grow, in few tensors", "parameters", lambda row: row.parameters
    ),
    "tensors": _growth(
        "A step as the same parameters lie in more tensors", "tensors", lambda row: row.tensors
    ),
    "tasks": _tasks,
}


def _ratio(one: str, kind: str) -> Callable[[Row], str]:
    """Make cells that show a kind of ratio, and the time of the method that it is held against."""

    def cell(row: Row) -> str:
        if row.method == one:
            return _time(row)
        low, middle, high = (getattr(row, f"{kind}_{end}") for end in ("min", "median", "max"))
        return f"{middle:.2f} ({low:.2f}\N{EN DASH}{high:.2f})"

    return cell


def _time(row: Row) -> str:
    assert row.seconds_median is not None
    milliseconds = 1e3 * row.seconds_median
    return f"{milliseconds:#.3g} ms" if milliseconds < 100 else f"{milliseconds:.0f} ms"


def _multiple(name: str) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        count: int = getattr(row, name)
        assert row.parameter_bytes is not None
        return f"{count / row.parameter_bytes:.2f} ({size(count)})"

    return cell
