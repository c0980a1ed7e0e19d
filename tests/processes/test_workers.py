"""The tests of several processes can fail: errors of a rank are told, and a hang is ended."""

import os
import time
from collections.abc import Callable
from typing import Any

import pytest
from torch import distributed

from tests.processes.launch import RankError

Together = Callable[..., list[Any]]


def whoami(rank: int, ranks: int) -> tuple[int, int, int]:
    return rank, distributed.get_world_size(), os.getpid()


def fail_on_rank_1(rank: int, ranks: int) -> None:
    if rank == 1:
        raise ValueError("no luck")
    distributed.barrier()


def leave_rank_0_waiting(rank: int, ranks: int) -> None:
    if rank == 0:
        distributed.barrier()
    else:
        time.sleep(60)


def die_on_rank_1(rank: int, ranks: int) -> None:
    if rank == 1:
        os._exit(3)


def test_a_function_runs_in_as_many_processes_as_asked_for(together: Together) -> None:
    for ranks in (2, 4):
        answers = together(ranks, whoami)
        assert [answer[:2] for answer in answers] == [(rank, ranks) for rank in range(ranks)]
        assert len({pid for *_, pid in answers} | {os.getpid()}) == ranks + 1


@pytest.mark.parametrize(
    ("function", "report"),
    [
        (fail_on_rank_1, r"(?s)rank 1: .*ValueError: no luck"),
        (leave_rank_0_waiting, r"rank 0: gave no answer in time\nrank 1: gave no answer in time"),
        (die_on_rank_1, "rank 1: died"),
    ],
)
def test_what_goes_wrong_in_a_rank_is_told_and_the_next_test_gets_new_processes(
    together: Together, function: Callable[..., None], report: str
) -> None:
    begin = time.monotonic()
    with pytest.raises(RankError, match=report):
        together(2, function, seconds=3)
    assert time.monotonic() - begin < 20
    assert len(together(2, whoami)) == 2
