"""The page: everything put together and written as one file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from experiments.records import Row
from experiments.report import facts, figures, tables
from experiments.report.importance import importances
from experiments.variants import Panel, best_of_each, make_panels

REPORT = "report.html"
_TEMPLATES = Path(__file__).with_name("templates")


def write_report(rows: Sequence[Row], folder: Path, title: str, notes: Sequence[str] = ()) -> Path:
    """Write the report of a results folder: one file, that reads and prints without any other.

    :param rows: the trials, ended or failed, of any streams, scenarios, strategies and options.
    :param folder: the folder of their record, ``trials.jsonl``, which the report links to.
    :param title: what was run, in a few words.
    :param notes: paragraphs for the reader, such as what a study asks; plain text.
    :return: the file.
    """
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html").render(_contents(rows), title=title, notes=notes)
    path = folder / REPORT
    # A failure's text may hold half a character, which no file can.
    path.write_text(page, encoding="utf-8", errors="backslashreplace")
    return path


def _contents(rows: Sequence[Row]) -> dict[str, Any]:
    panels = make_panels(rows)
    cut = facts.too_large(rows)
    places = facts.places(panels, cut)
    return {
        "count": len(rows),
        "ended": sum(row.result is not None for row in rows),
        "panels": panels,
        "settings": facts.shared_settings(rows),
        "versions": facts.versions(rows),
        "glance": _glance(panels),
        "places": places,
        "cut": cut,
        "failures": facts.failures(panels, places),
        "results": [tables.results(panel) for panel in panels],
        "costs": [tables.costs(panel) for panel in panels if panel.ended],
        "curves": _draw(figures.curves, panels, "curve"),
        "matrices": list(zip(panels, _drawn(figures.matrices, panels, "matrix"), strict=True)),
        "most_matrices": figures.MOST_MATRICES,
        "cost_figures": _draw(figures.costs, panels, "cost"),
        "against_ewc": [table for panel in panels if (table := tables.against_ewc(panel))],
        "importances": [each for panel in panels for each in importances(panel)],
    }


_Draw = Callable[[Panel, str], list[figures.Picture]]


def _drawn(draw: _Draw, panels: Sequence[Panel], key: str) -> list[list[figures.Picture]]:
    return [draw(panel, f"{key}-{number}") for number, panel in enumerate(panels)]


def _draw(draw: _Draw, panels: Sequence[Panel], key: str) -> list[figures.Picture]:
    return [picture for pictures in _drawn(draw, panels, key) for picture in pictures]


def _glance(panels: Sequence[Panel]) -> list[tables.Glance]:
    return [
        tables.glance(panel, variant)
        for panel in panels
        for variant in best_of_each(panel.ended)
        if variant.description.strategy == "si"
    ]
