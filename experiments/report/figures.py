"""The report's figures: small ones, that stand beside each other or below on a phone."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.drawing import (
    Cost,
    colour_of_title,
    draw_cost,
    draw_curves,
    draw_matrix,
    mean_matrix,
)
from experiments.report.inline import figure_style, inline
from experiments.statistics import known
from experiments.variants import Panel, Variant, best_of_each, label_of

# More lines than this cannot be told apart.
_MOST_LINES = 12
# Beyond this many variants on the same data, only the best of each strategy shows its matrix.
MOST_MATRICES = 24
_WIDTH = 4.1
_LINE_OF_LEGEND = 0.18
_SHORT_LABEL = 20
_LEGEND_WIDTH = 46


@dataclass(frozen=True)
class Picture:
    """One figure of the page.

    :param heading: what stands above it.
    :param caption: what stands below it.
    :param drawing: an SVG element.
    """

    heading: str
    caption: str
    drawing: Markup


def curves(panel: Panel, key: str) -> list[Picture]:
    """Draw accuracy after each experience.

    :param panel: what was measured on the same data.
    :param key: begins the ids in the figures.
    :return: one figure, or several if there is more than one can show; none without results.
    """
    pictures = []
    for number, (what, variants) in enumerate(_selections(panel)):
        with figure_style():
            figure = Figure(figsize=(_WIDTH, _height(2.5, variants)), layout="constrained")
            lines = draw_curves(figure.subplots(), variants)
            _add_legend(figure, lines, variants)
            label = f"Accuracy after each experience, {panel.title}: {_told(variants)}"
            drawing = inline(figure, f"{key}-{number}", label)
        pictures.append(Picture(panel.title, what, drawing))
    return pictures


def matrices(panel: Panel, key: str) -> list[Picture]:
    """Draw accuracy matrices, each the mean over seeds.

    :param panel: what was measured on the same data.
    :param key: begins the ids in the figures.
    :return: one figure for each variant with results; for the best of each strategy only if there
        are more than ``MOST_MATRICES``.
    """
    variants = panel.ended
    if len(variants) > MOST_MATRICES:
        variants = best_of_each(variants)
    return [_matrix(panel, variant, f"{key}-{i}") for i, variant in enumerate(variants)]


def _matrix(panel: Panel, variant: Variant, key: str) -> Picture:
    lines, columns = mean_matrix(variant).shape
    with figure_style():
        figure = Figure(figsize=(2.2, 2.0 * max(0.4, lines / columns)), layout="constrained")
        axes = figure.subplots()
        draw_matrix(axes, variant)
        axes.set(xlabel="evaluated on", ylabel="learnt")
        axes.title.set_color(colour_of_title(variant))
        drawing = inline(figure, key, f"Accuracy matrix of {variant.label}, {panel.title}")
    used, ended = len(variant.comparable), len(variant.results)
    left = "" if used == ended else f"; {ended - used} left out, their matrices have another shape"
    return Picture(variant.label, f"n = {used}{left}", drawing)


def costs(panel: Panel, key: str) -> list[Picture]:
    """Draw accuracy against time per iteration, and against the state held.

    :param panel: what was measured on the same data.
    :param key: begins the ids in the figures.
    :return: two figures; none without results.
    """
    shown = [variants for _, variants in _selections(panel)][:1]
    return [
        _cost_picture(panel, variants, cost, f"{key}-{number}")
        for variants in shown
        for number, cost in enumerate((_time(variants), _state(variants)))
    ]


def _cost_picture(panel: Panel, variants: Sequence[Variant], cost: Cost, key: str) -> Picture:
    with figure_style():
        figure = Figure(figsize=(_WIDTH, _height(2.3, variants)), layout="constrained")
        marks = draw_cost(figure.subplots(), variants, cost)
        _add_legend(figure, marks, variants)
        label = f"Accuracy against {cost.heading}, {panel.title}: {_told(variants)}"
        return Picture(panel.title, "", inline(figure, key, label))


def _time(variants: Sequence[Variant]) -> Cost:
    if any(variant.summary.time_ratio is None for variant in variants):
        return Cost(
            "time per iteration (ms)",
            lambda variant: 1e3 * known(variant.summary.seconds_per_iteration),
        )
    return Cost(
        "time per iteration, times Naive's", lambda variant: known(variant.summary.time_ratio)
    )


def _state(variants: Sequence[Variant]) -> Cost:
    largest = max(known(variant.summary.extra_bytes) for variant in variants)
    unit, name = (1e6, "MB") if largest >= 1e6 else (1e3, "kB")
    return Cost(
        f"state held beyond Naive's ({name})",
        lambda variant: known(variant.summary.extra_bytes) / unit,
    )


def _selections(panel: Panel) -> Iterator[tuple[str, Sequence[Variant]]]:
    """Choose what goes into one figure: at most ``_MOST_LINES`` that can be told apart."""
    variants = panel.ended
    best = best_of_each(variants)
    if not variants:
        return
    if len(best) > 1:
        several = len(best) < len(variants)
        yield "The best variant of each method." if several else "", best
    for strategy in dict.fromkeys(variant.description.strategy for variant in variants):
        own = [variant for variant in variants if variant.description.strategy == strategy]
        if len(own) > 1 or len(best) == 1:
            for first in range(0, len(own), _MOST_LINES):
                chunk = own[first : first + _MOST_LINES]
                yield f"Variants of {label_of(strategy)}.", chunk


def _told(variants: Sequence[Variant]) -> str:
    ends = [f"{each.label} {100 * each.mean_accuracy:.1f} %" for each in variants]
    return f"average accuracy at the end: {'; '.join(ends)}"


def _legend_columns(variants: Sequence[Variant]) -> int:
    return 2 if max(len(variant.label) for variant in variants) <= _SHORT_LABEL else 1


def _legend_labels(variants: Sequence[Variant]) -> list[str]:
    # A setting's name and its value stay on one line.
    joined = (variant.label.replace(" = ", "\u00a0=\u00a0") for variant in variants)
    return [textwrap.fill(label, _LEGEND_WIDTH) for label in joined]


def _height(axes: float, variants: Sequence[Variant]) -> float:
    lines = sum(label.count("\n") + 1 for label in _legend_labels(variants))
    return axes + _LINE_OF_LEGEND * -(-lines // _legend_columns(variants))


def _add_legend(figure: Figure, lines: Sequence[Line2D], variants: Sequence[Variant]) -> None:
    figure.legend(
        lines,
        _legend_labels(variants),
        loc="outside lower left",
        ncols=_legend_columns(variants),
        frameon=False,
        handlelength=2.8,
        labelspacing=0.35,
        columnspacing=1.2,
    )
