"""What the readers of Avalanche's classic benchmarks share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torchvision.transforms import Compose, Normalize, Pad

from experiments.errors import UnusableDataError
from experiments.records import Data
from experiments.streams.registry import STREAMS

Transform = Callable[[Any], Any]


def count(data: Data) -> int:
    """Tell the number of experiences.

    :param data: a stream, perhaps with a number.
    :return: that number, or the stream's own.
    """
    return STREAMS[data.stream].experiences if data.experiences is None else data.experiences


def transforms(data: Data, *first: Transform) -> dict[str, Transform]:
    """Make the transformations of the inputs, without any at random.

    :param data: which inputs.
    :param first: what to do before.
    :return: Avalanche's arguments for training and evaluation, the same for both.
    """
    steps = list(first)
    if data.inputs != "unit":
        steps.append(Pad(2))
    if data.inputs == "normalised":
        moments = STREAMS[data.stream].moments
        assert moments is not None
        mean, deviation = moments
        steps.append(Normalize((mean,), (deviation,)))
    return {"train_transform": Compose(steps), "eval_transform": Compose(steps)}


def split_arguments(data: Data, seed: int, root: Path, *first: Transform) -> dict[str, Any]:
    """Make the arguments that all of Avalanche's split benchmarks have.

    :param data: which inputs, how many experiences, which order of the classes.
    :param seed: decides about the order of the classes if they are to be shuffled.
    :param root: the folder that Avalanche is to look in.
    :param first: what to do to an image before anything else.
    :return: the arguments.
    """
    return {
        "n_experiences": count(data),
        "dataset_root": root,
        "shuffle": data.shuffled_classes,
        "seed": seed,
        **transforms(data, *first),
    }


def require_usable(name: str, folder: Path, *read: Callable[[], object]) -> None:
    """Check that local files are whole, because Avalanche would download what is not.

    :param name: the data set.
    :param folder: where its files lie.
    :param read: reads it with downloading switched off, and fails if it would be needed.
    :raises UnusableDataError: if one fails.
    """
    for each in read:
        try:
            each()
        except Exception as error:
            raise UnusableDataError(name, folder, f"{type(error).__name__}: {error}") from error
