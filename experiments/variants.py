"""The trials of a record, put together: by the data they saw, then by all but their seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from experiments.records import Data, Description, Result, Row
from experiments.statistics import Summary, by_variant, summarise
from experiments.strategies import STRATEGIES
from experiments.streams import SCENARIOS, STREAMS

# Settings whose names say too little outside their part of a description.
_WORDS = {
    "inputs": "pixels",
    "first_plain": "first experience plain",
    "evaluation": "evaluated on",
    "kind": "network",
    "hidden": "hidden layers",
    "initial": "initial weights",
    "zero_head": "head starts at zero",
    "normalised": "batch normalisation",
    "memory": "replay memory",
    "reset": "optimiser reset",
    "epsilon": "Adam's epsilon",
    "drop_last": "last batch dropped",
}


@dataclass(frozen=True)
class Variant:
    """Trials that differ by their seed alone.

    :param label: the method's, and what tells the variant from others of the same method.
    :param rows: at least one, in the order of the record.
    :param summary: what they say over seeds, and beside Naive and the best baseline.
    """

    label: str
    rows: tuple[Row, ...]
    summary: Summary

    @property
    def description(self) -> Description:
        """What was run, with the seed 0 in place of each trial's own."""
        return self.summary.description

    @property
    def results(self) -> dict[int, Result]:
        """What ended, by seed; of trials that were repeated, the last that ended."""
        return {row.description.seed: row.result for row in self.rows if row.result}

    @property
    def comparable(self) -> dict[int, Result]:
        """The results whose matrices have the shape that most of them have."""
        shapes = {seed: _shape(result) for seed, result in self.results.items()}
        if not shapes:
            return {}
        usual, _ = Counter(shapes.values()).most_common(1)[0]
        return {seed: self.results[seed] for seed, shape in shapes.items() if shape == usual}

    @property
    def mean_accuracy(self) -> float:
        """Average accuracy, mean over seeds; below every accuracy if no trial ended."""
        accuracy = self.summary.average_accuracy
        return accuracy.mean if accuracy else -1.0


@dataclass(frozen=True)
class Panel:
    """Everything that was measured on the same data.

    :param title: the stream's and the scenario's, and what tells the data from other data of
        both.
    """

    title: str
    data: Data
    variants: tuple[Variant, ...]

    @property
    def ended(self) -> tuple[Variant, ...]:
        """The variants of which at least one trial ended."""
        return tuple(variant for variant in self.variants if variant.results)


def best_of_each(variants: Iterable[Variant]) -> tuple[Variant, ...]:
    """Keep one variant of each strategy, that of the highest average accuracy.

    :param variants: any.
    :return: one for each strategy, in the order in which the strategies came.
    """
    best: dict[str, Variant] = {}
    for variant in variants:
        name = variant.description.strategy
        if name not in best or variant.mean_accuracy > best[name].mean_accuracy:
            best[name] = variant
    return tuple(best.values())


def make_panels(rows: Sequence[Row]) -> list[Panel]:
    """Put the rows of a record together.

    :param rows: trials, ended or failed, of any streams, scenarios, strategies and options.
    :return: the panels in the order of the registries, each with its variants in that order.
    """
    groups = by_variant(rows)
    by_data: dict[Data, list[Summary]] = {}
    for summary in summarise(rows):
        by_data.setdefault(summary.description.data, []).append(summary)
    every = list(by_data)
    return [
        Panel(panel_title(data, every), data, _variants(summaries, groups))
        for data, summaries in by_data.items()
    ]


def label_of(strategy: str) -> str:
    """Name a strategy as tables and figures do.

    :param strategy: its name in the record.
    :return: its label, or the name itself if this version has no such strategy.
    """
    return STRATEGIES[strategy].label if strategy in STRATEGIES else printable(strategy)


def title_of(stream: str, scenario: str) -> str:
    """Name a stream and a scenario as headings do.

    :param stream: its name in the record.
    :param scenario: its name in the record.
    :return: such as ``"Split MNIST, task incremental"``.
    """
    title = STREAMS[stream].title if stream in STREAMS else stream
    return printable(f"{title[:1].upper()}{title[1:]}, {SCENARIOS.get(scenario, scenario)}")


def settings_of(description: Description) -> dict[str, str]:
    """Write out everything that decides a trial but its strategy and its seed.

    :param description: the trial's.
    :return: values as text, by names in words; a strength by the name that its method gives it.
    """
    strategy = STRATEGIES.get(description.strategy)
    strength = (strategy.strength if strategy else None) or "strength"
    parts = asdict(description)
    written = {**parts["data"], **parts["network"], **parts["training"]}
    written |= {"memory": description.memory, "device": description.device}
    settings = {in_words(name): text_of(value) for name, value in written.items()}
    settings["experiences"] = text_of(description.data.experiences or "all")
    if description.strength is not None:
        settings[strength] = text_of(description.strength)
    return settings | {
        f"option {printable(name)}": text_of(value) for name, value in description.options
    }


def in_words(name: str) -> str:
    """Write the name of a description's field as tables do.

    :param name: such as ``"batch_size"``.
    :return: such as ``"batch size"``.
    """
    return _WORDS.get(name, name.replace("_", " "))


def text_of(value: object) -> str:
    """Write a setting's value.

    :param value: of any kind that a description holds.
    :return: such as ``"0.001"``, ``"yes"``, ``"256-256"`` or ``"none"``.
    """
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (tuple, list)):
        return "-".join(text_of(each) for each in value) or "none"
    return printable(str(value))


def printable(text: str) -> str:
    """Take out what no figure can hold: control characters and halves of characters.

    :param text: any.
    :return: the text with a replacement character for each of them.
    """
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )


def differing(settings: Sequence[Mapping[str, str]]) -> list[str]:
    """Find the settings that are not the same everywhere.

    :param settings: what :func:`settings_of` wrote, one mapping a trial.
    :return: their names, in the order in which they come.
    """
    names = dict.fromkeys(name for each in settings for name in each)
    return [name for name in names if len({each.get(name, "default") for each in settings}) > 1]


def panel_title(data: Data, others: Sequence[Data]) -> str:
    """Name the data of a panel.

    :param data: the data.
    :param others: all data that it is told beside.
    :return: the stream and the scenario, and every setting in which data of both are not the same.
    """
    alike = [
        {in_words(name): text_of(value) for name, value in asdict(each).items()}
        for each in (data, *others)
        if (each.stream, each.scenario) == (data.stream, data.scenario)
    ]
    parts = [f"{name} = {alike[0][name]}" for name in differing(alike)]
    return ", ".join([title_of(data.stream, data.scenario), *parts])


def _variants(
    summaries: Sequence[Summary], groups: Mapping[Description, Sequence[Row]]
) -> tuple[Variant, ...]:
    others = [summary.description for summary in summaries]
    return tuple(
        Variant(label_among(which, others), tuple(groups[which]), summary)
        for which, summary in zip(others, summaries, strict=True)
    )


def label_among(which: Description, others: Sequence[Description]) -> str:
    """Name a variant.

    :param which: its description; the seed says nothing.
    :param others: the descriptions that it stands beside, its own too.
    :return: the method's label, and every setting in which not all variants of it are the same.
    """
    alike = [settings_of(each) for each in others if each.strategy == which.strategy]
    own = settings_of(which)
    parts = [
        f"{name.removeprefix('option ')} = {own.get(name, 'default')}" for name in differing(alike)
    ]
    return ", ".join([label_of(which.strategy), *parts])


def _shape(result: Result) -> tuple[int, int]:
    return len(result.accuracy), len(result.accuracy[-1])
