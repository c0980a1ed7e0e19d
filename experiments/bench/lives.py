"""A step and a consolidation, task after task."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from functools import partial
from statistics import median

from experiments.bench.methods import METHODS, OURS, PLAIN
from experiments.bench.rows import Row
from experiments.bench.steps import begin_row
from experiments.bench.timing import How, once, ratios, spread
from experiments.bench.trainee import STEPS_BEFORE, Trainee
from experiments.bench.workloads import Workload
from experiments.cost import bytes_beside

_STEPS = 5
_TASKS_TOLD_TOGETHER = 10

Life = dict[str, list[float]]
"""Seconds of what a task costs, by what it is, task after task."""


def measure_tasks(workload: Workload, tasks: int, how: How) -> list[Row]:
    """Let networks learn one task after the other, with this package and without SI, in turn.

    A consolidation cannot be called twice in a row, so torch's timer is read around it by hand.

    :param workload: what to train.
    :param tasks: how many tasks.
    :param how: how many such lives, and where.
    :return: for every ten tasks a row for each step and one for a consolidation; each life counts
        with the median of the ten.
    """
    lives = []
    for _ in range(how.rounds):
        model, inputs, labels = workload.draw(how.device)
        plain, ours = (Trainee(model, inputs, labels, METHODS[n]) for n in ("plain", "ours"))
        state: list[int] = []
        lives.append(_live(plain, ours, tasks, state))
    base = begin_row("tasks", workload, PLAIN, plain.model)
    return [
        row
        for last in range(_TASKS_TOLD_TOGETHER, tasks + 1, _TASKS_TOLD_TOGETHER)
        for row in _told(replace(base, tasks=last), lives, state[last - 1])
    ]


def _live(plain: Trainee, ours: Trainee, tasks: int, state: list[int]) -> Life:
    for trainee in (plain, ours):
        trainee.steps(STEPS_BEFORE)
    life: Life = defaultdict(list)
    for _ in range(tasks):
        for name, trainee in (("plain", plain), ("ours", ours)):
            life[name].append(once(partial(trainee.steps, _STEPS)) / _STEPS)
        life["consolidation"].append(once(ours.method.end_task))
        state.append(bytes_beside(ours.method, ours.model, ours.optimizer))
    return life


def _told(base: Row, lives: list[Life], state: int) -> list[Row]:
    assert base.tasks is not None
    first = base.tasks - _TASKS_TOLD_TOGETHER
    own = [{name: taken[first : base.tasks] for name, taken in life.items()} for life in lives]

    def timed(row: Row, name: str) -> Row:
        ratio = [median(ratios(life[name], life["plain"])) for life in own]
        taken = [median(life[name]) for life in own]
        return row.timed(len(lives), seconds=spread(taken), ratio=spread(ratio))

    ours = replace(base, method=OURS, state_bytes=state)
    return [
        timed(base, "plain"),
        timed(ours, "ours"),
        timed(replace(ours, what="consolidation"), "consolidation"),
    ]
