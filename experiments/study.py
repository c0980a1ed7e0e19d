"""SI's own options against each other, each at its own best strength."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, groupby, product
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from experiments.compare import describe
from experiments.errors import BadValueError
from experiments.records import Choice, Description, Row
from experiments.search import Found, Run, Target, search
from experiments.si_options import DEFAULT, FAMILIES, in_family, variants_of
from experiments.statistics import (
    Estimate,
    accuracies,
    average_accuracy,
    difference,
    forgetting,
    over_seeds,
)
from experiments.strategies import STRATEGIES
from experiments.tables import percent
from experiments.tune import make_console, mark, remark

if TYPE_CHECKING:
    from rich.table import Table

SUMMARY = "options.csv"
COLUMNS = (
    *("stream", "scenario", "network", "variant", "c"),
    *("accuracy", "accuracy_half_width", "accuracy_n"),
    *("forgetting", "forgetting_half_width", "forgetting_n"),
    *("to_default", "to_default_half_width", "to_default_n"),
    "remark",
)
"""Of the summary: fractions, and empty fields for what there is not."""

NAIVE = "Naive"

Key: TypeAlias = tuple[str, str, str, str]
"""Stream, scenario, family, and the variant's label or ``NAIVE``."""


@dataclass(frozen=True)
class Line:
    """What the study says about one variant.

    :param strength: None for Naive, and for a variant that failed at every strength.
    :param mark: the strength as it is printed; see :func:`experiments.tune.mark`.
    :param accuracy: average accuracy on the test data; None if every seed failed.
    :param to_default: average accuracy less the default's of the same family, paired by seed;
        None for the default itself.
    :param remark: what to know about its search, and its first failure in the comparison.
    """

    key: Key
    strength: float | None
    mark: str
    accuracy: Estimate | None
    forgetting: Estimate | None
    to_default: Estimate | None
    remark: str


def study(choice: Choice, run: Run, folder: Path, trials: int, search_seeds: Sequence[int]) -> int:
    """Search a strength for each variant on validation data, then compare on the test data.

    :param choice: streams, scenarios and the seeds of the comparison; its strategies and its
        evaluation are not looked at.
    :param run: runs the trials, those of the search and those of the comparison.
    :param folder: where the summary goes.
    :param trials: strengths to try for each variant.
    :param search_seeds: the seeds of the search, none of which may be one of the comparison.
    :return: exit status, 0 unless every trial of the comparison failed.
    :raises BadValueError: if a seed is in both.
    """
    lines = compare_options(choice, run, trials, search_seeds)
    _tell(lines, folder / SUMMARY)
    return 0 if any(line.accuracy for line in lines) else 1


def compare_options(
    choice: Choice, run: Run, trials: int, search_seeds: Sequence[int]
) -> list[Line]:
    """Search and compare, as :func:`study` does.

    :param choice: streams, scenarios and the seeds of the comparison.
    :param run: runs the trials.
    :param trials: strengths to try for each variant.
    :param search_seeds: the seeds of the search.
    :return: Naive, the default and the variants of each family, in each scenario of each stream.
    :raises BadValueError: if a seed is in both.
    """
    if shared := sorted(set(choice.seeds) & set(search_seeds)):
        raise BadValueError(
            f"seeds {shared} are those of the search and of the comparison; a comparison needs "
            "seeds that had no part in the choice of its strengths"
        )
    keys = _keys(choice)
    found = search(_targets(choice, keys), search_seeds, trials, run)
    planned = {
        key: [_describe(choice, key, strength, seed) for seed in choice.seeds]
        for key in keys
        for strength in _strengths(found.get(key))
    }
    asked = list(dict.fromkeys(chain.from_iterable(planned.values())))
    rows = {row.description.name: row for row in run(asked)}
    by_key = {key: [rows[each.name] for each in planned.get(key, [])] for key in keys}
    return [_line(key, found.get(key), by_key) for key in keys]


def _keys(choice: Choice) -> list[Key]:
    return [
        (stream, scenario, family, label)
        for stream, scenario, family in product(choice.streams, choice.scenarios, FAMILIES)
        for trial in [describe(choice, stream, scenario, "si", choice.seeds[0], 1.0)]
        for label in (NAIVE, *variants_of(trial, family))
    ]


def _targets(choice: Choice, keys: Sequence[Key]) -> dict[Key, Target]:
    choice = replace(choice, evaluation="validation")
    limits = STRATEGIES["si"].search
    return {
        key: Target(*limits, partial(_describe, choice, key)) for key in keys if key[3] != NAIVE
    }


def _describe(choice: Choice, key: Key, strength: float | None, seed: int) -> Description:
    stream, scenario, family, label = key
    if label == NAIVE:
        return in_family(describe(choice, stream, scenario, "naive", seed, None), family)
    return variants_of(describe(choice, stream, scenario, "si", seed, strength), family)[label]


def _strengths(found: Found | None) -> list[float | None]:
    """List what to compare a variant at: nothing if it failed at every strength."""
    if found is None:
        return [None]
    return [found.best.strength] if found.best else []


def _line(key: Key, found: Found | None, rows: Mapping[Key, Sequence[Row]]) -> Line:
    stream, scenario, family, label = key
    own = rows[key]
    results = [row.result for row in own if row.result]
    failures = [f"seed {row.description.seed}: {row.failure}" for row in own if row.failure]
    told = (remark(found) if found else "", *failures[:1])
    default = accuracies(rows[stream, scenario, family, DEFAULT])
    return Line(
        key=key,
        strength=found.best.strength if found and found.best else None,
        mark=mark(found) if found else "-",
        accuracy=over_seeds(results, average_accuracy),
        forgetting=over_seeds(results, forgetting),
        to_default=None if label == DEFAULT else difference(accuracies(own), default),
        remark="; ".join(filter(None, told)),
    )


def _tell(lines: Sequence[Line], file: Path) -> None:
    console = make_console()
    for title, group in groupby(lines, lambda line: ", ".join(line.key[:3])):
        told = list(group)
        console.print(_table(title, told))
        for line in told:
            if line.remark:
                console.print(f"{line.key[3]}: {line.remark}")
    console.print(
        "Percent, mean ± half the 95 % Student interval over n seeds; each variant at its own "
        "strength c. Difference: to the default's accuracy, paired by seed."
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(COLUMNS)
        writer.writerows(_record(line) for line in lines)
    console.print(f"Summary in {file}")


def _table(title: str, lines: Sequence[Line]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, title=title)
    for name in ("variant", "c", "accuracy", "n", "forgetting", "difference", "pairs"):
        table.add_column(name, no_wrap=True)
    for line in lines:
        table.add_row(
            line.key[3],
            line.mark,
            percent(line.accuracy),
            str(line.accuracy.n if line.accuracy else 0),
            percent(line.forgetting),
            percent(line.to_default),
            str(line.to_default.n if line.to_default else "-"),
        )
    return table


def _record(line: Line) -> list[object]:
    estimates = (line.accuracy, line.forgetting, line.to_default)
    numbers = [
        (each.mean, each.half_width, each.n) if each else (None, None, 0) for each in estimates
    ]
    return [*line.key, line.strength, *chain.from_iterable(numbers), line.remark]
