"""The search of strengths: a plain grid per method, on a part cut from the training set."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import fmean

from rich.console import Console

from experiments.compare import describe, run_and_record
from experiments.records import Choice, Description, Place, Row
from experiments.results import make_folder
from experiments.statistics import average_accuracy
from experiments.strategies import STRATEGIES
from experiments.streams import STREAMS, VALIDATION_SHARE
from experiments.strengths import write_section


@dataclass(frozen=True)
class Found:
    """What the grid says about one method.

    :param accuracy: average accuracy on the validation part, mean over seeds.
    :param at_edge: whether the strength is the first or the last of its grid.
    :param flat: whether every strength gave the same accuracy.
    """

    strength: float
    accuracy: float
    at_edge: bool
    flat: bool


def plan(choice: Choice) -> list[Description]:
    """List the trials of a search: every strength of every method's grid, with every seed.

    :param choice: what the user chose.
    :return: the trials.
    """
    return [
        describe(choice, stream, scenario, method, seed, strength)
        for stream, scenario, method, seed in product(
            choice.streams, choice.scenarios, choice.strategies, choice.seeds
        )
        for strength in STRATEGIES[method].grid
    ]


def best(rows: Sequence[Row]) -> Found:
    """Choose a method's strength by its accuracy on the validation part.

    :param rows: trials of one method in one scenario; one that failed counts as accuracy 0, so
        that no strength wins by failing where it is hard.
    :return: the best strength; the middle one of those that do equally well.
    """
    scores: dict[float, list[float]] = defaultdict(list)
    for row in rows:
        if row.description.strength is not None:
            score = average_accuracy(row.result.accuracy) if row.result else 0.0
            scores[row.description.strength].append(score)
    means = {strength: fmean(values) for strength, values in sorted(scores.items())}
    top = max(means.values())
    equals = [strength for strength, mean in means.items() if mean == top]
    chosen = equals[len(equals) // 2]
    return Found(
        strength=chosen,
        accuracy=top,
        at_edge=chosen in (min(means), max(means)),
        flat=len(equals) == len(means),
    )


def tune(choice: Choice, place: Place, processes: int, folder: Path) -> int:
    """Search the strengths, and print them in the form of strengths.toml.

    :param choice: what to search.
    :param place: where data are read.
    :param processes: how many trials run at once.
    :param folder: where the record goes.
    :return: exit status, 0 unless every trial failed.
    """
    record = make_folder(folder)
    rows = run_and_record(plan(choice), place, processes, record)
    # Text that is copied into a file must not be wrapped.
    console = Console(highlight=False, markup=False, soft_wrap=True)
    for stream, scenario in product(choice.streams, choice.scenarios):
        console.print(
            write_section(
                stream,
                scenario,
                _note(choice, stream),
                _lines(
                    [
                        r
                        for r in rows
                        if (r.description.stream, r.description.scenario) == (stream, scenario)
                    ]
                ),
            )
        )
    console.print(f"Record in {record}")
    return 0 if any(row.result for row in rows) else 1


def _lines(rows: Sequence[Row]) -> Mapping[str, str]:
    lines = {}
    for method in STRATEGIES:
        tried = [row for row in rows if row.description.strategy == method]
        if any(row.result for row in tried):
            lines[method] = _line(best(tried))
    return lines


def _line(found: Found) -> str:
    remark = "the same at every strength" if found.flat else ""
    if found.at_edge and not found.flat:
        remark = "at the edge of the grid"
    told = f"{100 * found.accuracy:.1f} % on the validation part"
    return f"{found.strength:g}  # {', '.join(filter(None, (told, remark)))}"


def _note(choice: Choice, stream: str) -> str:
    epochs = STREAMS[stream].epochs if choice.epochs is None else choice.epochs
    return (
        f"grid search on {100 * VALIDATION_SHARE:.0f} % of the training set, "
        f"seeds {' '.join(str(seed) for seed in choice.seeds)}, {epochs} epochs, "
        "by average accuracy after the last experience"
    )
