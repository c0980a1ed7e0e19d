"""The comparison drawn as PNG files: accuracy after each experience, and accuracy matrices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.drawing import colour_of_title, draw_curves, draw_matrix, make_figure
from experiments.records import Row
from experiments.variants import Panel, best_of_each, make_panels

_GAP = 0.08
_MOST_COLUMNS = 4


def draw_all(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Draw every figure that a record has the trials for.

    Of a strategy with several variants on the same data, the one with the highest average
    accuracy is drawn.

    :param rows: the trials; failed ones are left out.
    :param folder: where the PNG files go.
    :return: the files.
    """
    panels = [panel for panel in make_panels(rows) if panel.ended]
    paths = []
    names: Counter[str] = Counter()
    for stream in dict.fromkeys(panel.data.stream for panel in panels):
        own = [panel for panel in panels if panel.data.stream == stream]
        paths.append(_draw_accuracy(own, folder / f"accuracy-{stream}.png"))
        for panel in own:
            name = f"matrices-{stream}-{panel.data.scenario}"
            names[name] += 1
            # The same scenario comes again where the data differ in something else.
            again = f"-{names[name]}" if names[name] > 1 else ""
            paths.append(_draw_matrices(panel, folder / f"{name}{again}.png"))
    return paths


def _grid(figure: Figure, count: int) -> list[Axes]:
    columns = min(_MOST_COLUMNS, count)
    grid = figure.subplots(-(-count // columns), columns, squeeze=False).ravel()
    for rest in grid[count:]:
        rest.set_axis_off()
    return list(grid[:count])


def _size(count: int) -> tuple[int, int]:
    return min(_MOST_COLUMNS, count), -(-count // _MOST_COLUMNS)


def _draw_accuracy(panels: Sequence[Panel], path: Path) -> Path:
    columns, lines = _size(len(panels))
    figure = make_figure(4.2 * columns + 2.4, 4.4 * lines + 0.8, _GAP)
    handles: dict[str, Line2D] = {}
    for axes, panel in zip(_grid(figure, len(panels)), panels, strict=True):
        variants = best_of_each(panel.ended)
        drawn = draw_curves(axes, variants)
        handles |= {each.label: line for each, line in zip(variants, drawn, strict=True)}
        axes.set_title(panel.title, fontsize=10)
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside right center",
        frameon=False,
        handlelength=3.2,
        labelspacing=0.8,
    )
    figure.suptitle(_headline(panels), x=0.01, ha="left", fontsize=11)
    figure.savefig(path)
    return path


def _headline(panels: Sequence[Panel]) -> str:
    gains = [f"{gain:+.1f} {panel.data.scenario}" for panel in panels for gain in _gains(panel)]
    seeds = max(len(variant.results) for panel in panels for variant in panel.ended)
    bands = "s, bands: 95 % intervals of naive and SI" if seeds > 1 else ""
    told = (
        f"SI over naive training, points of final average accuracy: {', '.join(gains)}"
        if gains
        else "Average accuracy on the experiences so far"
    )
    return f"{told}\nmean of {seeds} seed{bands}"


def _gains(panel: Panel) -> list[float]:
    """Find by how many points SI is above Naive: one number, or none."""
    best = (each.summary for each in best_of_each(panel.ended))
    return [
        100 * si.to_naive.mean for si in best if si.description.strategy == "si" and si.to_naive
    ]


def _draw_matrices(panel: Panel, path: Path) -> Path:
    variants = best_of_each(panel.ended)
    columns, lines = _size(len(variants))
    figure = make_figure(2.9 * columns + 0.9, 2.75 * lines + 0.9, _GAP)
    grid = _grid(figure, len(variants))
    images = []
    for axes, variant in zip(grid, variants, strict=True):
        images.append(draw_matrix(axes, variant))
        axes.set_title(variant.label, fontsize=10, color=colour_of_title(variant))
        axes.tick_params(labelsize=8)
    figure.colorbar(images[0], ax=grid, label="accuracy (%)", shrink=0.6, pad=0.02)
    figure.supxlabel("experience evaluated", fontsize=10)
    figure.supylabel("experiences learnt", fontsize=10)
    figure.suptitle(
        f"{panel.title}: "
        "what is still known of each experience (columns) as more are learnt (downwards)",
        x=0.01,
        ha="left",
        fontsize=11,
    )
    figure.savefig(path)
    return path
