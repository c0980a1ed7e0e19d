"""The command that searches strengths on validation data, and writes them down for `compare`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments import strengths
from experiments.compare import describe
from experiments.records import Choice, Description
from experiments.search import Found, Run, Target, search
from experiments.strategies import STRATEGIES, with_strength
from experiments.strengths import Entry, write_strengths
from experiments.tables import percent

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

WIDTH = 100
Key = tuple[str, str, str]
"""Stream, scenario, method."""


def tune(choice: Choice, run: Run, folder: Path, trials: int, keep: bool) -> int:
    """Search the strengths, tell them, and write one file per stream.

    :param choice: what to search; its evaluation is taken as ``"validation"`` whatever it says.
    :param run: runs the trials.
    :param folder: where the files go.
    :param trials: strengths to try for each method.
    :param keep: whether the strengths also replace those that ``compare`` uses.
    :return: exit status, 0 unless every method failed at every strength.
    """
    targets = make_targets(choice)
    found = search(targets, choice.seeds, trials, run)
    console = make_console()
    console.print(_table(found))
    for key, each in found.items():
        if words := remark(each):
            console.print(f"{', '.join(key)}: {words}")
    for stream in choice.streams:
        entries = {
            (scenario, method): entry(targets[of, scenario, method], each, choice.seeds)
            for (of, scenario, method), each in found.items()
            if of == stream and each.best
        }
        for place in (folder, strengths.FOLDER) if keep else (folder,):
            console.print(f"Strengths in {write_strengths(place, stream, entries)}")
    return 0 if any(each.best for each in found.values()) else 1


def make_console() -> Console:
    """Make a console that cuts nothing off.

    :return: as wide as the terminal, and as the widest table of strengths at least.
    """
    from rich.console import Console

    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.width = max(console.width, WIDTH)
    return console


def make_targets(choice: Choice) -> dict[Key, Target]:
    """List what is searched.

    :param choice: what the user chose; strategies without a strength are passed over.
    :return: a target for each stream, scenario and method.
    """
    choice = replace(choice, evaluation="validation")
    return {
        key: Target(*STRATEGIES[key[2]].search, partial(_describe, choice, key))
        for key in product(choice.streams, choice.scenarios, choice.strategies)
        if key[2] in with_strength()
    }


def _describe(choice: Choice, key: Key, strength: float, seed: int) -> Description:
    return describe(choice, *key, seed, strength)


def entry(target: Target, found: Found, seeds: tuple[int, ...]) -> Entry:
    """Write down what was found, as TOML can hold it.

    :param target: what was searched.
    :param found: what was found; not every strength may have failed.
    :param seeds: the seeds of the search.
    :return: the strength, its accuracy on the validation part as a fraction with half its 95 %
        interval, and the search's record: under ``tried`` each strength with its accuracy.
    """
    best = found.best
    if best is None or best.accuracy is None:
        raise ValueError("every strength failed: there is nothing to write down")
    half = best.accuracy.half_width
    description = target.describe(best.strength, seeds[0])
    written: Entry = {
        "strength": best.strength,
        "accuracy": round(best.accuracy.mean, 4),
        "half_width": None if half is None else round(half, 4),
        "n": best.accuracy.n,
        "at_edge": found.at_edge,
        "flat": found.flat,
        "range": [target.low, target.high],
        "tried": [[each.strength, round(each.score, 4)] for each in found.tried],
        "failed": [f"{each.strength:g}: {each.failure}" for each in found.tried if each.failure],
        "evaluation": description.data.evaluation,
        "seeds": list(seeds),
        "training": _known(asdict(description.training)),
        "versions": _known({**best.versions, "optuna": version("optuna")}),
    }
    return _known(written)


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    # TOML has no null.
    return {name: value for name, value in values.items() if value not in (None, [])}


def remark(found: Found) -> str:
    """Say what a reader of a strength should know.

    :param found: what was found.
    :return: words, separated by commas; empty if there is nothing to say.
    """
    failed = [each.failure for each in found.tried if each.failure]
    words = []
    if failed:
        words.append(f"failed at {len(failed)} of {len(found.tried)} strengths ({failed[0]})")
    if found.flat:
        words.append("the same at every strength")
    if found.at_edge:
        words.append("at the edge of the range")
    return ", ".join(words)


def mark(found: Found) -> str:
    """Write the chosen strength, with a mark if it is no clear peak.

    :param found: what was found.
    :return: such as ``"100"``, ``"1e+06 (edge)"``, ``"1000 (flat)"``, or ``"-"`` without one.
    """
    words = " (flat)" if found.flat else " (edge)" if found.at_edge else ""
    return f"{found.best.strength:g}{words}" if found.best else "-"


def _table(found: Mapping[Key, Found]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, title="Strengths, and accuracy on the validation part in %")
    for heading in ("stream", "scenario", "method", "strength", "accuracy", "n", "tried"):
        table.add_column(heading, no_wrap=True)
    for key, each in found.items():
        accuracy = each.best.accuracy if each.best else None
        n = str(accuracy.n if accuracy else 0)
        table.add_row(*key, mark(each), percent(accuracy), n, str(len(each.tried)))
    return table
