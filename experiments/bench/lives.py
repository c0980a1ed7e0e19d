"""A step and a consolidation, task after task."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace

from torch.utils.benchmark import timer

from experiments.bench.methods import METHODS, OURS, PLAIN
from experiments.bench.rows import Row
from experiments.bench.steps import begin_row
from experiments.bench.timing import How, Spread, ratios, spread
from experiments.bench.trainee import Trainee
from experiments.bench.workloads import Workload
from experiments.cost import bytes_beside

_STEPS_OF_A_TASK = 5
_TASKS_TOLD_TOGETHER = 10

Life = dict[str, list[float]]
"""Seconds of what a task costs, by what it is, task after task."""


def measure_tasks(workload: Workload, tasks: int, how: How) -> list[Row]:
    """Let networks learn one task after the other, with this package and without SI, in turn.

    A consolidation cannot be called twice in a row, so torch's timer is read around it by hand.

    :param workload: what to train.
    :param tasks: how many tasks.
    :param how: how many such lives, and where.
    :return: for every ten tasks a row for each step, and one for a consolidation.
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
        trainee.warm_up()
    life: Life = defaultdict(list)
    for _ in range(tasks):
        for name, trainee in (("plain", plain), ("ours", ours)):
            life[name].append(_seconds(trainee.step, _STEPS_OF_A_TASK))
        life["consolidation"].append(_seconds(ours.method.end_task, 1))
        state.append(bytes_beside(ours.method, ours.model, ours.optimizer))
    return life


def _seconds(call: Callable[[], None], times: int) -> float:
    started = timer()
    for _ in range(times):
        call()
    return (timer() - started) / times


def _told(base: Row, lives: list[Life], state: int) -> list[Row]:
    assert base.tasks is not None
    first = base.tasks - _TASKS_TOLD_TOGETHER
    seconds = {
        name: [taken for life in lives for taken in life[name][first : base.tasks]]
        for name in ("plain", "ours", "consolidation")
    }

    def timed(row: Row, taken: list[float]) -> Row:
        ratio: Spread = spread(ratios(taken, seconds["plain"]))
        return row.timed(spread(taken), ratio, len(lives))

    ours = replace(base, method=OURS, state_bytes=state)
    return [
        timed(base, seconds["plain"]),
        timed(ours, seconds["ours"]),
        timed(replace(ours, what="consolidation"), seconds["consolidation"]),
    ]
