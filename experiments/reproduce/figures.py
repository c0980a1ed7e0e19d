"""A reproduction drawn in the form of the paper's own figure, the published values beside."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from experiments.drawing import make_figure, tidy
from experiments.protocols import Protocol
from experiments.reproduce.outcomes import Outcome
from experiments.statistics import Estimate
from experiments.streams import SCENARIOS

# Okabe and Ito: SI is warm, whatever stands beside it; the plain run is grey.
_COLOURS = {"naive": ("#8a8a8a",), "si": ("#d55e00", "#e69f00")}
_OTHERS = ("#0072b2", "#009e73", "#cc79a7")
_GAP = 0.06


def draw(protocol: Protocol, outcomes: Sequence[Outcome], path: Path) -> Path:
    """Draw what was measured and, where nothing was reduced, what was published.

    :param protocol: what was reproduced; its ``figure`` names the form.
    :param outcomes: its runs; those without a result are left out.
    :param path: the PNG file to write.
    :return: the file.
    """
    ended = [each for each in outcomes if each.n]
    figure = _FORMS[protocol.figure](protocol, ended)
    reduced = any(each.reduced for each in ended)
    note = "hollow: published" if not all(each.reduced for each in ended) else ""
    intervals = any(each.n > 1 for each in ended)
    measured = (
        "filled: measured, bars 95 % intervals" if intervals else "filled: measured, one seed"
    )
    state = "reduced run, not compared" if reduced else ""
    figure.suptitle(
        f"{protocol.title}: {protocol.measure}\n"
        + "; ".join(filter(None, (measured, note, state))),
        x=0.01,
        ha="left",
        fontsize=10,
    )
    figure.savefig(path)
    return path


def _colours(outcomes: Sequence[Outcome]) -> list[str]:
    """Choose a colour for each label: a run keeps its own from one scenario to the next."""
    left = {strategy: list(colours) for strategy, colours in _COLOURS.items()}
    others = list(_OTHERS)
    chosen: dict[str, str] = {}
    for each in outcomes:
        if each.run.label not in chosen:
            chosen[each.run.label] = left.get(each.run.description.strategy, others).pop(0)
    return [chosen[each.run.label] for each in outcomes]


def _panels(_protocol: Protocol, outcomes: Sequence[Outcome]) -> Figure:
    tasks = len(outcomes[0].tasks)
    colours = _colours(outcomes)
    figure = make_figure(2.1 * (tasks + 1) + 0.6, 3.4, _GAP)
    axes = figure.subplots(1, tasks + 1, sharey=True)
    numbers = np.arange(1.0, tasks + 1)
    for task, panel in enumerate(axes[:-1]):
        for colour, each in zip(colours, outcomes, strict=True):
            _line(panel, numbers[task:], each.per_task[task][task:], colour, each.run.label)
            if each.run.published.tasks and not each.reduced:
                _hollow(panel, numbers[-1:], each.run.published.tasks[task : task + 1], colour)
        panel.set_title(f"task {task + 1}", fontsize=10)
    for colour, each in zip(colours, outcomes, strict=True):
        _curve_of(axes[-1], each, colour)
    axes[-1].set_title("average so far", fontsize=10, fontweight="bold")
    for panel in axes:
        tidy(panel)
        panel.set_xticks(numbers)
        panel.set_xlim(0.6, tasks + 0.4)
    axes[0].set_ylabel("accuracy (%)")
    figure.supxlabel("tasks learnt", fontsize=10)
    _legend(figure, axes[-1], "outside upper right")
    return figure


def _curve(_protocol: Protocol, outcomes: Sequence[Outcome]) -> Figure:
    figure = make_figure(7.2, 4.2, _GAP)
    panel = figure.subplots()
    for colour, each in zip(_colours(outcomes), outcomes, strict=True):
        _curve_of(panel, each, colour)
    panel.set_xticks(range(1, len(outcomes[0].tasks) + 1))
    panel.set(xlabel="tasks learnt", ylabel="average accuracy so far (%)")
    tidy(panel)
    _legend(figure, panel)
    return figure


def _bars(_protocol: Protocol, outcomes: Sequence[Outcome]) -> Figure:
    tasks = len(outcomes[0].tasks)
    figure = make_figure(1.3 * (tasks + 1) + 2, 4, _GAP)
    panel = figure.subplots()
    width = 0.8 / len(outcomes)
    for number, (colour, each) in enumerate(zip(_colours(outcomes), outcomes, strict=True)):
        assert each.mean is not None
        places = np.arange(tasks + 1) + (number - (len(outcomes) - 1) / 2) * width
        heights, halves = _percent([*each.tasks, each.mean])
        panel.bar(places, heights, 0.9 * width, color=colour, label=each.run.label)
        panel.errorbar(places, heights, halves, fmt="none", ecolor="black", lw=1)
        if not each.reduced:
            published = [*each.run.published.tasks, each.run.published.mean]
            _hollow(panel, places, published, "black")
    panel.set_xticks(range(tasks + 1), [*(f"task {t + 1}" for t in range(tasks)), "mean"])
    panel.set_ylabel("accuracy after the last task (%)")
    tidy(panel)
    _legend(figure, panel)
    return figure


def _scenarios(protocol: Protocol, outcomes: Sequence[Outcome]) -> Figure:
    shown = [s for s in SCENARIOS if any(o.run.description.data.scenario == s for o in outcomes)]
    colours = dict(zip((o.run.name for o in outcomes), _colours(outcomes), strict=True))
    figure = make_figure(3.4 * len(shown) + 0.6, 3.4, _GAP)
    axes = figure.subplots(1, len(shown), squeeze=False)[0]
    for panel, scenario in zip(axes, shown, strict=True):
        inside = [o for o in outcomes if o.run.description.data.scenario == scenario]
        inside.reverse()
        for place, each in enumerate(inside):
            assert each.mean is not None
            colour = colours[each.run.name]
            mean, half = 100 * each.mean.mean, 100 * (each.mean.half_width or 0.0)
            panel.errorbar(mean, place, xerr=half, fmt="o", color=colour, capsize=3, ms=7)
            if not each.reduced:
                error = 100 * (each.run.published.error or 0.0)
                look: dict[str, Any] = {"fmt": "o", "mfc": "white", "color": colour, "ms": 7}
                place_of = (100 * each.run.published.mean, place - 0.25)
                panel.errorbar(*place_of, xerr=error, capsize=3, **look)
        panel.set_yticks(range(len(inside)), [each.run.label for each in inside])
        panel.set_ylim(-0.7, len(inside) - 0.5)
        panel.margins(x=0.12)
        panel.set(title=SCENARIOS[scenario], xlabel="mean accuracy (%)")
        tidy(panel, "x")
    return figure


_FORMS = {"panels": _panels, "curve": _curve, "bars": _bars, "scenarios": _scenarios}


def _curve_of(panel: Axes, each: Outcome, colour: str) -> None:
    numbers = np.arange(1.0, len(each.curve) + 1)
    _line(panel, numbers, each.curve, colour, each.run.label)
    if each.run.published.curve and not each.reduced:
        _hollow(panel, numbers, each.run.published.curve, colour)


def _line(
    panel: Axes, places: NDArray[Any], estimates: Sequence[Estimate], colour: str, label: str
) -> None:
    means, halves = _percent(estimates)
    look: dict[str, Any] = {"color": colour, "ms": 4.5, "capsize": 2}
    panel.errorbar(places, means, halves, fmt="o-", lw=1.6, label=label, **look)


def _hollow(panel: Axes, places: NDArray[Any], published: Sequence[float], colour: str) -> None:
    values = 100 * np.asarray(published)
    panel.plot(places, values, "s", mfc="none", mec=colour, ms=7, mew=1.2, zorder=4, ls="none")


def _percent(estimates: Sequence[Estimate]) -> tuple[Any, Any]:
    means = np.array([100 * each.mean for each in estimates])
    return means, np.array([100 * (each.half_width or 0.0) for each in estimates])


def _legend(
    figure: Figure,
    panel: Axes,
    place: Literal["outside lower center", "outside upper right"] = "outside lower center",
) -> None:
    handles, labels = panel.get_legend_handles_labels()
    figure.legend(handles, labels, loc=place, ncols=len(labels), frameon=False)
