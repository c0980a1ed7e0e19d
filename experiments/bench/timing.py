"""Times by torch's own timer, in turn, round by round."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import median

import torch
from torch.utils.benchmark import Timer, timer

Statement = Callable[[], object]

_SECONDS_AT_ONCE = 0.2
_MOST_CALLS_AT_ONCE = 200


@dataclass(frozen=True)
class How:
    """How things are timed.

    :param rounds: how often each.
    :param threads: PyTorch's threads.
    :param device: where to train.
    """

    rounds: int
    threads: int
    device: str

    @contextmanager
    def on_its_threads(self) -> Iterator[None]:
        """Let PyTorch have these threads, and after that as many as before."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


@dataclass(frozen=True)
class Spread:
    """What several rounds gave.

    :param min: the smallest.
    :param median: the median.
    :param max: the largest.
    """

    min: float
    median: float
    max: float


def spread(values: Sequence[float]) -> Spread:
    """Summarise rounds.

    :param values: one number a round, at least one.
    :return: the summary.
    """
    return Spread(min(values), median(values), max(values))


def ratios(values: Sequence[float], others: Sequence[float]) -> list[float]:
    """Divide what was measured in the same rounds.

    :param values: one number a round.
    :param others: what each is divided by.
    :return: one ratio a round.
    """
    return [value / other for value, other in zip(values, others, strict=True)]


def in_turn(statements: Mapping[str, Statement], how: How) -> dict[str, list[float]]:
    """Time statements side by side, so that what slows the machine down slows down all.

    Each round times each of them once, beginning with another one than the round before. Every
    time is the mean of as many calls as take a fifth of a second, after two that are not timed; a
    call that takes as long by itself is timed by itself.

    :param statements: what to call, by name.
    :param how: how often, and on how many threads.
    :return: for each name the seconds of one call, round by round.
    """
    runs = {name: _timed(call, how.threads) for name, call in statements.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    for number in range(how.rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            seconds[name].append(runs[name]())
    return seconds


def _timed(call: Statement, threads: int) -> Callable[[], float]:
    calls = _calls_at_once(call)
    if calls == 1:
        return partial(once, call)
    clock = Timer("call()", globals={"call": call}, num_threads=threads)
    return lambda: clock.timeit(calls).mean


def once(call: Statement) -> float:
    """Time one call by the clock of torch's timer, which waits for a GPU.

    :param call: what to call.
    :return: seconds.
    """
    started = timer()
    call()
    return timer() - started


def _calls_at_once(call: Statement) -> int:
    return min(_MOST_CALLS_AT_ONCE, max(1, round(_SECONDS_AT_ONCE / once(call))))
