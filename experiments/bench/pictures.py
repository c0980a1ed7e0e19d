"""The rows drawn: ratios of every method, and how time grows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from experiments.bench.methods import METHODS, ONE_PASS_FUSED, OURS, PLAIN, PLAIN_FUSED
from experiments.bench.rows import Row
from experiments.bench.through_avalanche import NAIVE_FUSED, OUR_PLUGIN
from experiments.drawing import make_figure, tidy
from experiments.looks import Look, look_of

RATIOS, GROWTH = "ratios.png", "growth.png"

_SI = str(look_of("si")["color"])
_PEER, _PLAIN = "#0072b2", "#8a8a8a"
_GAP = 0.06
_DASHED = (0, (3, 2))
_BESIDE = 2
_LINES: dict[tuple[str, str], tuple[str, Look]] = {
    (PLAIN, "step"): (PLAIN, {"color": _PLAIN, "marker": "x"}),
    (OURS, "step"): (OURS, {"color": _SI, "marker": "o"}),
    (PLAIN_FUSED, "step"): (PLAIN_FUSED, {"color": _PLAIN, "marker": "x", "linestyle": _DASHED}),
    (ONE_PASS_FUSED, "step"): (
        ONE_PASS_FUSED,
        {"color": _SI, "marker": "D", "linestyle": _DASHED},
    ),
    (OURS, "consolidation"): ("consolidation", {"color": _PEER, "marker": "s"}),
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
    "step": "",
    "avalanche": ", through Avalanche",
}
_TITLE = (
    "Time of a step; without SI, with Adam = 1. Dots: median, bars: all rounds.\n"
    "Dashed line, second number: against no SI with Adam(fused=True)."
)


def _draw_ratios(parts: dict[str, list[Row]], path: Path) -> Path:
    """One panel for each workload and part, one line of it for each method."""
    workloads = list(dict.fromkeys(row.workload for own in parts.values() for row in own))
    methods = {
        part: list(dict.fromkeys(row.method for row in own))[1:] for part, own in parts.items()
    }
    heights = [len(names) + 1.5 for names in methods.values()]
    lines = -(-len(workloads) // _BESIDE)
    figure = make_figure(2.6 + 3 * _BESIDE, 0.7 + lines * (0.4 + 0.24 * sum(heights)), _GAP)
    panels = figure.subplots(
        lines * len(parts), _BESIDE, squeeze=False, sharex=True, height_ratios=heights * lines
    )
    for panel in panels.flat:
        panel.set_axis_off()
    for number, workload in enumerate(workloads):
        line, column = divmod(number, _BESIDE)
        for place, (part, rows) in enumerate(parts.items(), start=line * len(parts)):
            panel = panels[place][column]
            panel.set_axis_on()
            _draw_dots(panel, [row for row in rows if row.workload == workload], methods[part])
            panel.set_title(workload + _RATIOS[part], fontsize=9, loc="left")
            panel.tick_params(labelleft=column == 0, labelbottom=True)
    _set_scale(panels[0][0], [row for own in parts.values() for row in own])
    figure.suptitle(_TITLE, x=0.01, ha="left", fontsize=10)
    figure.savefig(path)
    return path


def _set_scale(panel: Axes, rows: Sequence[Row]) -> None:
    """Let equal ratios lie equally far apart, with room for the numbers."""
    low = min(row.ratio_min or 1.0 for row in rows)
    high = max(row.ratio_max or 1.0 for row in rows)
    panel.set_xscale("log")
    fine = (0.4, 0.6, 0.8, 1, 1.5, 2, 3, 5)
    panel.set_xticks(fine if high / low < 20 else (0.1, 1, 10, 100))
    panel.set_xlim(0.95 * low, 1.05 * high * (high / low) ** 0.45)
    panel.xaxis.set_major_formatter("{x:g}")
    panel.xaxis.set_minor_locator(NullLocator())


def _draw_dots(panel: Axes, rows: Sequence[Row], methods: Sequence[str]) -> None:
    for row in rows[1:]:
        where = methods.index(row.method)
        colour, marker = _colour_of(row.method), "D" if "one pass" in row.method else "o"
        hollow = row.method == METHODS["ours-first-task"].label
        low, middle, high = (getattr(row, f"ratio_{end}") for end in ("min", "median", "max"))
        panel.plot([low, high], [where, where], color=colour, lw=1.5)
        look: Look = {"color": colour, "mfc": "white" if hollow else colour, "ms": 5}
        panel.plot(middle, where, marker, **look)
        panel.annotate(
            f"{middle:.2f} / {row.fused_ratio_median:.2f}",
            (high, where),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=colour,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        )
        if row.method in (PLAIN_FUSED, NAIVE_FUSED):
            panel.axvline(middle, color=_PLAIN, lw=1, linestyle=_DASHED)
    panel.axvline(1.0, color=_PLAIN, lw=1)
    panel.set_yticks(range(len(methods)), methods, fontsize=9)
    panel.set_ylim(len(methods) - 0.4, -0.6)
    panel.tick_params(axis="y", length=0)
    tidy(panel, "x")


def _colour_of(method: str) -> str:
    if method in (PLAIN_FUSED, NAIVE_FUSED):
        return _PLAIN
    if method == METHODS["least-traffic"].label:
        return "black"
    return _SI if method.startswith((OURS, OUR_PLUGIN)) else _PEER


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
