"""The rows told as tables: in the terminal, and as Markdown for the docs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments.bench.growth import FLOOR
from experiments.bench.methods import OURS, PLAIN
from experiments.bench.rows import Row
from experiments.bench.through_avalanche import NAIVE
from experiments.tables import size

MARKDOWN = "table.md"
WIDTH = 100
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
    first = rows[0]
    rounds = sorted({row.rounds for row in rows if row.rounds})
    return (
        f"{first.machine}; {first.threads} threads; Python {first.python}, PyTorch {first.torch}, "
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


def _steps(rows: Sequence[Row]) -> list[Sheet]:
    return [_by_method("A training step, no SI = 1: median (least\N{EN DASH}most)", rows, _ratio)]


def _avalanche(rows: Sequence[Row]) -> list[Sheet]:
    title = "An iteration through Avalanche, Naive = 1: median (least\N{EN DASH}most)"
    with_state = [row for row in rows if row.method != NAIVE]
    return [
        _by_method(title, rows, _ratio, "plugin"),
        *_memory(with_state, "through Avalanche, ", "plugin"),
    ]


def _memory(rows: Sequence[Row], where: str = "", heading: str = "method") -> list[Sheet]:
    held = [row for row in rows if row.method != PLAIN]
    told = [
        _by_method(
            f"Bytes of state, {where}in parameters' bytes", held, _multiple("state_bytes"), heading
        ),
        _by_method(
            f"Peak of a step beyond that without SI, {where}in parameters' bytes",
            held,
            _multiple("peak_bytes"),
            heading,
        ),
    ]
    if any(row.temporary_bytes is not None for row in held):
        title = "Largest tensor that the method's calls make, in parameters' bytes"
        told.append(_by_method(title, held, _multiple("temporary_bytes"), heading))
    if any(row.waits is not None for row in held):
        title = f"Waits for the GPU in a step, {where}beyond those without SI"
        told.append(_by_method(title, held, lambda row: str(row.waits), heading))
    return told


def _growth(
    title: str, heading: str, of: Callable[[Row], int | None]
) -> Callable[[Sequence[Row]], list[Sheet]]:
    def arranged(rows: Sequence[Row]) -> list[Sheet]:
        lines = []
        for workload in dict.fromkeys(row.workload for row in rows):
            own = {(row.method, row.what): row for row in rows if row.workload == workload}
            calls, floor = own[OURS, "calls"], own[FLOOR, "floor"]
            assert calls.seconds_median is not None
            assert floor.seconds_median is not None
            lines.append(
                (
                    f"{of(calls):,}",
                    _time(own[PLAIN, "step"]),
                    _ratio(own[OURS, "step"]),
                    _time(calls),
                    _time(floor),
                    f"{calls.seconds_median / floor.seconds_median:.1f}",
                )
            )
        headings = (heading, "no SI", "with SI", "SI's calls", "floor", "calls / floor")
        return [Sheet(title, headings, tuple(lines))]

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
                _ratio(step),
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


def _ratio(row: Row) -> str:
    if row.method in (PLAIN, NAIVE):
        return _time(row)
    return f"{row.ratio_median:.2f} ({row.ratio_min:.2f}\N{EN DASH}{row.ratio_max:.2f})"


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
