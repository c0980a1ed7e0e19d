"""What goes into a trial and what comes out of it: plain, frozen, light to import."""

from __future__ import annotations

from dataclasses import dataclass

# Avalanche's loggers that a trial can write to.
LOGGERS = ("tensorboard", "csv")

Matrix = tuple[tuple[float, ...], ...]


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
class Description:
    """Everything that decides a trial's outcome.

    :param strength: the method's strength, or None if it has none.
    :param damping: xi of our SI; the default is the package's.
    :param evaluation: ``"test"`` or ``"validation"``, the samples that accuracy is taken on.
    :param normalisation: what our SI does about batch normalisation, which the network then has;
        ``""`` for a network without.
    """

    stream: str
    scenario: str
    strategy: str
    seed: int
    epochs: int
    strength: float | None
    batch_size: int
    hidden: int
    memory: int
    learning_rate: float
    damping: float = 0.1
    device: str = "cpu"
    evaluation: str = "test"
    normalisation: str = ""


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
    """

    accuracy: Matrix
    seconds_per_iteration: float
    extra_passes: float
    extra_bytes: int
    avalanche_forgetting: float
    avalanche_backward_transfer: float
    seconds: float


@dataclass(frozen=True)
class Row:
    """One line of the record: a trial and its result, or the reason why it has none."""

    description: Description
    result: Result | None
    failure: str | None
    versions: dict[str, str]
