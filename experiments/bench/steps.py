"""A training step of every method: its time beside the others', and its memory."""

from __future__ import annotations

from collections.abc import Collection

from torch import nn

from experiments.bench.memory import look_at
from experiments.bench.methods import METHODS, Entry
from experiments.bench.rows import Row
from experiments.bench.timing import How, in_turn, ratios, spread
from experiments.bench.trainee import Trainee, trainees
from experiments.bench.workloads import Workload
from experiments.cost import bytes_beside


def measure_steps(
    workload: Workload,
    parts: Collection[str],
    how: How,
    entries: dict[str, Entry] = METHODS,
) -> list[Row]:
    """Train one workload with every method.

    :param workload: what to train.
    :param parts: ``"step"`` for times, ``"memory"`` for bytes, or both.
    :param how: how each step is timed.
    :param entries: the methods by name; the first is what the others are held against.
    :return: a row for each part and method.
    """
    made = trainees(workload, entries, how.device)
    rows = []
    if "step" in parts:
        rows += _times(workload, made, entries, how)
    if "memory" in parts:
        rows += _bytes(workload, made, entries, how.device)
    return rows


def _bytes(
    workload: Workload, made: dict[str, Trainee], entries: dict[str, Entry], device: str
) -> list[Row]:
    seen = {name: look_at(each.step, device, each.step) for name, each in made.items()}
    plain = seen[next(iter(entries))]
    rows = []
    for name, trainee in made.items():
        if not entries[name].is_method:
            continue
        state = bytes_beside(trainee.method, trainee.model, trainee.optimizer)
        row = begin_row("memory", workload, entries[name].label, trainee.model)
        rows.append(row.weighed(state, seen[name], plain, _largest_temporary(trainee, device)))
    return rows


def _largest_temporary(trainee: Trainee, device: str) -> int:
    """Weigh what the method's calls make; what a penalty in the loss makes is not among it."""
    method = trainee.method
    first = look_at(method.before_step, device)
    trainee.go_backward()
    second = look_at(method.after_backward, device)
    trainee.optimizer.step()
    third = look_at(method.after_step, device)
    return max(each.largest for each in (first, second, third))


def _times(
    workload: Workload,
    made: dict[str, Trainee],
    entries: dict[str, Entry],
    how: How,
) -> list[Row]:
    seconds = in_turn({name: each.step for name, each in made.items()}, how)
    plain = seconds[next(iter(entries))]
    return [
        begin_row("step", workload, entries[name].label, made[name].model).timed(
            spread(taken), spread(ratios(taken, plain)), how.rounds
        )
        for name, taken in seconds.items()
    ]


def begin_row(part: str, workload: Workload, method: str, model: nn.Module) -> Row:
    """Begin a row.

    :param part: a name in ``PARTS``.
    :param workload: what is trained.
    :param method: the method's label.
    :param model: the network.
    :return: the row, with nothing measured yet.
    """
    parameters = list(model.parameters())
    return Row(
        part,
        workload.name,
        method,
        parameters=sum(p.numel() for p in parameters),
        tensors=len(parameters),
        parameter_bytes=sum(p.nbytes for p in parameters),
    )
