"""The strength of each task, and how often to consolidate."""

from collections.abc import Callable, Sequence
from numbers import Real
from typing import TypeAlias

from si_avalanche.errors import ConfigurationError
from si_avalanche.settings import check_strength

Strength: TypeAlias = float | Sequence[float] | Callable[[int], float]
"""One c for all tasks, one for each (the last repeats), or a function of the task's index."""


def check_schedule(c: object) -> Strength:
    """Return the strengths of all tasks, checked as far as they are known."""
    if callable(c):
        return c
    if isinstance(c, Sequence) and not isinstance(c, str | bytes) and c:
        return [check_strength(value, f"c[{index}]") for index, value in enumerate(c)]
    if isinstance(c, Real):
        return check_strength(c)
    raise ConfigurationError(
        "c must be a number, 0 or more, a list with at least one such number (one for each "
        "experience, the last one repeats), or a function from the experience index to one, "
        f"got {c!r}."
    )


def strength_of(c: Strength, task: int) -> float:
    """Return the strength of a task before which there were so many."""
    if callable(c):
        return check_strength(c(task), f"c({task})")
    return c[min(task, len(c) - 1)] if isinstance(c, Sequence) else c


def check_every(steps: object) -> int | None:
    """Return after how many steps to consolidate; ``None`` means at the end of each task."""
    if steps is None or (isinstance(steps, int) and not isinstance(steps, bool) and steps > 0):
        return steps
    raise ConfigurationError(
        "consolidate_every must be None (at the end of each task) or a number of optimiser steps, "
        f"1 or more, got {steps!r}."
    )
