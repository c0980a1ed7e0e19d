"""The report's tables: what stands in each line, as text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from experiments.statistics import Estimate, Summary, accuracies, difference, known
from experiments.tables import size
from experiments.variants import Panel, Variant, best_of_each, label_of


@dataclass(frozen=True)
class Cell:
    """A mean and half its interval.

    :param mean: as text; a dash where there is none.
    :param half_width: as text; empty without an interval.
    :param note: what has to be known beside it, such as a smaller ``n``.
    """

    mean: str
    half_width: str = ""
    note: str = ""


NOTHING = Cell("\N{EN DASH}")


@dataclass(frozen=True)
class Line:
    """One line of a table.

    :param heavy: whether it is SI's, and stands out.
    """

    label: str
    cells: tuple[Cell, ...]
    heavy: bool = False


@dataclass(frozen=True)
class Table:
    """A table of one panel.

    :param headings: of all columns, the label's too.
    """

    title: str
    headings: tuple[str, ...]
    lines: tuple[Line, ...]


def results(panel: Panel) -> Table:
    """Tell what was measured: accuracy, forgetting, and differences to Naive and the best baseline.

    :param panel: what was measured on the same data.
    :return: a line for each variant, also for one of which every trial failed.
    """
    return Table(
        panel.title,
        ("method", "average accuracy", "forgetting", "over Naive", "over the best baseline", "n"),
        tuple(
            Line(variant.label, _measured(variant), _is_si(variant)) for variant in panel.variants
        ),
    )


def _measured(variant: Variant) -> tuple[Cell, ...]:
    summary = variant.summary
    asked = len({row.description.seed for row in variant.rows})
    return (
        percent(summary.average_accuracy),
        percent(summary.forgetting),
        _gain(summary, summary.to_naive),
        _gain(summary, summary.to_best, label_of(summary.best.strategy) if summary.best else ""),
        Cell(str(summary.n) if summary.n == asked else f"{summary.n}/{asked}"),
    )


def _gain(summary: Summary, gain: Estimate | None, over: str = "") -> Cell:
    """Tell by how many points a variant's accuracy is above another's, paired by seed."""
    pairs = f"n = {gain.n}" if gain and gain.n != summary.n else ""
    return percent(gain, signed=True, note=", ".join(filter(None, (over, pairs))))


@dataclass(frozen=True)
class Glance:
    """How SI fared, for the top of the page.

    :param gain: over Naive, in points; None where there is no Naive to hold it against.
    """

    title: str
    label: str
    accuracy: Cell
    gain: Cell | None
    n: int


def glance(panel: Panel, variant: Variant) -> Glance:
    """Tell a variant in one line.

    :param panel: where the variant stands.
    :param variant: one of its variants, with results.
    :return: its accuracy and its difference to Naive.
    """
    summary = variant.summary
    return Glance(
        panel.title,
        variant.label,
        percent(summary.average_accuracy),
        _gain(summary, summary.to_naive) if summary.to_naive else None,
        summary.n,
    )


def percent(value: Estimate | None, signed: bool = False, note: str = "") -> Cell:
    """Write an estimate of a fraction in percent.

    :param value: the estimate, or None.
    :param signed: whether a plus is written too.
    :param note: what stands beside it.
    :return: the cell.
    """
    if value is None:
        return NOTHING
    mean = f"{100 * value.mean:+.1f}" if signed else f"{100 * value.mean:.1f}"
    mean = mean.replace("-", "\N{MINUS SIGN}") if float(mean) else "0.0"
    width = "" if value.half_width is None else f"{100 * value.half_width:.1f}"
    return Cell(mean, width, note)


def costs(panel: Panel) -> Table:
    """Tell what each variant cost.

    :param panel: what was measured on the same data.
    :return: a line for each variant with results.
    """
    return Table(
        panel.title,
        ("method", "ms per iteration", "times Naive's", "extra passes", "state", "trial (s)", "n"),
        tuple(
            Line(variant.label, _cost(variant.summary), _is_si(variant)) for variant in panel.ended
        ),
    )


def _cost(summary: Summary) -> tuple[Cell, ...]:
    return (
        Cell(f"{1e3 * known(summary.seconds_per_iteration):.3g}"),
        NOTHING if summary.time_ratio is None else Cell(f"{summary.time_ratio:.2f}"),
        Cell(passes(known(summary.extra_passes))),
        Cell(size(known(summary.extra_bytes))),
        Cell(f"{known(summary.seconds):.3g}"),
        Cell(str(summary.n)),
    )


def milliseconds(value: float) -> str:
    """Write a short time.

    :param value: seconds.
    :return: such as ``"0.94 ms"``.
    """
    return f"{1e3 * value:.3g} ms" if value < 1 else f"{value:.3g} s"


def duration(value: float) -> str:
    """Write a long time.

    :param value: seconds.
    :return: such as ``"41 s"``, ``"12 min"`` or ``"3.4 h"``.
    """
    if value < 100:
        return f"{value:.3g} s"
    return f"{value / 60:.3g} min" if value < 6000 else f"{value / 3600:.3g} h"


def passes(value: float) -> str:
    """Write a number of passes over the data.

    :param value: how many.
    :return: such as ``"1"`` or ``"0.2"``.
    """
    return f"{value:.2f}".rstrip("0").rstrip(".").replace("-0", "0", 1) if value else "0"


def against_ewc(panel: Panel) -> Table | None:
    """Hold SI against every kind of EWC.

    :param panel: what was measured on the same data.
    :return: a line for each measure, a column for each method at its best variant; None if SI or
        EWC has no results.
    """
    best = {variant.description.strategy: variant for variant in best_of_each(panel.ended)}
    rivals = [variant for name, variant in best.items() if name.startswith("ewc")]
    if "si" not in best or not rivals:
        return None
    si = best["si"]
    methods = [si, *rivals]
    told = [variant.summary for variant in methods]
    lines = [
        Line("average accuracy (%)", tuple(percent(each.average_accuracy) for each in told)),
        Line(
            "SI's accuracy less this one's (points)",
            (NOTHING, *(_pairs(si, rival) for rival in rivals)),
        ),
        Line("forgetting (%)", tuple(percent(each.forgetting) for each in told)),
        _compared(
            "time per iteration", milliseconds, [each.seconds_per_iteration for each in told]
        ),
        _compared("wall time of a trial", duration, [each.seconds for each in told]),
        _compared("passes beyond training", passes, [each.extra_passes for each in told]),
        _compared("state held beyond Naive's", size, [each.extra_bytes for each in told]),
        Line("n", tuple(Cell(str(each.n)) for each in told)),
    ]
    headings = ("", *(variant.label for variant in methods))
    return Table(panel.title, headings, tuple(lines))


def _pairs(si: Variant, rival: Variant) -> Cell:
    pairs = difference(accuracies(si.rows), accuracies(rival.rows))
    return percent(pairs, signed=True, note=f"n = {pairs.n}" if pairs else "")


def _compared(label: str, write: Callable[[float], str], values: Sequence[float | None]) -> Line:
    own, *others = (known(value) for value in values)
    cells = [Cell(write(own))]
    for value in others:
        note = f"{value / own:.3g} times SI's" if own > 0 and value > 0 else ""
        cells.append(Cell(write(value), note=note))
    return Line(label, tuple(cells))


def _is_si(variant: Variant) -> bool:
    return variant.description.strategy == "si"
