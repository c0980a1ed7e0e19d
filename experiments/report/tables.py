"""The report's tables: what stands in each line, as text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import median

from experiments.records import Matrix
from experiments.report.figures import seconds, state, time_ratio
from experiments.statistics import (
    Estimate,
    Summary,
    average_accuracy,
    difference,
    estimate,
    forgetting,
)
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


def results(panel: Panel, summaries: Sequence[Summary]) -> Table:
    """Tell what was measured: accuracy, forgetting, and differences to Naive and the best baseline.

    :param panel: what was measured on the same data.
    :param summaries: the record's, for the best baseline of each variant.
    :return: a line for each variant, also for one of which every trial failed.
    """
    return Table(
        panel.title,
        ("method", "average accuracy", "forgetting", "over Naive", "over the best baseline", "n"),
        tuple(
            Line(variant.label, _measured(panel, variant, summaries), _is_si(variant))
            for variant in panel.variants
        ),
    )


def _measured(panel: Panel, variant: Variant, summaries: Sequence[Summary]) -> tuple[Cell, ...]:
    accuracy = estimate_of(variant, average_accuracy)
    return (
        percent(accuracy),
        percent(estimate_of(variant, forgetting)),
        to_naive(panel, variant),
        to_best(variant, summaries),
        Cell(f"{len(variant.results)}/{_seeds(variant)}" if failed(variant) else str(_n(accuracy))),
    )


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
    accuracy = percent(estimate_of(variant, average_accuracy))
    gain = to_naive(panel, variant)
    return Glance(
        panel.title,
        variant.label,
        accuracy,
        gain if gain != NOTHING else None,
        len(variant.results),
    )


def _n(value: Estimate | None) -> int:
    return value.n if value else 0


def failed(variant: Variant) -> int:
    """Count the seeds of which no trial ended.

    :param variant: any.
    :return: how many.
    """
    return _seeds(variant) - len(variant.results)


def _seeds(variant: Variant) -> int:
    return len({row.description.seed for row in variant.rows})


def to_naive(panel: Panel, variant: Variant) -> Cell:
    """Tell by how many points a variant's accuracy is above Naive's, paired by seed.

    :param panel: where the variant stands.
    :param variant: one of its variants.
    :return: nothing for Naive itself, without a Naive trained alike, or without a common seed.
    """
    naive = panel.naive_for(variant)
    if naive is None or naive == variant:
        return NOTHING
    pairs = difference(accuracies(variant), accuracies(naive))
    note = f"n = {pairs.n}" if pairs and pairs.n != len(variant.results) else ""
    return percent(pairs, signed=True, note=note)


def to_best(variant: Variant, summaries: Sequence[Summary]) -> Cell:
    """Tell by how many points a variant's accuracy is above the best baseline's, paired by seed.

    :param variant: one of a panel's.
    :param summaries: the record's.
    :return: the difference, with the baseline's name and the number of pairs; nothing without one.
    """
    key = replace(variant.description, seed=0)
    summary = next(each for each in summaries if each.description == key)
    if summary.to_best is None or summary.best is None:
        return NOTHING
    label = label_of(summary.best.strategy)
    pairs = summary.to_best.n
    note = label if pairs == len(variant.results) else f"{label}, n = {pairs}"
    return percent(summary.to_best, signed=True, note=note)


def accuracies(variant: Variant) -> dict[int, float]:
    """Gather average accuracies.

    :param variant: any.
    :return: fractions by seed.
    """
    return {seed: average_accuracy(each.accuracy) for seed, each in variant.results.items()}


def estimate_of(variant: Variant, metric: Callable[[Matrix], float | None]) -> Estimate | None:
    """Estimate a metric over seeds.

    :param variant: any.
    :param metric: of an accuracy matrix; None where it says nothing.
    :return: the estimate, None if there is no value.
    """
    values = [metric(result.accuracy) for result in variant.results.values()]
    known = [value for value in values if value is not None]
    return estimate(known) if known else None


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
            Line(variant.label, _cost(panel, variant), _is_si(variant)) for variant in panel.ended
        ),
    )


def _cost(panel: Panel, variant: Variant) -> tuple[Cell, ...]:
    ratio = time_ratio(panel, variant)
    return (
        Cell(f"{1e3 * seconds(variant):.3g}"),
        NOTHING if ratio is None else Cell(f"{ratio:.2f}"),
        Cell(passes(_passes(variant))),
        Cell(size(state(variant))),
        Cell(f"{_duration(variant):.3g}"),
        Cell(str(len(variant.results))),
    )


def _passes(variant: Variant) -> float:
    return median(result.extra_passes for result in variant.results.values())


def _duration(variant: Variant) -> float:
    return median(result.seconds for result in variant.results.values())


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
    lines = [
        Line("average accuracy (%)", _over(methods, average_accuracy)),
        Line(
            "SI's accuracy less this one's (points)",
            (NOTHING, *(_pairs(si, rival) for rival in rivals)),
        ),
        Line("forgetting (%)", _over(methods, forgetting)),
        _compared("time per iteration", methods, seconds, milliseconds),
        _compared("wall time of a trial", methods, _duration, duration),
        _compared("passes beyond training", methods, _passes, passes),
        _compared("state held beyond Naive's", methods, state, size),
        Line("n", tuple(Cell(str(len(variant.results))) for variant in methods)),
    ]
    headings = ("", *(variant.label for variant in methods))
    return Table(panel.title, headings, tuple(lines))


def _over(methods: Iterable[Variant], metric: Callable[[Matrix], float | None]) -> tuple[Cell, ...]:
    return tuple(percent(estimate_of(variant, metric)) for variant in methods)


def _pairs(si: Variant, rival: Variant) -> Cell:
    pairs = difference(accuracies(si), accuracies(rival))
    return percent(pairs, signed=True, note=f"n = {pairs.n}" if pairs else "")


def _compared(
    label: str,
    methods: Sequence[Variant],
    measure: Callable[[Variant], float],
    write: Callable[[float], str],
) -> Line:
    own = measure(methods[0])
    cells = [Cell(write(own))]
    for variant in methods[1:]:
        value = measure(variant)
        note = f"{value / own:.3g} times SI's" if own > 0 and value > 0 else ""
        cells.append(Cell(write(value), note=note))
    return Line(label, tuple(cells))


def _is_si(variant: Variant) -> bool:
    return variant.description.strategy == "si"
