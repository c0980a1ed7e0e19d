"""The comparison drawn: accuracy after each experience, and accuracy matrices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from experiments.records import Result, Row
from experiments.statistics import Estimate, average_accuracy, estimate
from experiments.strategies import STRATEGIES
from experiments.streams import EXPERIENCES, SCENARIOS, STREAMS, outputs

# Colours that stay apart under the common colour-blindnesses (Okabe and Ito), with a line style
# or marker of their own where a colour has to serve twice. SI is the only heavy line.
_LOOKS: dict[str, dict[str, Any]] = {
    "naive": {"color": "#9a9a9a", "linewidth": 3.2},
    "si": {"color": "#d55e00", "linewidth": 2.8, "marker": "o", "zorder": 5},
    "si-avalanche": {"color": "#000000", "linestyle": (0, (2, 2)), "linewidth": 1.4},
    "ewc": {"color": "#0072b2", "marker": "s"},
    "ewc-online": {"color": "#0072b2", "marker": "s", "linestyle": (0, (4, 2)), "mfc": "white"},
    "mas": {"color": "#009e73", "marker": "^"},
    "lwf": {"color": "#cc79a7", "marker": "v"},
    "rwalk": {"color": "#56b4e9", "marker": "D"},
    "replay": {"color": "#e0a000", "marker": "P"},
    "cumulative": {"color": "#6a3d9a", "marker": "X"},
    "joint": {"color": "#6a3d9a", "marker": "*", "markersize": 11, "linestyle": "none"},
}
# Eleven bands on top of each other are mud; the table has all intervals.
_BANDS = ("naive", "si")
_DOTS_PER_INCH = 150


def draw_all(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Draw every figure that a record has the trials for.

    :param rows: the trials; failed ones are left out.
    :param folder: where the PNG files go.
    :return: the files.
    """
    paths = []
    for stream in STREAMS:
        of_stream = _group(rows, stream)
        if of_stream:
            paths.append(draw_accuracy(stream, of_stream, folder))
        paths += [
            draw_matrices(stream, scenario, of_scenario, folder)
            for scenario, of_scenario in of_stream.items()
        ]
    return paths


_Group = dict[str, list[Result]]


def _group(rows: Iterable[Row], stream: str) -> dict[str, _Group]:
    ended = [row for row in rows if row.result and row.description.stream == stream]
    groups: dict[str, _Group] = {}
    for scenario in SCENARIOS:
        for strategy in STRATEGIES:
            results = [
                row.result
                for row in ended
                if row.result
                and row.description.scenario == scenario
                and row.description.strategy == strategy
            ]
            if results:
                groups.setdefault(scenario, {})[strategy] = results
    return groups


def _figure(width: float, height: float) -> Figure:
    layout = ConstrainedLayoutEngine(h_pad=0.08, w_pad=0.06)
    return Figure(figsize=(width, height), dpi=_DOTS_PER_INCH, layout=layout)


def _save(figure: Figure, path: Path) -> Path:
    figure.savefig(path)
    return path


def draw_accuracy(stream: str, groups: dict[str, _Group], folder: Path) -> Path:
    """Draw the average accuracy after each experience, one panel per scenario.

    :param stream: the stream's name.
    :param groups: results by scenario and strategy.
    :param folder: where the file goes.
    :return: the file.
    """
    figure = _figure(4.2 * len(groups) + 2.2, 5.2)
    panels = figure.subplots(1, len(groups), squeeze=False)[0]
    handles: dict[str, Line2D] = {}
    for panel, (scenario, group) in zip(panels, groups.items(), strict=True):
        for strategy, results in group.items():
            handles[strategy] = _draw_curve(panel, strategy, results)
        _finish_panel(panel, scenario)
    panels[0].set_ylabel("average accuracy on the experiences so far (%)")
    order = [name for name in STRATEGIES if name in handles]
    figure.legend(
        [handles[name] for name in order],
        [STRATEGIES[name].label for name in order],
        loc="outside right center",
        frameon=False,
        handlelength=3.2,
        labelspacing=0.8,
    )
    seeds = max(len(results) for group in groups.values() for results in group.values())
    many = "s, bands: 95 % intervals of naive and SI" if seeds > 1 else ""
    figure.suptitle(
        f"{_headline(groups)}\n{_title(stream)}, mean of {seeds} seed{many}",
        x=0.01,
        ha="left",
        fontsize=11,
    )
    return _save(figure, folder / f"accuracy-{stream}.png")


def _title(stream: str) -> str:
    title = STREAMS[stream].title
    return title[0].upper() + title[1:]


def _headline(groups: dict[str, _Group]) -> str:
    def mean(scenario: str, strategy: str) -> float:
        return fmean(average_accuracy(each.accuracy) for each in groups[scenario][strategy])

    told = [s for s in groups if "si" in groups[s] and "naive" in groups[s]]
    if not told:
        return "Average accuracy after each experience"
    gains = [f"{round(100 * (mean(s, 'si') - mean(s, 'naive'))):+d} {s}" for s in told]
    return f"SI over naive training, points of final average accuracy: {', '.join(gains)}"


def _draw_curve(panel: Axes, strategy: str, results: list[Result]) -> Line2D:
    look = {"linewidth": 1.4, "markersize": 5.5, **_LOOKS[strategy]}
    points = [
        _so_far([each.accuracy for each in results], t) for t in range(len(results[0].accuracy))
    ]
    means = np.array([100 * point.mean for point in points])
    # A strategy trained once has seen everything: its only point belongs at the end.
    experiences = np.arange(EXPERIENCES - len(points), EXPERIENCES) + 1
    widths = np.array([100 * (point.half_width or 0.0) for point in points])
    if len(points) == 1:
        panel.errorbar(experiences, means, widths, color=look["color"], capsize=3)
    elif strategy in _BANDS:
        low, high = np.clip(means - widths, 0, 100), np.clip(means + widths, 0, 100)
        panel.fill_between(experiences, low, high, color=look["color"], alpha=0.18, lw=0)
    return panel.plot(experiences, means, **look)[0]


def _so_far(matrices: Sequence[Sequence[Sequence[float]]], row: int) -> Estimate:
    seen = slice(None) if len(matrices[0]) == 1 else slice(row + 1)
    return estimate([fmean(matrix[row][seen]) for matrix in matrices])


def _finish_panel(panel: Axes, scenario: str) -> None:
    chance = 100 / outputs(scenario)
    # As near as the curves allow, but never below chance, where there is nothing to tell apart.
    curves = np.concatenate([np.asarray(line.get_ydata()) for line in panel.lines])
    lowest = max(chance, 5 * np.floor((curves.min() - 2) / 5))
    room = 0.03 * (100 - lowest)
    panel.set_ylim(lowest - 2 * room, 100 + room)
    panel.axhline(chance, color="0.6", linewidth=0.8, linestyle=":", zorder=0)
    panel.set(title=SCENARIOS[scenario], xlabel="experiences learnt")
    arrow = "" if lowest == chance else "\N{DOWNWARDS ARROW} "
    panel.annotate(
        f"{arrow}chance {chance:.0f} %",
        (0.02, 0.015),
        xycoords="axes fraction",
        color="0.4",
        size=8,
    )
    panel.set_xticks(range(1, EXPERIENCES + 1))
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(axis="y", color="0.92")
    panel.set_axisbelow(True)


def draw_matrices(stream: str, scenario: str, group: _Group, folder: Path) -> Path:
    """Draw the accuracy matrix of every strategy, mean over seeds.

    :param stream: the stream's name.
    :param scenario: the scenario's name.
    :param group: results by strategy.
    :param folder: where the file goes.
    :return: the file.
    """
    columns = min(4, len(group))
    lines = -(-len(group) // columns)
    figure = _figure(2.9 * columns + 0.9, 2.75 * lines + 0.9)
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for panel in panels[len(group) :]:
        panel.set_axis_off()
    images = [
        _draw_matrix(panel, strategy, results)
        for panel, (strategy, results) in zip(panels, group.items(), strict=False)
    ]
    figure.colorbar(images[0], ax=panels.tolist(), label="accuracy (%)", shrink=0.6, pad=0.02)
    figure.supxlabel("experience evaluated", fontsize=10)
    figure.supylabel("experiences learnt", fontsize=10)
    figure.suptitle(
        f"{_title(stream)}, {SCENARIOS[scenario]}: "
        "what is still known of each experience (columns) as more are learnt (downwards)",
        x=0.01,
        ha="left",
        fontsize=11,
    )
    return _save(figure, folder / f"matrices-{stream}-{scenario}.png")


def _draw_matrix(panel: Axes, strategy: str, results: list[Result]) -> AxesImage:
    mean = 100 * np.mean([each.accuracy for each in results], axis=0)
    first = EXPERIENCES - len(mean)
    image = panel.imshow(mean, cmap="cividis", vmin=0, vmax=100)
    for (row, column), value in np.ndenumerate(mean):
        # What is not learnt yet is evaluated too, but is not the story.
        learnt = column <= row + first
        panel.text(
            column,
            row,
            f"{value:.0f}",
            ha="center",
            va="center",
            fontsize=8,
            alpha=1.0 if learnt else 0.45,
            color="black" if value > 55 else "white",
        )
    colour = _LOOKS["si"]["color"] if strategy == "si" else "black"
    weight = "bold" if strategy == "si" else "normal"
    panel.set_title(STRATEGIES[strategy].label, fontsize=10, color=colour, fontweight=weight)
    panel.set_xticks(range(EXPERIENCES), _numbers(1))
    panel.set_yticks(range(len(mean)), _numbers(first + 1))
    panel.tick_params(length=0, labelsize=8)
    return image


def _numbers(first: int) -> list[str]:
    return [str(number) for number in range(first, EXPERIENCES + 1)]
