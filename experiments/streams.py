"""The streams: a name to data split into five tasks of two classes, as Avalanche benchmarks.

Torch and Avalanche are imported by the functions that need them: the command line reads the
names here, and has to answer a typing error at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.errors import MissingDataError, require_known
from experiments.untyped import Benchmark, Dataset

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

SCENARIOS = {
    "task": "task incremental",
    "domain": "domain incremental",
    "class": "class incremental",
}
EXPERIENCES = 5
CLASSES_PER_EXPERIENCE = 2
CLASSES = EXPERIENCES * CLASSES_PER_EXPERIENCE
# One fixed cut for every seed: seeds vary the training, never the question asked.
SPLIT_SEED = 1791
TEST_SHARE = 0.2
VALIDATION_SHARE = 0.2


@dataclass(frozen=True)
class Samples:
    """Flattened inputs in [0, 1], shape ``(n, features)``, and their labels, shape ``(n,)``."""

    inputs: torch.Tensor
    labels: torch.Tensor

    def subset(self, indices: NDArray[np.intp]) -> Samples:
        """Copy the samples at the given positions.

        :param indices: positions, in the order wanted.
        :return: the samples there.
        """
        return Samples(self.inputs[indices], self.labels[indices])


@dataclass(frozen=True)
class Stream:
    """One data set and the protocol that goes with its size.

    :param load: reads ``(training samples, test samples)`` from a data folder.
    :param files: the files it needs below the data folder; none if the data ship with a package.
    """

    title: str
    load: Callable[[Path], tuple[Samples, Samples]]
    files: tuple[str, ...]
    features: int
    hidden: int
    batch_size: int
    learning_rate: float
    epochs: int
    memory: int


def _load_digits(_data_root: Path) -> tuple[Samples, Samples]:
    import torch
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    everything = Samples(
        torch.as_tensor(pixels / 16.0, dtype=torch.float32),
        torch.as_tensor(labels, dtype=torch.int64),
    )
    return cut(everything, TEST_SHARE)


def _load_idx(name: str) -> Callable[[Path], tuple[Samples, Samples]]:
    def load(data_root: Path) -> tuple[Samples, Samples]:
        import torchvision

        def part(train: bool) -> Samples:
            data = getattr(torchvision.datasets, name)(data_root, train=train, download=False)
            return Samples(data.data.flatten(1).float() / 255.0, data.targets.long())

        return part(train=True), part(train=False)

    return load


def _idx_files(folder: str) -> tuple[str, ...]:
    parts = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    return tuple(f"{folder}/raw/{part}-ubyte" for part in parts)


def _idx_stream(title: str, name: str) -> Stream:
    return Stream(
        title=title,
        load=_load_idx(name),
        files=_idx_files(name),
        features=784,
        hidden=256,
        batch_size=64,
        learning_rate=1e-3,
        epochs=2,
        memory=200,
    )


STREAMS = {
    "digits": Stream(
        title="handwritten digits",
        load=_load_digits,
        files=(),
        features=64,
        hidden=100,
        batch_size=32,
        # Three times the usual: with so few iterations per task, Naive would hardly forget.
        learning_rate=3e-3,
        epochs=15,
        memory=100,
    ),
    "split_mnist": _idx_stream("split MNIST", "MNIST"),
    "split_fmnist": _idx_stream("split Fashion-MNIST", "FashionMNIST"),
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


def cut(samples: Samples, share: float) -> tuple[Samples, Samples]:
    """Cut a stratified part off, always the same one.

    :param samples: what to cut.
    :param share: the part's share of the samples, between 0 and 1.
    :return: ``(rest, part)``, disjoint.
    """
    import numpy as np
    from sklearn.model_selection import train_test_split

    rest, part = train_test_split(
        np.arange(len(samples.labels)),
        test_size=share,
        stratify=samples.labels.numpy(),
        random_state=SPLIT_SEED,
    )
    return samples.subset(rest), samples.subset(part)


def load_parts(name: str, data_root: Path, evaluation: str) -> tuple[Samples, Samples]:
    """Read the samples to train on and those to evaluate on.

    :param name: a name in ``STREAMS``.
    :param data_root: the folder that holds local data sets.
    :param evaluation: ``"test"``, or ``"validation"`` for a part cut from the training set; the
        test set is then not used at all.
    :return: ``(training samples, evaluation samples)``.
    """
    require_data(name, data_root)
    training, test = STREAMS[name].load(data_root)
    return cut(training, VALIDATION_SHARE) if evaluation == "validation" else (training, test)


def _experience_dataset(samples: Samples, experience: int, scenario: str) -> Dataset:
    from avalanche.benchmarks.utils import DataAttribute, TaskLabels
    from avalanche.benchmarks.utils.classification_dataset import (
        TaskAwareSupervisedClassificationDataset,
    )
    from avalanche.benchmarks.utils.flat_data import ConstantSequence
    from torch.utils.data import TensorDataset

    first = experience * CLASSES_PER_EXPERIENCE
    inside = (samples.labels >= first) & (samples.labels < first + CLASSES_PER_EXPERIENCE)
    offset = 0 if scenario == "class" else first
    labels: torch.Tensor = samples.labels[inside] - offset
    # Task label 0 throughout is Avalanche's own way to say "no task labels"; its LwF asks for it.
    task = experience if scenario == "task" else 0
    return TaskAwareSupervisedClassificationDataset(
        [TensorDataset(samples.inputs[inside], labels)],
        data_attributes=[
            DataAttribute(labels.tolist(), "targets"),
            TaskLabels(ConstantSequence(task, len(labels))),
        ],
    )


def make_benchmark(
    name: str, scenario: str, *, data_root: Path, evaluation: str = "test"
) -> Benchmark:
    """Build an Avalanche benchmark of five experiences with two classes each.

    :param name: a name in ``STREAMS``.
    :param scenario: ``"task"`` (task labels 0-4, class labels 0-1), ``"domain"`` (class labels
        0-1) or ``"class"`` (class labels 0-9).
    :param data_root: the folder that holds local data sets.
    :param evaluation: ``"test"`` or ``"validation"``, see :func:`load_parts`.
    :raises UnknownNameError: for a stream or scenario that does not exist.
    :return: a benchmark with a stream ``"train"`` and one named after ``evaluation``.
    """
    from avalanche.benchmarks import (
        benchmark_from_datasets,
        with_classes_timeline,
        with_task_labels,
    )

    require_known("stream", name, STREAMS)
    require_known("scenario", scenario, SCENARIOS)
    training, held_out = load_parts(name, data_root, evaluation)

    def datasets(samples: Samples) -> list[Dataset]:
        return [_experience_dataset(samples, i, scenario) for i in range(EXPERIENCES)]

    benchmark = benchmark_from_datasets(
        **{"train": datasets(training), evaluation: datasets(held_out)}
    )
    return with_classes_timeline(with_task_labels(benchmark))


def outputs(scenario: str) -> int:
    """Count the classes that a prediction chooses from.

    :param scenario: a name in ``SCENARIOS``.
    :return: 10 if all classes share one head, else 2.
    """
    return CLASSES if scenario == "class" else CLASSES_PER_EXPERIENCE
