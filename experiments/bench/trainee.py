"""A network in training with a method, one step at a time."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional

from experiments.bench.methods import STRENGTH, Entry
from experiments.bench.workloads import Workload

# So small that the network is as untrained at the last timing as at the first: one that has
# learnt its batch by heart has moments too small for the processor's fast path.
LEARNING_RATE = 1e-5
STEPS_BEFORE = 5
"""How many steps are made, untimed, of the task before and again of the one that is timed: what is
allocated or compiled in a task's first steps is not part of a step."""


def make_adam(model: nn.Module, fused: bool) -> torch.optim.Optimizer:
    """Make the optimiser of everything that is timed.

    :param model: what it trains.
    :param fused: ask for PyTorch's fused form; otherwise the default is taken.
    :return: Adam.
    """
    return torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=fused or None)


class Trainee:
    """A copy of a network, its optimiser and its method.

    :param model: what to copy.
    :param inputs: a batch.
    :param labels: its labels.
    :param entry: the method.
    :param c: its strength.
    """

    def __init__(
        self, model: nn.Module, inputs: Tensor, labels: Tensor, entry: Entry, c: float = STRENGTH
    ) -> None:
        self.model = deepcopy(model)
        self.optimizer = make_adam(self.model, entry.fused_adam)
        self.method = entry.make(self.model, self.optimizer, c)
        self._inputs, self._labels = inputs, labels
        self._entry = entry

    def step(self) -> None:
        """Make one training step."""
        self.optimizer.zero_grad()
        self.method.before_step()
        loss = functional.cross_entropy(self.model(self._inputs), self._labels)
        self.method.penalised(loss).backward()
        self.method.after_backward()
        self.optimizer.step()
        self.method.after_step()

    def prepare(self) -> None:
        """Train as far as a later task, unless the method is to stay in its first, and warm up."""
        self.steps(STEPS_BEFORE)
        if not self._entry.first_task:
            self.method.end_task()
        self.steps(STEPS_BEFORE)

    def steps(self, count: int) -> None:
        """Make several steps.

        :param count: how many.
        """
        for _ in range(count):
            self.step()


def trainees(workload: Workload, entries: dict[str, Entry], device: str) -> dict[str, Trainee]:
    """Make a trainee for each method, all from the same weights and on the same batch.

    :param workload: what they train.
    :param entries: the methods by name.
    :param device: where they train.
    :return: the trainees by name, ready to be timed.
    """
    model, inputs, labels = workload.draw(device)
    made = {name: Trainee(model, inputs, labels, entry) for name, entry in entries.items()}
    for trainee in made.values():
        trainee.prepare()
    return made
