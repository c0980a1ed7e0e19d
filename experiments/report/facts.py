"""What was run: what all trials share, what each variant has of its own, what failed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from experiments.records import Data, Row, row_to_dict
from experiments.report.tables import duration
from experiments.statistics import average_accuracy
from experiments.strategies import STRATEGIES
from experiments.variants import Panel, Variant, differing, in_words, settings_of

# All matrices of 300 trials over 5 experiences fit, those over 100 do not.
DATA_BUDGET = 1_500_000
# A setting or version with more values than this is told by its first and its last.
_MOST_VALUES = 4
_IN_HEADINGS = ("stream", "scenario")
_OF_THE_DATA = tuple(in_words(part.name) for part in fields(Data))


@dataclass(frozen=True)
class Fact:
    """A name and what is known of it."""

    name: str
    value: str


@dataclass(frozen=True)
class Trial:
    """One row of the record.

    :param anchor: its id in the page, no other trial's.
    :param told: its outcome in a few words.
    :param data: the row as JSON.
    """

    anchor: str
    name: str
    seed: int
    failed: bool
    told: str
    data: str


@dataclass(frozen=True)
class Group:
    """The trials of one variant.

    :param settings: the method's strength and options, and what not all trials share.
    """

    label: str
    settings: str
    trials: tuple[Trial, ...]


@dataclass(frozen=True)
class Failure:
    """Trials of one variant that failed for the same reason."""

    panel: str
    label: str
    reason: str
    trials: tuple[Trial, ...]


@dataclass(frozen=True)
class Place:
    """All trials on the same data."""

    title: str
    groups: tuple[Group, ...]


def shared_settings(rows: Sequence[Row]) -> list[Fact]:
    """Tell the settings, those that are the same in every trial by their value.

    :param rows: the trials.
    :return: every setting but the methods' own, with all its values if it has several.
    """
    settings = [settings_of(row.description) for row in rows]
    own = {strategy.strength for strategy in STRATEGIES.values()} | {"strength"}
    names = dict.fromkeys(name for each in settings for name in each)
    return [
        Fact(name, _values(each[name] for each in settings if name in each))
        for name in names
        if name not in own and not name.startswith("option ") and name not in _IN_HEADINGS
    ]


def versions(rows: Iterable[Row]) -> list[Fact]:
    """Tell the software, the machines and the dates.

    :param rows: the trials.
    :return: every entry of their versions, with all its values if it has several.
    """
    found: dict[str, list[str]] = {}
    for row in rows:
        for name, value in row.versions.items():
            found.setdefault(name, []).append(str(value))
    return [Fact(name, _values(values)) for name, values in found.items()]


def _values(values: Iterable[str]) -> str:
    unique = list(dict.fromkeys(values))
    if len(unique) <= _MOST_VALUES:
        return ", ".join(unique)
    first, *_, last = sorted(unique)
    return f"{first} … {last} ({len(unique)} values)"


def places(panels: Sequence[Panel], cut: bool) -> list[Place]:
    """List every trial.

    :param panels: the record, put together.
    :param cut: whether only the last row of each accuracy matrix is kept in the trials' data.
    :return: the trials by data and variant.
    """
    rows = [row for panel in panels for each in panel.variants for row in each.rows]
    varying = differing([settings_of(row.description) for row in rows])
    remaining = iter(_make_trials(rows, cut))
    return [
        Place(
            panel.title,
            tuple(
                Group(
                    variant.label,
                    _own_settings(variant, varying),
                    tuple(next(remaining) for _ in variant.rows),
                )
                for variant in panel.variants
            ),
        )
        for panel in panels
    ]


def _own_settings(variant: Variant, varying: Sequence[str]) -> str:
    settings = settings_of(variant.description)
    strategy = STRATEGIES.get(variant.description.strategy)
    strength = (strategy.strength if strategy else None) or "strength"
    told = [
        name
        for name in settings
        if name == strength
        or name.startswith("option ")
        or (name in varying and name not in _OF_THE_DATA)
    ]
    return ", ".join(f"{name.removeprefix('option ')} = {settings[name]}" for name in told)


def _make_trials(rows: Iterable[Row], cut: bool) -> list[Trial]:
    seen: dict[str, int] = {}
    trials = []
    for row in rows:
        written = _last_row_only(row) if cut else row_to_dict(row)
        name = row.description.name
        seen[name] = seen.get(name, 0) + 1
        again = f"-{seen[name]}" if seen[name] > 1 else ""
        trials.append(
            Trial(
                f"trial-{name}{again}",
                name,
                row.description.seed,
                row.result is None,
                _told(row),
                json.dumps(written),
            )
        )
    return trials


def too_large(rows: Iterable[Row]) -> bool:
    """Say whether the trials' data are more than a page should hold.

    :param rows: the trials.
    :return: whether all rows together, as JSON, are larger than ``DATA_BUDGET``.
    """
    return sum(len(json.dumps(row_to_dict(row))) for row in rows) > DATA_BUDGET


def _last_row_only(row: Row) -> dict[str, Any]:
    written = row_to_dict(row)
    if row.result:
        written["result"]["accuracy"] = row.result.accuracy[-1:]
    return written


def _told(row: Row) -> str:
    if row.result is None:
        return f"failed: {row.failure}"
    accuracy = 100 * average_accuracy(row.result.accuracy)
    return f"average accuracy {accuracy:.1f} %, {duration(row.result.seconds)}"


def failures(panels: Sequence[Panel], listed: Sequence[Place]) -> list[Failure]:
    """Tell what failed and why.

    :param panels: the record, put together.
    :param listed: what :func:`places` made of it.
    :return: one for each variant and reason.
    """
    found = []
    for panel, place in zip(panels, listed, strict=True):
        for variant, group in zip(panel.variants, place.groups, strict=True):
            reasons: dict[str, list[Trial]] = {}
            for row, trial in zip(variant.rows, group.trials, strict=True):
                if row.result is None:
                    reasons.setdefault(row.failure or "no reason recorded", []).append(trial)
            found += [
                Failure(panel.title, variant.label, reason, tuple(trials))
                for reason, trials in reasons.items()
            ]
    return found
