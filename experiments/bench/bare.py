"""A trial of Naive without Avalanche: the same arithmetic on the same batches, in plain PyTorch."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from experiments.models import make_model
from experiments.phases import Phases
from experiments.records import Description, Training
from experiments.streams import input_shape
from experiments.streams.held import held_by
from experiments.trial import EVALUATION, EVALUATION_BATCH, TRAINING, seed_generators
from experiments.untyped import Benchmark, Experience

_Pair = tuple[torch.Tensor, torch.Tensor]


def bare_trial(
    description: Description, benchmark: Benchmark, phases: Phases
) -> list[tuple[float, ...]]:
    """Train on each experience in turn and take the accuracies after each, without Avalanche.

    It starts from tensors in memory. Its accuracies are those of ``run_trial``: the same initial
    weights, the same batches in the same order, the same optimiser.

    :param description: a trial of Naive on a network of fully connected layers, counted in epochs.
    :param benchmark: its streams, whose samples are held in memory.
    :param phases: what the seconds of training and of evaluation are added to.
    :return: a row of accuracies after each experience.
    """
    training = description.training
    lessons = _tensors(benchmark.train_stream)
    exams = _tensors(benchmark.streams[description.data.evaluation])
    seed_generators(description.seed, 0)
    model = make_model(description.network, input_shape(description.data), benchmark.train_stream)
    networks = [_network(model, number) for number in range(len(lessons))]
    optimizer = torch.optim.Adam(
        model.parameters(), lr=training.learning_rate, eps=training.epsilon, fused=True
    )
    rows = []
    for number, (network, lesson) in enumerate(zip(networks, lessons, strict=True), start=1):
        seed_generators(description.seed, number)
        optimizer.state.clear()
        with phases.timed(TRAINING):
            _train(network, optimizer, lesson, training)
        with phases.timed(EVALUATION):
            rows.append(tuple(map(_accuracy, networks, exams)))
    return rows


def _tensors(stream: Iterable[Experience]) -> list[_Pair]:
    held = [held_by(experience.dataset) for experience in stream]
    return [(columns[0], columns[1]) for columns in held if columns is not None]


def _network(model: nn.Module, task: int) -> nn.Sequential:
    trunk = model.get_submodule("trunk")
    own = "head" if isinstance(model.head, nn.Linear) else f"head.classifiers.{task}.classifier"
    return nn.Sequential(*trunk.children(), model.get_submodule(own))


def _train(
    network: nn.Module, optimizer: torch.optim.Optimizer, lesson: _Pair, training: Training
) -> None:
    inputs, labels = lesson
    criterion = nn.CrossEntropyLoss()
    assert training.epochs is not None
    network.train()
    for _ in range(training.epochs):
        for chosen in _order(len(labels)).split(training.batch_size):
            optimizer.zero_grad()
            criterion(network(inputs[chosen]), labels[chosen]).backward()
            optimizer.step()


def _order(samples: int) -> torch.Tensor:
    # As torch's loader draws it: a number for workers that there are none of, then a seed.
    _, seed = (int(torch.empty((), dtype=torch.int64).random_()) for _ in range(2))
    return torch.randperm(samples, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def _accuracy(network: nn.Module, exam: _Pair) -> float:
    network.eval()
    batches = zip(*(column.split(EVALUATION_BATCH) for column in exam), strict=True)
    right = sum(int((network(inputs).argmax(1) == labels).sum()) for inputs, labels in batches)
    return right / len(exam[1])
