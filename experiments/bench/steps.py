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
    :param parts: ``"memory"`` for bytes; what the times of a step belong to otherwise.
    :param how: how each step is timed.
    :param entries: the methods by name; the others are held against the first two, which train
        without SI, with Adam as it is by default and with ``Adam(fused=True)``.
    :return: a row for each part and method.
    """
    made = trainees(workload, entries, how.device)
    rows = []
    for part in parts:
        if part == "memory":
            rows += _bytes(workload, made, entries, how.device)
        else:
            rows += _times(part, workload, made, entries, how)
    return rows


def _bytes(
    workload: Workload, made: dict[str, Trainee], entries: dict[str, Entry], device: str
) -> list[Row]:
    seen = {name: look_at(each.step, device, each.step) for name, each in made.items()}
    default, fused, *_ = seen.values()
    rows = []
    for name, entry in entries.items():
        if entry.is_method:
            trainee = made[name]
            state = bytes_beside(trainee.method, trainee.model, trainee.optimizer)
            row = begin_row("memory", workload, entry.label, trainee.model)
            rows.append(row.weighed(state, seen[name], fused if entry.fused_adam else default))
    return rows


def _times(
    part: str,
    workload: Workload,
    made: dict[str, Trainee],
    entries: dict[str, Entry],
    how: How,
) -> list[Row]:
    seconds = in_turn({name: each.step for name, each in made.items()}, how)
    rows = [begin_row(part, workload, entries[name].label, made[name].model) for name in seconds]
    return against_both(rows, list(seconds.values()), how)


def against_both(rows: list[Row], seconds: list[list[float]], how: How) -> list[Row]:
    """Give rows their times, and the ratios to the first two of them.

    :param rows: one for each thing timed.
    :param seconds: what each took, round by round.
    :param how: how they were timed.
    :return: the rows.
    """
    default, fused, *_ = seconds
    return [
        row.timed(
            how.rounds,
            seconds=spread(taken),
            ratio=spread(ratios(taken, default)),
            fused_ratio=spread(ratios(taken, fused)),
        )
        for row, taken in zip(rows, seconds, strict=True)
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
