"""Processes that stay for several tests, run one function together and can't hang a test."""

import multiprocessing
import pickle
import time
import traceback
import warnings
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from torch import distributed

SECONDS_TO_COMMUNICATE = 30  # a rank that waits for another one in vain gets an error then
SECONDS_TO_ANSWER = 60  # ... and a rank that gives no answer at all is ended


class RankError(Exception):
    """What went wrong in the processes, with the traceback of each."""


class Processes:
    """Processes side by side, each with a rank; started when they are first needed."""

    def __init__(self, preload: list[str]) -> None:
        # Forked from a server that has imported what takes seconds, and has started no thread.
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(preload)
        self._workers: list[tuple[BaseProcess, Connection]] = []

    def run(
        self,
        ranks: int,
        meeting: Path,
        function: Callable[..., Any],
        *arguments: Any,
        seconds: float = SECONDS_TO_ANSWER,
    ) -> list[Any]:
        """Call a function in every process of a new group and return what it returns, by rank.

        It is called as ``function(rank, ranks, *arguments)`` and is found by its name.
        """
        while len(self._workers) < ranks:
            self._start()
        for rank, (_, connection) in enumerate(self._workers[:ranks]):
            connection.send_bytes(pickle.dumps((rank, ranks, str(meeting), function, arguments)))
        answers = self._answers(ranks, time.monotonic() + seconds)
        failures = [f"rank {rank}: {text}" for rank, (ok, text) in enumerate(answers) if not ok]
        if failures:
            raise RankError("\n".join(failures))
        return [result for _, result in answers]

    def close(self) -> None:
        for process, connection in self._workers:
            process.kill()
            process.join()
            connection.close()
        self._workers = []

    def _start(self) -> None:
        here, there = self._context.Pipe()
        process = self._context.Process(target=_work, args=(there,), daemon=True)
        process.start()
        there.close()
        self._workers.append((process, here))

    def _answers(self, ranks: int, deadline: float) -> list[tuple[bool, Any]]:
        pending = {connection: rank for rank, (_, connection) in enumerate(self._workers[:ranks])}
        answers: list[tuple[bool, Any]] = [(False, "gave no answer in time")] * ranks
        while pending and (left := deadline - time.monotonic()) > 0:
            for connection in wait(list(pending), left):
                assert isinstance(connection, Connection)
                answers[pending.pop(connection)] = _received(connection)
        if not all(ok for ok, _ in answers):
            self.close()
        return answers


def _received(connection: Connection) -> tuple[bool, Any]:
    try:
        answer: tuple[bool, Any] = pickle.loads(connection.recv_bytes())
    except EOFError:
        return False, "died"
    return answer


def _work(connection: Connection) -> None:
    torch.set_num_threads(1)
    while True:
        try:
            task = pickle.loads(connection.recv_bytes())
        except EOFError:
            return
        answer: tuple[bool, Any]
        try:
            answer = True, _together(*task)
        except BaseException:
            answer = False, traceback.format_exc()
        connection.send_bytes(pickle.dumps(answer))


def _together(
    rank: int,
    ranks: int,
    meeting: str,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> Any:
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{meeting}",
        rank=rank,
        world_size=ranks,
        timeout=timedelta(seconds=SECONDS_TO_COMMUNICATE),
    )
    try:
        distributed.barrier()  # nobody leaves before all have met
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return function(rank, ranks, *arguments)
    finally:
        distributed.destroy_process_group()
