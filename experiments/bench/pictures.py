"""The rows drawn: ratios of every method, and how time grows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from experiments.bench.growth import FLOOR
from experiments.bench.methods import METHODS, OURS, PLAIN
from experiments.bench.rows import Row
from experiments.bench.through_avalanche import NAIVE, OUR_PLUGIN
from experiments.drawing import make_figure, tidy
from experiments.looks import Look, look_of

RATIOS, GROWTH = "ratios.png", "growth.png"

_SI = str(look_of("si")["color"])
_PEER, _PLAIN = "#0072b2", "#8a8a8a"
_GAP = 0.06
_LINES: dict[tuple[str, str], tuple[str, Look]] = {
    (PLAIN, "step"): ("whole step, no SI", {"color": _PLAIN, "marker": "x"}),
    (OURS, "step"): ("whole step, si-avalanche", {"color": _SI, "marker": "o", "mfc": "white"}),
    (OURS, "calls"): ("si-avalanche's calls alone", {"color": _SI, "marker": "o"}),
    (OURS, "consolidation"): ("consolidation", {"color": _PEER, "marker": "s"}),
    (FLOOR, "floor"): (
        "least memory traffic of a step",
        {"color": "black", "linestyle": (0, (4, 2)), "lw": 1.0},
    ),
}


def draw_all(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Draw every picture that there are rows for.

    :param rows: what was measured.
    :param folder: where the PNG files go.
    :return: the files.
    """
    return list(_drawn(rows, folder))


def _drawn(rows: Sequence[Row], folder: Path) -> Iterator[Path]:
    parts = {part: [row for row in rows if row.part == part] for part in (*_RATIOS, *_GROWTH)}
    beside = {part: parts[part] for part in _RATIOS if parts[part]}
    if beside:
        yield _draw_ratios(beside, folder / RATIOS)
    growing = {part: parts[part] for part in _GROWTH if parts[part]}
    if growing:
        yield _draw_growth(growing, folder / GROWTH)


_RATIOS = {
    "step": ("a step in a bare loop", PLAIN),
    "avalanche": ("an iteration through Avalanche", NAIVE),
}


def _draw_ratios(parts: dict[str, list[Row]], path: Path) -> Path:
    """One panel for each workload and part, one line of it for each method."""
    workloads = list(dict.fromkeys(row.workload for own in parts.values() for row in own))
    told = {
        part: [row for row in own if row.method != _RATIOS[part][1]] for part, own in parts.items()
    }
    methods = {part: list(dict.fromkeys(row.method for row in own)) for part, own in told.items()}
    heights = [len(names) + 1 for names in methods.values()]
    figure = make_figure(2.4 + 2.7 * len(workloads), 1.1 + 0.27 * sum(heights), _GAP)
    panels = figure.subplots(
        len(parts), len(workloads), squeeze=False, sharex=True, sharey="row", height_ratios=heights
    )
    for line, (part, own) in zip(panels, told.items(), strict=True):
        for panel, workload in zip(line, workloads, strict=True):
            _draw_dots(panel, [row for row in own if row.workload == workload], methods[part])
            panel.set_xlabel(_RATIOS[part][0])
    for panel, workload in zip(panels[0], workloads, strict=True):
        panel.set_title(workload, fontsize=10)
    ends = [(row.ratio_min or 1.0, row.ratio_max or 1.0) for own in told.values() for row in own]
    low, high = min(1.0, *(low for low, _ in ends)), max(1.0, *(high for _, high in ends))
    # Room for the numbers.
    panels[0][0].set_xlim(low - 0.05 * (high - low), high + 0.2 * (high - low))
    figure.suptitle(
        "Time with Synaptic Intelligence; without = 1. Dots: median, bars: all rounds",
        x=0.01,
        ha="left",
        fontsize=10,
    )
    figure.savefig(path)
    return path


def _draw_dots(panel: Axes, rows: Sequence[Row], methods: Sequence[str]) -> None:
    for row in rows:
        assert row.ratio_min is not None
        assert row.ratio_median is not None
        assert row.ratio_max is not None
        where = methods.index(row.method)
        own = row.method.startswith(OURS) or row.method == OUR_PLUGIN
        colour = _SI if own else _PEER
        if row.method == METHODS["least-traffic"].label:
            colour = "black"
        first_task = row.method == METHODS["ours-first-task"].label
        panel.plot([row.ratio_min, row.ratio_max], [where, where], color=colour, lw=1.5)
        panel.plot(
            row.ratio_median, where, "o", color=colour, mfc="white" if first_task else colour, ms=6
        )
        panel.annotate(
            f"{row.ratio_median:.2f}",
            (row.ratio_max, where),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=colour,
        )
    panel.axvline(1.0, color=_PLAIN, lw=1)
    panel.set_yticks(range(len(methods)), methods)
    panel.set_ylim(len(methods) - 0.4, -0.6)
    panel.tick_params(axis="y", length=0)
    tidy(panel, "x")


_GROWTH: dict[str, tuple[str, Callable[[Row], int | None]]] = {
    "parameters": ("parameters", lambda row: row.parameters),
    "tensors": ("tensors", lambda row: row.tensors),
    "tasks": ("tasks so far", lambda row: row.tasks),
}


def _draw_growth(parts: dict[str, list[Row]], path: Path) -> Path:
    figure = make_figure(0.6 + 3.4 * len(parts), 4.0, _GAP)
    shown: dict[str, Line2D] = {}
    for panel, (part, rows) in zip(
        figure.subplots(1, len(parts), squeeze=False)[0], parts.items(), strict=True
    ):
        shown |= _draw_lines(panel, rows, _GROWTH[part][1])
        panel.set(xlabel=_GROWTH[part][0], ylabel="milliseconds")
        if part == "tasks":
            panel.set(xlim=(0, None), ylim=(0, None))
        else:
            panel.set(xscale="log", yscale="log")
        panel.set_title(_story(part, rows), fontsize=10)
        tidy(panel)
    figure.legend(
        shown.values(), shown.keys(), loc="outside lower center", ncols=3, frameon=False, fontsize=9
    )
    figure.suptitle(
        "How the time of a step grows. Lines: median, bands: all rounds",
        x=0.01,
        ha="left",
        fontsize=10,
    )
    figure.savefig(path)
    return path


def _story(part: str, rows: Sequence[Row]) -> str:
    if part == "parameters":
        return f"more parameters, in {rows[0].tensors} tensors"
    if part == "tensors":
        return f"more tensors, {rows[0].parameters:.0e} parameters".replace("e+0", "e")
    return f"more tasks, {rows[0].workload}"


def _draw_lines(
    panel: Axes, rows: Sequence[Row], of: Callable[[Row], int | None]
) -> dict[str, Line2D]:
    shown = {}
    for (method, what), (label, look) in _LINES.items():
        own = [row for row in rows if (row.method, row.what) == (method, what)]
        if own:
            where = [of(row) or 0 for row in own]
            low, middle, high = (
                [1e3 * getattr(row, f"seconds_{name}") for row in own]
                for name in ("min", "median", "max")
            )
            panel.fill_between(where, low, high, color=look["color"], alpha=0.12, lw=0)
            (shown[label],) = panel.plot(where, middle, **{"ms": 4.5, "lw": 1.5, **look})
    return shown
