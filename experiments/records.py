"""What goes into a trial and what comes out of it: plain, frozen, light to import."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

# Avalanche's loggers that a trial can write to.
LOGGERS = ("tensorboard", "csv")

Matrix = tuple[tuple[float, ...], ...]
Option = float | str | bool | None
Options = tuple[tuple[str, Option], ...]
"""Options by name, as sorted pairs: a frozen description cannot hold a dictionary."""


@dataclass(frozen=True)
class Choice:
    """What a user chose to run.

    :param epochs: None for each stream's own number.
    """

    streams: tuple[str, ...]
    scenarios: tuple[str, ...]
    strategies: tuple[str, ...]
    seeds: tuple[int, ...]
    epochs: int | None
    device: str
    evaluation: str = "test"


@dataclass(frozen=True)
class Network:
    """The network of a trial.

    :param kind: ``"mlp"`` (ReLU layers of the widths in ``hidden``), or ``"cnn"`` (Zenke's, for
        images of 32 x 32 with three channels).
    :param hidden: widths of the hidden layers; of the dense one for ``"cnn"``.
    :param head: ``"multi"`` (a head for each task), ``"task"`` (one layer, softmax over the classes
        of the sample's task), ``"seen"`` (one layer, softmax over the classes seen so far) or
        ``"single"`` (one layer, softmax over everything).
    :param initial: ``"torch"`` for the initial weights that torch gives, ``"glorot"`` for Glorot
        uniform weights and zero biases, as Keras gives.
    :param zero_head: whether the weights and biases of the head start at zero.
    :param normalised: whether batch normalisation follows each hidden layer of an ``"mlp"``.
    """

    kind: str = "mlp"
    hidden: tuple[int, ...] = (256, 256)
    head: str = "single"
    initial: str = "torch"
    zero_head: bool = False
    normalised: bool = False


@dataclass(frozen=True)
class Training:
    """How a trial is trained; Adam with the betas 0.9 and 0.999, as every protocol here has it.

    :param epochs: passes over the data of an experience; None if ``iterations`` counts.
    :param iterations: steps per experience, the data shuffled anew after each pass; None if
        ``epochs`` counts.
    :param reset: what the optimiser forgets at each experience: ``"all"`` its state; ``"moments"``
        its two moments, but not the number of its steps; ``"nothing"``.
    :param epsilon: Adam's epsilon.
    :param drop_last: whether a pass leaves out a last batch that is not full.
    """

    batch_size: int
    learning_rate: float
    epochs: int | None = None
    iterations: int | None = None
    reset: str = "all"
    epsilon: float = 1e-8
    drop_last: bool = False


@dataclass(frozen=True)
class Data:
    """The stream of a trial.

    :param stream: a name in ``STREAMS``.
    :param scenario: a name in ``SCENARIOS``.
    :param experiences: how many; None for as many as the stream has by itself.
    :param inputs: ``"unit"`` for pixels between 0 and 1; ``"padded"`` for these with a border of
        two pixels; ``"normalised"`` for padded ones with mean 0 and deviation 1.
    :param first_plain: whether the first experience of a permuted stream is left as it is.
    :param shuffled_classes: whether the trial's seed shuffles the order of the classes; they come
        in the data set's own order otherwise.
    :param evaluation: the samples that accuracy is taken on: ``"test"``, ``"train"``, or
        ``"validation"`` for a part cut from the training set.
    """

    stream: str
    scenario: str
    experiences: int | None = None
    inputs: str = "unit"
    first_plain: bool = False
    shuffled_classes: bool = False
    evaluation: str = "test"


@dataclass(frozen=True)
class Description:
    """Everything that decides a trial's outcome.

    :param strategy: a name in ``STRATEGIES``.
    :param strength: the method's strength, or None if it has none.
    :param options: further options of the method, by the names of its builder.
    :param memory: the number of samples that a replay buffer holds.
    """

    data: Data
    strategy: str
    strength: float | None
    network: Network
    training: Training
    seed: int
    options: Options = ()
    memory: int = 0
    device: str = "cpu"

    @property
    def name(self) -> str:
        """A name of its own for every description: the start of its SHA-256, 16 hex digits."""
        written = json.dumps(asdict(self), sort_keys=True, allow_nan=False)
        return hashlib.sha256(written.encode()).hexdigest()[:16]


def options(**values: Option) -> Options:
    """Write options in the form that a description holds.

    :param values: options by name.
    :return: pairs, sorted by name.
    """
    return tuple(sorted(values.items()))


@dataclass(frozen=True)
class Place:
    """Where a trial reads and logs; nothing here changes its outcome.

    :param data_root: the folder that holds local data sets.
    :param log_folder: where Avalanche's loggers write.
    :param loggers: which of them are on, names in ``LOGGERS``.
    """

    data_root: str = "data"
    log_folder: str = "logs"
    loggers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Result:
    """What a trial measured.

    :param accuracy: row ``t``, column ``i``: accuracy on experience ``i`` after training on
        experience ``t``; a single row for a strategy that trains once on everything.
    :param seconds_per_iteration: median over the training iterations, without the data loader.
    :param extra_passes: passes over the data beyond the epochs, mean over the experiences.
    :param extra_bytes: state held at the end beyond what Naive holds.
    :param avalanche_forgetting: Avalanche's own StreamForgetting after the last experience.
    :param avalanche_backward_transfer: Avalanche's own StreamBWT after the last experience.
    :param seconds: wall time of the whole trial.
    :param importance: total importance of each parameter at the end, by name; empty for every
        method but ours.
    """

    accuracy: Matrix
    seconds_per_iteration: float
    extra_passes: float
    extra_bytes: int
    avalanche_forgetting: float
    avalanche_backward_transfer: float
    seconds: float
    importance: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One line of the record: a trial and its result, or the reason why it has none.

    :param versions: the software it ran on, the kind of machine, and the date.
    """

    description: Description
    result: Result | None
    failure: str | None
    versions: dict[str, str]


def row_to_dict(row: Row) -> dict[str, Any]:
    """Write a row as plain dictionaries, for JSON.

    :param row: the row.
    :return: its name, description, result or None, failure or None, and versions.
    """
    return {
        "name": row.description.name,
        "description": asdict(row.description),
        "result": asdict(row.result) if row.result else None,
        "failure": row.failure,
        "versions": row.versions,
    }


def row_from_dict(written: Mapping[str, Any]) -> Row:
    """Read what :func:`row_to_dict` wrote.

    :param written: plain dictionaries, with lists where a row has tuples.
    :return: the row.
    :raises KeyError: if something is missing.
    :raises TypeError: if something is there that no row has.
    """
    given = dict(written["description"])
    description = Description(
        **{
            **given,
            "data": Data(**given["data"]),
            "network": Network(**{**given["network"], "hidden": tuple(given["network"]["hidden"])}),
            "training": Training(**given["training"]),
            "options": tuple((name, value) for name, value in given["options"]),
        }
    )
    result = None
    if written["result"] is not None:
        matrix = tuple(tuple(line) for line in written["result"]["accuracy"])
        result = Result(**{**written["result"], "accuracy": matrix})
    return Row(description, result, written["failure"], dict(written["versions"]))
