"""A step as parameters grow, and as the same parameters lie in more tensors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from experiments.bench.methods import METHODS
from experiments.bench.rows import Row
from experiments.bench.steps import begin_row
from experiments.bench.timing import How, Statement, in_turn, ratios, spread
from experiments.bench.trainee import trainees
from experiments.bench.workloads import Workload

FLOOR = "least traffic"
"""What the rows of the floor have in place of a method."""

# Before the optimiser's step theta, theta*, Omega and g are read, g and the copy of theta are
# written; after it theta, its copy, theta*, Omega, g and omega are read, omega is written.
_PASSES = 13
# That is six tensors, which a cache may hold or not: three such are added to three others, in
# place. A copy would be slower for each pass that it seems to make: it reads what it overwrites.
_ADDED = 3
_PASSES_OF_THE_ADDITION = 3 * _ADDED

_PLAIN, _OURS = "plain", "ours"


def measure_growth(part: str, workload: Workload, how: How) -> list[Row]:
    """Train one size with this package and without SI.

    The floor of the method's calls alone is the least traffic of a step at the speed of an addition
    in place that touches as much memory.

    :param part: ``"parameters"`` or ``"tensors"``.
    :param workload: what to train.
    :param how: how everything is timed.
    :return: the steps, the calls alone, and their floor.
    """
    entries = {name: METHODS[name] for name in (_PLAIN, _OURS)}
    made = trainees(workload, entries, how.device)
    rows = {name: begin_row(part, workload, entries[name].label, made[name].model) for name in made}
    statements: dict[str, Statement] = {
        "addition": _addition(rows[_PLAIN].parameters or 0, how.device)
    }
    statements |= {name: trainee.step for name, trainee in made.items()}
    seconds = in_turn(statements, how, {"calls": made[_OURS].clocked_step})
    return list(_told(rows, seconds, how.rounds))


def _told(rows: dict[str, Row], seconds: dict[str, list[float]], rounds: int) -> Iterator[Row]:
    plain = seconds[_PLAIN]
    for name, row in rows.items():
        yield row.timed(spread(seconds[name]), spread(ratios(seconds[name], plain)), rounds)
    floor = [taken * _PASSES / _PASSES_OF_THE_ADDITION for taken in seconds["addition"]]
    for what, method, taken in (
        ("calls", rows[_OURS].method, seconds["calls"]),
        ("floor", FLOOR, floor),
    ):
        row = replace(rows[_OURS], what=what, method=method)
        yield row.timed(spread(taken), spread(ratios(taken, plain)), rounds)


def _addition(numbers: int, device: str) -> Statement:
    # Not zeros: pages that were never written are all one page.
    source = torch.ones(_ADDED * numbers, device=device)
    target = torch.ones(_ADDED * numbers, device=device)
    return lambda: target.add_(source)
