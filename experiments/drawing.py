"""The figures' contents, each drawn on axes that are given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from experiments.looks import Look, look_of, looks_for
from experiments.records import Matrix
from experiments.statistics import Estimate, estimate
from experiments.variants import Variant

# Many bands on top of each other are mud; the table has all intervals.
_BANDS = ("naive", "si")
# With more cells than this in a line no number is readable.
_MOST_NUMBERS = 10
_MOST_MARKERS = 12
_DOTS_PER_INCH = 150


@dataclass(frozen=True)
class Cost:
    """A cost to draw accuracy against.

    :param heading: the axis' label.
    :param of: the cost of a variant with results.
    """

    heading: str
    of: Callable[[Variant], float]


def make_figure(width: float, height: float, gap: float) -> Figure:
    """Make an empty figure that is as sharp as all others.

    :param width: in inches.
    :param height: in inches.
    :param gap: above and below each panel, in inches.
    :return: the figure.
    """
    layout = ConstrainedLayoutEngine(h_pad=gap, w_pad=0.06)
    return Figure(figsize=(width, height), dpi=_DOTS_PER_INCH, layout=layout)


def tidy(panel: Axes, lines: Literal["x", "y"] = "y") -> None:
    """Leave of a frame what helps to read values.

    :param panel: what to draw on.
    :param lines: the axis whose values have thin lines behind them.
    """
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(axis=lines, color="0.92")
    panel.set_axisbelow(True)


def draw_curves(panel: Axes, variants: Sequence[Variant]) -> list[Line2D]:
    """Draw the average accuracy on the experiences so far, after each experience.

    :param panel: where.
    :param variants: what, each with at least one result.
    :return: the lines, one for each variant.
    """
    lines = [
        _draw_curve(panel, variant, look)
        for variant, look in zip(variants, looks_for(variants), strict=True)
    ]
    panel.set(xlabel="experiences learnt", ylabel="accuracy so far (%)")
    panel.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True, min_n_ticks=1))
    tidy(panel)
    return lines


def _draw_curve(panel: Axes, variant: Variant, look: Look) -> Line2D:
    matrices = [result.accuracy for result in variant.comparable.values()]
    points = [_so_far(matrices, row) for row in range(len(matrices[0]))]
    means = np.array([100 * point.mean for point in points])
    widths = np.array([100 * (point.half_width or 0.0) for point in points])
    count = len(matrices[0][0])
    # A strategy trained once has seen everything: its only point belongs at the end.
    learnt = np.arange(len(points)) + max(0, count - len(points)) + 1
    if len(points) == 1:
        panel.errorbar(learnt, means, widths, color=look["color"], capsize=3)
    elif variant.description.strategy in _BANDS:
        low, high = np.clip(means - widths, 0, 100), np.clip(means + widths, 0, 100)
        panel.fill_between(learnt, low, high, color=look["color"], alpha=0.15, lw=0)
    return panel.plot(learnt, means, markevery=-(-len(points) // _MOST_MARKERS), **look)[0]


def _so_far(matrices: Sequence[Matrix], row: int) -> Estimate:
    first = max(0, len(matrices[0][row]) - len(matrices[0]))
    return estimate([fmean(matrix[row][: first + row + 1]) for matrix in matrices])


def mean_matrix(variant: Variant) -> NDArray[np.float64]:
    """Average a variant's accuracy matrices over seeds.

    :param variant: with at least one result.
    :return: per cent, row ``t`` after training on experience ``t``, column ``i`` on experience
        ``i``.
    """
    matrices = [result.accuracy for result in variant.comparable.values()]
    mean: NDArray[np.float64] = 100 * np.mean(matrices, axis=0)
    return mean


def draw_matrix(panel: Axes, variant: Variant) -> AxesImage:
    """Draw a variant's accuracy matrix, mean over seeds.

    :param panel: where.
    :param variant: what, with at least one result.
    :return: the image, for a colour bar.
    """
    mean = mean_matrix(variant)
    lines, columns = mean.shape
    first = max(0, columns - lines)
    extent = (0.5, columns + 0.5, first + lines + 0.5, first + 0.5)
    image = panel.imshow(mean, cmap="cividis", vmin=0, vmax=100, extent=extent)
    if columns <= _MOST_NUMBERS:
        _number_cells(panel, mean, first)
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=10, integer=True, min_n_ticks=1))
    panel.tick_params(length=0)
    return image


def _number_cells(panel: Axes, mean: NDArray[np.float64], first: int) -> None:
    for (row, column), value in np.ndenumerate(mean):
        # What is not learnt yet is evaluated too, but is not the story.
        learnt = column <= row + first
        panel.text(
            column + 1,
            row + first + 1,
            f"{value:.0f}",
            ha="center",
            va="center",
            alpha=1.0 if learnt else 0.5,
            color="black" if value > 55 else "white",
        )


def colour_of_title(variant: Variant) -> str:
    """Choose the colour that a variant's name is written in.

    :param variant: any.
    :return: SI's own colour, black for all others.
    """
    strategy = variant.description.strategy
    return str(look_of("si")["color"]) if strategy == "si" else "black"


def draw_cost(panel: Axes, variants: Sequence[Variant], cost: Cost) -> list[Line2D]:
    """Draw average accuracy, with its interval, against a cost.

    :param panel: where.
    :param variants: what, each with at least one result and a known cost.
    :param cost: which.
    :return: the marks, one for each variant.
    """
    marks = []
    for variant, look in zip(variants, looks_for(variants), strict=True):
        point = variant.summary.average_accuracy
        assert point is not None
        mark = {**look, "linestyle": "none", "markersize": 1.35 * look["markersize"]}
        where = (cost.of(variant), 100 * point.mean)
        panel.errorbar(*where, 100 * (point.half_width or 0.0), color=look["color"], lw=1)
        marks += panel.plot(*where, **mark)
    panel.set(xlabel=cost.heading, ylabel="average accuracy (%)")
    # Costs start at zero, and marks stand clear of the border.
    largest = max(cost.of(variant) for variant in variants) or 1.0
    panel.set_xlim(-0.05 * largest, 1.06 * largest)
    tidy(panel)
    return marks
