"""Samples: read from a benchmark, cut, labelled for a scenario, and made a benchmark again."""

from __future__ import annotations

import logging
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
from torch.utils.data import DataLoader, StackDataset, Subset

from experiments.streams.held import Held
from experiments.untyped import Benchmark, Dataset, Experience

if TYPE_CHECKING:
    from numpy.typing import NDArray

# One fixed cut for every seed: seeds vary the training, never the question asked.
SPLIT_SEED = 1791
TEST_SHARE = 0.2
VALIDATION_SHARE = 0.2
_AT_ONCE = 4096

IN_MEMORY = 3 * 2**30
"""The most bytes of inputs that are held as tensors; more than that is read image by image."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Samples:
    """Samples of one experience.

    :param inputs: shape ``(n, ...)``; or a data set of ``n`` inputs, if they do not fit in memory.
    :param labels: the data set's own labels, shape ``(n,)``.
    """

    inputs: torch.Tensor | Dataset
    labels: torch.Tensor

    def subset(self, indices: NDArray[np.intp]) -> Samples:
        """Take the samples at the given positions.

        :param indices: positions, in the order wanted.
        :return: the samples there.
        """
        if isinstance(self.inputs, torch.Tensor):
            return Samples(self.inputs[indices], self.labels[indices])
        return Samples(Subset(self.inputs, indices.tolist()), self.labels[indices])


Parts = dict[str, list[Samples]]
"""The samples of each experience, by the name of the stream: ``"train"``, ``"test"``."""


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


def read(benchmark: Benchmark, first: int | None = None) -> Parts:
    """Read every sample of a benchmark once, through its transformations.

    If the inputs would take more than ``IN_MEMORY`` bytes, only their labels are read, and the
    inputs whenever they are asked for; a warning says so.

    :param benchmark: an Avalanche benchmark with the streams ``"train"`` and ``"test"``.
    :param first: how many experiences to read; None for all.
    :return: the samples of each experience, in order.
    """
    streams = {
        name: list(stream)[:first]
        for name, stream in (("train", benchmark.train_stream), ("test", benchmark.test_stream))
    }
    size = sum(input_bytes(each.dataset) for stream in streams.values() for each in stream)
    if size > IN_MEMORY:
        _log.warning(
            "the inputs would take %.1f GiB of memory as tensors, so each is read from its file "
            "whenever it is needed",
            size / 2**30,
        )
    one = _read_lazily if size > IN_MEMORY else _read_one
    return {name: [one(each) for each in stream] for name, stream in streams.items()}


def input_bytes(dataset: Dataset) -> int:
    """Tell how much memory the inputs of a data set take as tensors.

    :param dataset: samples that begin with an input, all of one shape.
    :return: bytes.
    """
    return len(dataset) * int(dataset[0][0].nbytes) if len(dataset) else 0


def _read_one(experience: Experience) -> Samples:
    dataset = experience.dataset
    batches = list(DataLoader(dataset, batch_size=_AT_ONCE, collate_fn=dataset.collate_fn))
    return Samples(
        torch.cat([batch[0] for batch in batches]), torch.cat([batch[1] for batch in batches])
    )


def _read_lazily(experience: Experience) -> Samples:
    return Samples(_Inputs(experience.dataset), torch.as_tensor(list(experience.dataset.targets)))


class _Inputs(torch.utils.data.Dataset[torch.Tensor]):
    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self._dataset[index][0]


def benchmark_of(
    parts: Parts, scenario: str, *, own_classes: bool, global_labels: bool
) -> Benchmark:
    """Make an Avalanche benchmark of samples.

    :param parts: the samples of each experience, by the name of the stream.
    :param scenario: ``"task"`` (a task label for each experience), ``"domain"``, ``"class"`` or
        ``"online"`` (labelled like ``"class"``).
    :param own_classes: whether every experience brings classes of its own; if not, experience
        ``i`` of a class-incremental stream has the labels from ``i`` times their number.
    :param global_labels: whether a task-incremental stream is labelled like a class-incremental
        one, not from 0 in each experience.
    :return: the benchmark, with task labels and classes of each experience.
    """
    apart = scenario in ("class", "online") or (scenario == "task" and global_labels)
    # Of all parts together: one of them may lack a class that the other has.
    classes = [
        torch.cat([samples.labels for samples in experience]).unique()
        for experience in zip(*parts.values(), strict=True)
    ]

    def labels(samples: Samples, number: int) -> torch.Tensor:
        if apart and own_classes:
            return samples.labels
        from_zero = torch.searchsorted(classes[number], samples.labels)
        return from_zero + number * len(classes[number]) if apart else from_zero

    def datasets(stream: Sequence[Samples]) -> list[Dataset]:
        # Task label 0 throughout is Avalanche's own way to say "no task labels"; its LwF asks
        # for it.
        return [
            _dataset(samples.inputs, labels(samples, number), number if scenario == "task" else 0)
            for number, samples in enumerate(stream)
        ]

    benchmark = benchmark_from_datasets(**{name: datasets(part) for name, part in parts.items()})
    return with_classes_timeline(with_task_labels(benchmark))


def _dataset(inputs: torch.Tensor | Dataset, labels: torch.Tensor, task: int) -> Dataset:
    # Tensors are data sets to torch, but not to its annotations.
    pairs = StackDataset(inputs, labels)  # type: ignore[arg-type]
    attributes = [
        _Targets(labels),
        TaskLabels(ConstantSequence(task, len(labels))),
    ]
    if isinstance(inputs, torch.Tensor):
        attributes.append(Held.whole((inputs, labels, torch.full_like(labels, task))))
    return TaskAwareSupervisedClassificationDataset([pairs], data_attributes=attributes)


class _Targets(DataAttribute):
    """Labels, whose values are found at once: Avalanche asks for every label by itself."""

    def __init__(self, labels: torch.Tensor) -> None:
        super().__init__(labels.tolist(), "targets")
        self._values = set(labels.unique().tolist())

    @property
    def uniques(self) -> set[int]:
        """The classes that there are samples of."""
        return self._values
