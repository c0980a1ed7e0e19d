"""Samples in memory: read from a benchmark, cut, labelled for a scenario, made a benchmark again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from avalanche.benchmarks import benchmark_from_datasets, with_classes_timeline, with_task_labels
from avalanche.benchmarks.utils import DataAttribute, TaskLabels
from avalanche.benchmarks.utils.classification_dataset import (
    TaskAwareSupervisedClassificationDataset,
)
from avalanche.benchmarks.utils.flat_data import ConstantSequence
from torch.utils.data import DataLoader, TensorDataset

from experiments.records import Data
from experiments.untyped import Benchmark, Dataset, Experiences

if TYPE_CHECKING:
    from numpy.typing import NDArray

# One fixed cut for every seed: seeds vary the training, never the question asked.
SPLIT_SEED = 1791
TEST_SHARE = 0.2
VALIDATION_SHARE = 0.2
_AT_ONCE = 4096


@dataclass(frozen=True)
class Samples:
    """Inputs, shape ``(n, ...)``, and the data set's own labels, shape ``(n,)``."""

    inputs: torch.Tensor
    labels: torch.Tensor

    def subset(self, indices: NDArray[np.intp]) -> Samples:
        """Copy the samples at the given positions.

        :param indices: positions, in the order wanted.
        :return: the samples there.
        """
        return Samples(self.inputs[indices], self.labels[indices])


Parts = dict[str, list[Samples]]
"""The samples of each experience, by the name of the stream: ``"train"``, ``"test"``."""


def load_digits(data: Data) -> Parts:
    """Read scikit-learn's handwritten digits, 8 x 8 pixels in [0, 1], in experiences of two.

    :param data: its number of experiences is looked at.
    :return: the samples; the test part is a fifth, always the same.
    """
    from sklearn.datasets import load_digits as load

    pixels, labels = load(return_X_y=True)
    everything = Samples(
        torch.as_tensor(pixels / 16.0, dtype=torch.float32),
        torch.as_tensor(labels, dtype=torch.int64),
    )
    experiences = 5 if data.experiences is None else data.experiences
    per_experience = 10 // experiences
    return {
        name: [_between(part, i * per_experience, per_experience) for i in range(experiences)]
        for name, part in zip(("train", "test"), cut(everything, TEST_SHARE), strict=True)
    }


def _between(samples: Samples, first: int, count: int) -> Samples:
    inside = (samples.labels >= first) & (samples.labels < first + count)
    return samples.subset(np.flatnonzero(inside.numpy()))


def cut(samples: Samples, share: float) -> tuple[Samples, Samples]:
    """Cut a stratified part off, always the same one.

    :param samples: what to cut.
    :param share: the part's share of the samples, between 0 and 1.
    :return: ``(rest, part)``, disjoint.
    """
    from sklearn.model_selection import train_test_split

    rest, part = train_test_split(
        np.arange(len(samples.labels)),
        test_size=share,
        stratify=samples.labels.numpy(),
        random_state=SPLIT_SEED,
    )
    return samples.subset(rest), samples.subset(part)


def choose_parts(parts: Parts, evaluation: str) -> Parts:
    """Choose the samples to train on and those to evaluate on.

    :param parts: ``"train"`` and ``"test"``.
    :param evaluation: ``"test"``; ``"train"``; or ``"validation"`` for a part cut from the training
        set, and the test set is then not used at all.
    :return: ``"train"`` and the part named after ``evaluation``.
    """
    if evaluation != "validation":
        return {name: parts[name] for name in dict.fromkeys(("train", evaluation))}
    both = [cut(samples, VALIDATION_SHARE) for samples in parts["train"]]
    return {"train": [rest for rest, _ in both], "validation": [part for _, part in both]}


def read(experiences: Experiences) -> list[Samples]:
    """Read every sample of a stream once, through its transformations.

    :param experiences: an Avalanche stream.
    :return: the samples of each experience, in order.
    """
    return [_read_one(each.dataset) for each in experiences]


def _read_one(dataset: Dataset) -> Samples:
    batches = list(DataLoader(dataset, batch_size=_AT_ONCE, collate_fn=dataset.collate_fn))
    return Samples(
        torch.cat([batch[0] for batch in batches]), torch.cat([batch[1] for batch in batches])
    )


def benchmark_of(
    parts: Parts, scenario: str, *, own_classes: bool, global_labels: bool
) -> Benchmark:
    """Make an Avalanche benchmark of samples in memory.

    :param parts: the samples of each experience, by the name of the stream.
    :param scenario: ``"task"`` (a task label for each experience), ``"domain"`` or ``"class"``.
    :param own_classes: whether every experience brings classes of its own; if not, experience
        ``i`` of a class-incremental stream has the labels from ``i`` times their number.
    :param global_labels: whether a task-incremental stream is labelled like a class-incremental
        one, not from 0 in each experience.
    :return: the benchmark, with task labels and classes of each experience.
    """
    apart = scenario == "class" or (scenario == "task" and global_labels)

    def datasets(stream: Sequence[Samples]) -> list[Dataset]:
        labelled = [
            _labelled(samples.labels, number, own_classes=own_classes, apart=apart)
            for number, samples in enumerate(stream)
        ]
        return [
            # Task label 0 throughout is Avalanche's own way to say "no task labels"; its LwF asks
            # for it.
            _dataset(samples.inputs, labels, number if scenario == "task" else 0)
            for number, (samples, labels) in enumerate(zip(stream, labelled, strict=True))
        ]

    benchmark = benchmark_from_datasets(**{name: datasets(part) for name, part in parts.items()})
    return with_classes_timeline(with_task_labels(benchmark))


def _labelled(
    labels: torch.Tensor, experience: int, *, own_classes: bool, apart: bool
) -> torch.Tensor:
    classes, from_zero = labels.unique(return_inverse=True)
    if not apart:
        return from_zero
    return labels if own_classes else from_zero + experience * len(classes)


def _dataset(inputs: torch.Tensor, labels: torch.Tensor, task: int) -> Dataset:
    return TaskAwareSupervisedClassificationDataset(
        [TensorDataset(inputs, labels)],
        data_attributes=[
            DataAttribute(labels.tolist(), "targets"),
            TaskLabels(ConstantSequence(task, len(labels))),
        ],
    )
