"""Batches cut by index from tensors in memory, in Avalanche's own order."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from avalanche.benchmarks.utils.data_loader import MultiDatasetDataLoader, MultiDatasetSampler
from torch.utils.data import BatchSampler, DataLoader, Sampler

from experiments.errors import BadValueError
from experiments.streams.held import held_by
from experiments.streams.samples import IN_MEMORY, input_bytes
from experiments.untyped import AvalancheStrategy, Dataset

_AT_ONCE = 4096

_log = logging.getLogger(__name__)


class InMemoryLoader:
    """Lets a strategy take its batches from tensors, cut by index, not sample by sample.

    The samples and their order are those that Avalanche's loader would give for the same seed,
    and so is the state of torch's random generator afterwards: the same samplers of torch and of
    Avalanche draw the indices. That holds for replay and task-balanced loaders too. Samples that a
    stream holds as tensors are taken as they are; others are read once, when the experience begins,
    so that a transformation at random happens once.

    A plugin of two hooks, without the empty ones that Avalanche's plugins inherit and that would be
    called at every iteration. It has to stand behind those that set ``strategy.dataloader``
    themselves. A loader that is not one of Avalanche's reads its samples as it did, and so does
    every loader whose tensors would not fit; ``left`` counts these, and a warning says so once.

    :param iterations: how many batches an epoch has, passes over the data being shuffled anew;
        None for one pass.
    :param limit: the most bytes of inputs to hold for training, and again for evaluation.
    """

    def __init__(self, iterations: int | None = None, limit: int = IN_MEMORY) -> None:
        self._iterations = iterations
        self._limit = limit
        self._evaluated: dict[tuple[str, int], _Slices] = {}
        self.left = 0

    def before_training_exp(self, strategy: AvalancheStrategy, **_kwargs: object) -> None:
        """Replace the training loader by one that cuts the same batches from tensors."""
        loader = strategy.dataloader
        if self._takes(loader, held=0):
            tensors = [_tensors(dataset, strategy.device) for dataset in loader.datasets]
            loader = _Batches(loader, _join(tensors))
        strategy.dataloader = _Cycle(loader, self._iterations) if self._iterations else loader

    def before_eval_exp(self, strategy: AvalancheStrategy, **_kwargs: object) -> None:
        """Replace the evaluation loader; what was evaluated before is still in memory."""
        loader, experience = strategy.dataloader, strategy.experience
        key = (experience.origin_stream.name, experience.current_experience)
        if key not in self._evaluated:
            if not self._takes(loader, held=sum(each.nbytes for each in self._evaluated.values())):
                return
            tensors = _tensors(strategy.adapted_dataset, strategy.device)
            self._evaluated[key] = _Slices(tensors, strategy.eval_mb_size)
        strategy.dataloader = self._evaluated[key]

    def _takes(self, loader: object, held: int) -> bool:
        if not isinstance(loader, MultiDatasetDataLoader):
            self._leave("it is not one of Avalanche's loaders")
            return False
        size = sum(map(input_bytes, loader.datasets))
        if held + size > self._limit:
            self._leave(
                f"its inputs would take {size / 2**30:.1f} GiB, and the limit is "
                f"{self._limit / 2**30:.1f}"
            )
            return False
        return True

    def _leave(self, reason: str) -> None:
        if not self.left:
            _log.warning("a loader goes on reading sample by sample: %s", reason)
        self.left += 1


class _Slices:
    """Batches in the order of the samples, as evaluation takes them: nothing is copied."""

    def __init__(self, tensors: list[torch.Tensor], size: int) -> None:
        self.nbytes = tensors[0].nbytes
        self._batches = list(zip(*(tensor.split(size) for tensor in tensors), strict=True))

    def __iter__(self) -> Iterator[list[torch.Tensor]]:
        _draw_for_workers()
        return map(list, self._batches)

    def __len__(self) -> int:
        return len(self._batches)


class _Batches:
    """The batches of an Avalanche loader, cut by index from the tensors of its data sets."""

    def __init__(self, loader: MultiDatasetDataLoader, tensors: list[torch.Tensor]) -> None:
        self._tensors = tensors
        self._length = len(loader)
        self._sampler = _sampler(loader)

    def __iter__(self) -> Iterator[list[torch.Tensor]]:
        _draw_for_workers()
        for chosen in _choices(self._sampler):
            yield [tensor.index_select(0, chosen) for tensor in self._tensors]

    def __len__(self) -> int:
        return self._length


def _sampler(loader: MultiDatasetDataLoader) -> Sampler[list[int]]:
    # Avalanche's loader is not asked itself: at the start of each pass it walks over all samples,
    # to see whether another library could load them.
    ranges: list[Any] = [range(len(dataset)) for dataset in loader.datasets]
    samplers: list[Any] = [
        DataLoader(numbers, batch_size=size, **loader.loader_kwargs).batch_sampler
        for numbers, size in zip(ranges, loader.batch_sizes, strict=True)
    ]
    if len(samplers) == 1:
        return samplers[0]
    return MultiDatasetSampler(
        ranges,
        samplers,
        termination_dataset_idx=loader.termination_dataset,
        oversample_small_datasets=loader.oversample_small_datasets,
        never_ending=loader.never_ending,
    )


def _draw_for_workers() -> None:
    # As a loader of torch does before it asks for the first batch, workers or not.
    torch.empty((), dtype=torch.int64).random_()


def _choices(sampler: Sampler[list[int]]) -> Iterable[torch.Tensor]:
    if not isinstance(sampler, BatchSampler):
        return map(torch.tensor, sampler)
    # The whole pass at once: to make a tensor for each batch takes longer than to cut its rows.
    one_by_one: Any = sampler.sampler
    order = np.fromiter(one_by_one, dtype=np.int64, count=len(one_by_one))
    return torch.from_numpy(order).split(sampler.batch_size)[: len(sampler)]


class _Cycle:
    """As many batches as asked for, in passes that are shuffled anew."""

    def __init__(self, batches: Iterable[list[torch.Tensor]], iterations: int) -> None:
        self._batches = batches
        self._iterations = iterations

    def __iter__(self) -> Iterator[list[torch.Tensor]]:
        left = self._iterations
        while left:
            before = left
            for batch in self._batches:
                yield batch
                left -= 1
                if not left:
                    return
            if left == before:
                raise BadValueError(
                    "an experience has fewer samples than a batch, and drop_last leaves out what "
                    "is not a full batch: choose a smaller batch"
                )

    def __len__(self) -> int:
        return self._iterations


def _tensors(dataset: Dataset, device: torch.device) -> list[torch.Tensor]:
    held = held_by(dataset)
    return [tensor.to(device) for tensor in (_read(dataset) if held is None else held)]


def _read(dataset: Dataset) -> list[torch.Tensor]:
    batches = DataLoader(
        dataset,
        batch_size=_AT_ONCE,
        collate_fn=dataset.collate_fn,
        # A generator of its own: a loader draws a seed, which would not be drawn without us.
        generator=torch.Generator(),
    )
    return _join([list(batch) for batch in batches])


def _join(parts: list[list[torch.Tensor]]) -> list[torch.Tensor]:
    # One part is taken as it is: joining would copy what is held already.
    if len(parts) == 1:
        return parts[0]
    return [torch.cat(pieces) for pieces in zip(*parts, strict=True)]
