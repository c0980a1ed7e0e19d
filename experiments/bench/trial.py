"""How fast a trial is: through Avalanche, with batches from memory, and in a bare loop."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from avalanche.training.supervised import Naive
from rich import box
from rich.console import Console
from rich.table import Table
from torch import nn

from experiments.bench.whole import tell_trials, time_trials
from experiments.loading import InMemoryLoader
from experiments.models import make_model
from experiments.records import Data, Network
from experiments.streams import SCENARIOS, STREAMS, input_shape, make_benchmark
from experiments.untyped import Experience

_BARE = "bare PyTorch loop"


def bench(stream: str, scenario: str, data_root: Path, rounds: int, threads: int) -> int:
    """Time one epoch of the first experience, then whole trials, and print two tables.

    An epoch is timed in three ways that do the same arithmetic in the same batches: Naive through
    Avalanche's own loader, Naive with batches cut from memory, and a loop without Avalanche over
    tensors. Whole trials are those of ``compare``, evaluation included, against such a loop.

    :param stream: a name in ``STREAMS``.
    :param scenario: that of the whole trials: ``"task"``, ``"domain"`` or ``"class"``.
    :param data_root: the folder that holds local data sets.
    :param rounds: how often each is timed.
    :param threads: PyTorch's threads.
    :return: exit status.
    """
    torch.set_num_threads(threads)
    data = Data(stream, "domain")
    first = make_benchmark(data, 0, data_root, global_labels=False).train_stream[0]
    ways: dict[str, Callable[[], None]] = {
        "Avalanche's loader": _through_avalanche(data, first, in_memory=False),
        "batches from memory": _through_avalanche(data, first, in_memory=True),
        _BARE: _bare(data, first),
    }
    for run in ways.values():
        run()  # what is done once only, such as the first allocation, is not timed
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, run in ways.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    iterations = -(-len(first.dataset) // STREAMS[stream].batch_size)
    title = f"{STREAMS[stream].title}, {threads} threads, {rounds} rounds"
    _tell(seconds, iterations, title)
    spent = time_trials(stream, scenario, data_root, rounds)
    tell_trials(spent, f"{title}, {SCENARIOS[scenario]}")
    return 0


def _network(data: Data, first: Experience) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    network = Network(hidden=STREAMS[data.stream].hidden)
    model = make_model(network, input_shape(data), [first])
    rate = STREAMS[data.stream].learning_rate
    return model, torch.optim.Adam(model.parameters(), lr=rate, fused=True)


def _through_avalanche(data: Data, first: Experience, *, in_memory: bool) -> Callable[[], None]:
    model, optimizer = _network(data, first)
    strategy = Naive(
        model=model,
        optimizer=optimizer,
        criterion=nn.CrossEntropyLoss(),
        train_mb_size=STREAMS[data.stream].batch_size,
        evaluator=None,
        plugins=[InMemoryLoader()] if in_memory else [],
    )
    return lambda: strategy.train(first)


def _bare(data: Data, first: Experience) -> Callable[[], None]:
    model, optimizer = _network(data, first)
    samples = [first.dataset[number] for number in range(len(first.dataset))]
    inputs = torch.stack([sample[0] for sample in samples])
    labels = torch.tensor([sample[1] for sample in samples])
    criterion = nn.CrossEntropyLoss()

    def epoch() -> None:
        for chosen in torch.randperm(len(labels)).split(STREAMS[data.stream].batch_size):
            optimizer.zero_grad()
            criterion(model(inputs[chosen]), labels[chosen]).backward()
            optimizer.step()

    return epoch


def _tell(seconds: dict[str, list[float]], iterations: int, title: str) -> None:
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    table.add_column("one epoch through")
    for heading in ("iterations/s", "slowest", "fastest", "time, bare loop = 1"):
        table.add_column(heading, justify="right")
    bare = median(seconds[_BARE])
    for name, taken in seconds.items():
        rates = (median(taken), max(taken), min(taken))
        ratio = f"{median(taken) / bare:.2f}"
        table.add_row(name, *(f"{iterations / each:.0f}" for each in rates), ratio)
    Console().print(table)
