"""What a strategy costs: time per iteration, passes over the data, bytes of state."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from avalanche.benchmarks import DatasetExperience
from avalanche.benchmarks.utils import AvalancheDataset
from avalanche.training.supervised import Naive
from torch import nn

from experiments.loading import InMemoryLoader
from experiments.untyped import AvalancheStrategy, Dataset


class IterationTimer:
    """Times training iterations, from the batch that the loader gives to the next one asked for.

    :param device: where the work happens; a GPU is waited for at both ends.
    """

    def __init__(self, device: torch.device) -> None:
        self._waits = device.type == "cuda"
        self._device = device
        self._durations: list[float] = []

    def attach(self, strategy: AvalancheStrategy) -> None:
        """Put a plugin behind the strategy's plugins: those before it may choose the loader.

        :param strategy: the strategy to time, changed in place.
        """
        strategy.plugins.append(_Timing(self))

    def median(self) -> float:
        """Summarise the iterations timed so far.

        :return: seconds.
        """
        return statistics.median(self._durations)

    def each(self, batches: Iterable[object]) -> Iterator[object]:
        """Hand batches on, and note how long each is worked on.

        :param batches: one pass of a loader.
        :return: the same batches.
        """
        for batch in batches:
            started = self._now()
            yield batch
            self._durations.append(self._now() - started)

    def _now(self) -> float:
        if self._waits:
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


class _Timing:
    def __init__(self, timer: IterationTimer) -> None:
        self.timer = timer

    def before_training_exp(self, strategy: AvalancheStrategy, **_kwargs: object) -> None:
        """Time what is done between the batches of the loader."""
        strategy.dataloader = _Timed(self.timer, strategy.dataloader)


class _Timed:
    def __init__(self, timer: IterationTimer, batches: Iterable[object]) -> None:
        self._timer = timer
        self._batches = batches

    def __iter__(self) -> Iterator[object]:
        return self._timer.each(self._batches)


class PassCounter:
    """Counts the samples sent forward through a network and the copies made of it.

    :param model: the network; it gets a hook.
    """

    def __init__(self, model: nn.Module) -> None:
        self._forwarded = 0
        self._extra: list[float] = []

        # Not a method: that would be copied along with the network, and the counter with it.
        def count(_module: nn.Module, inputs: tuple[Any, ...], _output: object) -> None:
            self._forwarded += len(inputs[0])

        model.register_forward_hook(count)

    @contextmanager
    def training(self, samples: int, epochs: float) -> Iterator[None]:
        """Count while the body trains on an experience.

        :param samples: the number of samples in the experience.
        :param epochs: the number of passes that training itself makes.
        """
        self._forwarded = 0
        yield
        self._extra.append(self._forwarded / samples - epochs)

    def extra_passes(self) -> float:
        """Summarise the experiences so far.

        :return: extra passes, mean over the experiences.
        """
        return statistics.fmean(self._extra)


def extra_bytes(strategy: AvalancheStrategy) -> int:
    """Weigh what a strategy holds beyond Naive: its method's plugins and its own attributes.

    Tensors and arrays are counted by storage, each once. A buffer of samples counts the samples
    it keeps, not the data set they are indexed from.

    :param strategy: a strategy after training.
    :return: bytes.
    """
    base_plugins, base_attributes = _of_naive()
    own = {name: value for name, value in vars(strategy).items() if name not in base_attributes}
    # The loader holds the samples that are trained and evaluated on, which is nobody's method.
    ours = (_Timing, InMemoryLoader)
    methods = [p for p in strategy.plugins if not isinstance(p, (*base_plugins, *ours))]
    shared = ("model", "optimizer", "evaluator", "clock")
    scale = _Scale(ignored=[strategy, *(getattr(strategy, name) for name in shared)])
    scale.ignore_tensors(strategy.model.parameters())
    scale.ignore_tensors(strategy.model.buffers())
    scale.ignore_tensors(_kept_by(strategy.optimizer))
    return scale.weigh(methods) + scale.weigh(own)


@cache
def _of_naive() -> tuple[tuple[type, ...], frozenset[str]]:
    """Tell what every strategy has: the kinds of its plugins, and the names of its attributes."""
    weight = nn.Linear(1, 1)
    plain = Naive(
        model=weight,
        optimizer=torch.optim.SGD(weight.parameters(), lr=0.1),
        criterion=nn.CrossEntropyLoss(),
        evaluator=None,
    )
    return tuple(type(plugin) for plugin in plain.plugins), frozenset(vars(plain))


def bytes_beside(thing: object, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Weigh what a method holds beside the network and the optimiser.

    :param thing: any object; what it refers to is walked.
    :param model: the network; its parameters, their gradients and its buffers do not count.
    :param optimizer: the optimiser; nothing of it counts.
    :return: bytes, every storage once.
    """
    scale = _Scale(ignored=[model, optimizer])
    scale.ignore_tensors(model.buffers())
    for p in model.parameters():
        scale.ignore_tensors([p] if p.grad is None else [p, p.grad])
    scale.ignore_tensors(_kept_by(optimizer))
    return scale.weigh(thing)


def _kept_by(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    values = [value for state in optimizer.state.values() for value in state.values()]
    return [value for value in values if isinstance(value, torch.Tensor)]


class _Scale:
    """Walks objects and adds up what their tensors hold, everything once."""

    def __init__(self, ignored: list[object]) -> None:
        # Kept alive: an identity is only unique as long as its object lives.
        self._kept = list(ignored)
        self._seen = {id(thing) for thing in ignored}
        self._storages: set[int] = set()

    def ignore_tensors(self, tensors: Iterable[torch.Tensor]) -> None:
        for tensor in tensors:
            self._weigh_tensor(tensor)

    def weigh(self, thing: object) -> int:
        if id(thing) in self._seen:
            return 0
        self._seen.add(id(thing))
        self._kept.append(thing)
        if isinstance(thing, torch.Tensor):
            return self._weigh_tensor(thing)
        if isinstance(thing, np.ndarray):
            return int(thing.nbytes)
        if isinstance(thing, DatasetExperience):
            return self.weigh(thing.dataset)
        if isinstance(thing, AvalancheDataset):
            return _sample_bytes(thing)
        return sum(self.weigh(part) for part in _parts(thing))

    def _weigh_tensor(self, tensor: torch.Tensor) -> int:
        storage = tensor.untyped_storage()
        if storage.data_ptr() in self._storages:
            return 0
        self._storages.add(storage.data_ptr())
        return storage.nbytes()


def _sample_bytes(dataset: Dataset) -> int:
    if len(dataset) == 0:
        return 0
    tensors = [part for part in dataset[0] if isinstance(part, torch.Tensor)]
    return len(dataset) * sum(tensor.nbytes for tensor in tensors)


def _parts(thing: object) -> list[object]:
    if isinstance(thing, Mapping):
        return list(thing.values())
    if isinstance(thing, (list, tuple, set, frozenset)):
        return list(thing)
    # Through these one would leave the strategy and walk the whole program.
    if isinstance(thing, (type, ModuleType, FunctionType, MethodType)):
        return []
    slots = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
    held = [getattr(thing, name, None) for name in slots if not name.startswith("__")]
    return held + list(getattr(thing, "__dict__", {}).values())
