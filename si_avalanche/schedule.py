"""The strength of each task, and how often to consolidate."""

from collections.abc import Callable, Sequence
from numbers import Real
from typing import TypeAlias

from si_avalanche.errors import ConfigurationError
from si_avalanche.settings import check_strength

Strength: TypeAlias = float | Sequence[float] | Callable[[int], float]
"""One c for all tasks, one for each (the last repeats), or a function of the task's index."""


def check_schedule(c: object) -> Strength:
    """Return the strengths of all tasks, checked as far as they are known.

    :param c: what the user gave.
    :raises ConfigurationError: if it is no number, no list of numbers and no function.
    """
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
    """Return the strength of one task.

    :param c: what :func:`check_schedule` gave.
    :param task: how many tasks came before it.
    :raises ConfigurationError: if a function gives no number, 0 or more.
    """
    if callable(c):
        return check_strength(c(task), f"c({task})")
    if isinstance(c, Sequence):
        return c[min(task, len(c) - 1)]
    return c


def check_every(steps: object) -> int | None:
    """Return after how many steps to consolidate; ``None`` means at the end of each task.

    :param steps: what the user gave.
    :raises ConfigurationError: if it is neither ``None`` nor a whole number, 1 or more.
    """
    if steps is None:
        return None
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ConfigurationError(
            "consolidate_every must be None (at the end of each task) or a number of optimiser "
            f"steps, 1 or more, got {steps!r}."
        )
    return steps
