"""The streams: a name to a data set in experiences, as an Avalanche benchmark.

Torch and Avalanche are imported by the functions that need them: the command line reads the
names here, and has to answer a typing error at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.errors import MissingDataError, require_known
from experiments.records import Data
from experiments.untyped import Benchmark

if TYPE_CHECKING:
    from experiments.streams.samples import Parts

SCENARIOS = {
    "task": "task incremental",
    "domain": "domain incremental",
    "class": "class incremental",
}


@dataclass(frozen=True)
class Stream:
    """One data set in experiences, and the protocol of ``compare`` that goes with its size.

    :param load: reads the samples of every experience.
    :param files: the files it needs below the data folder; none if the data ship with a package.
    :param source: where the files are to be had.
    :param shape: shape of one input.
    :param experiences: how many there are, unless a trial asks for another number.
    :param own_classes: whether every experience brings classes of its own; else all have all.
    :param seeded: whether the trial's seed decides about the data, as in a permuted stream.
    """

    title: str
    load: Callable[[Data, int, Path], Parts]
    shape: tuple[int, ...]
    experiences: int
    files: tuple[str, ...] = ()
    source: str = ""
    own_classes: bool = True
    seeded: bool = False
    hidden: tuple[int, ...] = (256, 256)
    batch_size: int = 64
    learning_rate: float = 1e-3
    epochs: int = 2
    memory: int = 200


def _digits(data: Data, _seed: int, _root: Path) -> Parts:
    from experiments.streams.samples import load_digits

    return load_digits(data)


def _split_mnist(data: Data, seed: int, root: Path) -> Parts:
    from experiments.streams.classic import split_mnist

    return split_mnist(data, seed, root)


def _split_fmnist(data: Data, seed: int, root: Path) -> Parts:
    from experiments.streams.classic import split_fmnist

    return split_fmnist(data, seed, root)


def _permuted_mnist(data: Data, seed: int, root: Path) -> Parts:
    from experiments.streams.classic import permuted_mnist

    return permuted_mnist(data, seed, root)


def _idx_files(folder: str) -> tuple[str, ...]:
    parts = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    return tuple(f"{folder}/raw/{part}-ubyte" for part in parts)


_MNIST = _idx_files("MNIST")

STREAMS = {
    "digits": Stream(
        title="handwritten digits",
        load=_digits,
        shape=(64,),
        experiences=5,
        hidden=(100, 100),
        batch_size=32,
        # Three times the usual: with so few iterations per task, Naive would hardly forget.
        learning_rate=3e-3,
        epochs=15,
        memory=100,
    ),
    "split_mnist": Stream(
        title="split MNIST",
        load=_split_mnist,
        files=_MNIST,
        shape=(1, 28, 28),
        experiences=5,
    ),
    "permuted_mnist": Stream(
        title="permuted MNIST",
        load=_permuted_mnist,
        files=_MNIST,
        shape=(1, 28, 28),
        experiences=10,
        own_classes=False,
        seeded=True,
    ),
    "split_fmnist": Stream(
        title="split Fashion-MNIST",
        load=_split_fmnist,
        files=_idx_files("FashionMNIST"),
        shape=(1, 28, 28),
        experiences=5,
    ),
}


def require_data(name: str, data_root: Path) -> None:
    """Check that the files of a stream exist, without reading them.

    :param name: a name in ``STREAMS``.
    :param data_root: the folder that holds local data sets.
    :raises MissingDataError: naming every file that is expected and absent.
    """
    paths = [data_root / file for file in STREAMS[name].files]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise MissingDataError(name, missing)


def input_shape(data: Data) -> tuple[int, ...]:
    """Tell the shape of one input.

    :param data: the stream and what is done to its inputs.
    :return: such as ``(1, 28, 28)``, with the border that ``data.inputs`` adds.
    """
    *channels, rows, columns = (1, *STREAMS[data.stream].shape)[-3:]
    if data.inputs == "unit":
        return STREAMS[data.stream].shape
    return (*channels, rows + 4, columns + 4)


def make_benchmark(data: Data, seed: int, data_root: Path, *, global_labels: bool) -> Benchmark:
    """Build an Avalanche benchmark whose samples are tensors in memory.

    Benchmarks that no seed decides about are kept, so that a process that runs many trials reads
    the data once.

    :param data: which stream, in which scenario, and what accuracy is taken on.
    :param seed: the trial's seed; only some streams depend on it.
    :param data_root: the folder that holds local data sets.
    :param global_labels: whether classes keep labels of their own in a task-incremental stream,
        for a head that all tasks share; they are counted from 0 in each experience otherwise.
    :return: a benchmark with a stream ``"train"`` and one named after ``data.evaluation``.
    :raises UnknownNameError: for a stream or scenario that does not exist.
    :raises MissingDataError: if files are missing.
    """
    require_known("stream", data.stream, STREAMS)
    require_known("scenario", data.scenario, SCENARIOS)
    require_data(data.stream, data_root)
    if STREAMS[data.stream].seeded or data.shuffled_classes:
        return _make_benchmark(data, seed, data_root, global_labels)
    return _kept_benchmark(data, data_root, global_labels)


@lru_cache(maxsize=3)
def _kept_benchmark(data: Data, data_root: Path, global_labels: bool) -> Benchmark:
    return _make_benchmark(data, 0, data_root, global_labels)


def _make_benchmark(data: Data, seed: int, data_root: Path, global_labels: bool) -> Benchmark:
    from experiments.streams.samples import benchmark_of, choose_parts

    stream = STREAMS[data.stream]
    parts = choose_parts(stream.load(data, seed, data_root), data.evaluation)
    return benchmark_of(
        parts, data.scenario, own_classes=stream.own_classes, global_labels=global_labels
    )
