"""Many trials at once. The only file that knows the engines: joblib at home, Dask beyond."""

from __future__ import annotations

import os
import threading
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

from experiments.errors import BadValueError, EngineError, require_known
from experiments.records import Description, Place, Row
from experiments.worker import Trial, end_with, failed, real_trial, run_row

ENGINES = ("joblib", "dask")
_SECONDS_TO_CONNECT = 10.0


@dataclass(frozen=True)
class Engine:
    """What runs trials side by side; nothing here changes what they measure but ``threads``.

    :param kind: a name in ``ENGINES``.
    :param workers: how many trials run at once. With a Dask scheduler at ``address`` it is the
        least number that is handed over at once: as many as its workers have threads, if that is
        more.
    :param address: a Dask scheduler such as ``tcp://host:8786``, whose workers were started where
        ``experiments`` can be imported; None for a cluster on this machine.
    :param threads: PyTorch's threads in each trial. More than 1 may change the last digits of what
        a trial measures.
    :raises UnknownNameError: if there is no such engine.
    :raises BadValueError: if joblib is given a scheduler, or a number is below 1.
    """

    kind: str = "joblib"
    workers: int = 1
    address: str | None = None
    threads: int = 1

    def __post_init__(self) -> None:
        require_known("engine", self.kind, ENGINES)
        if self.kind == "joblib" and self.address is not None:
            raise BadValueError(
                f"the scheduler {self.address!r} is Dask's and the engine is joblib; "
                "choose the engine dask, or leave the scheduler out"
            )
        for what, number in (("workers", self.workers), ("threads", self.threads)):
            if number < 1:
                raise BadValueError(f"the number of {what} is {number}; it must be at least 1")


def run_trials(
    descriptions: Iterable[Description],
    place: Place,
    engine: Engine,
    trial: Trial = real_trial,
) -> Generator[Row, None, None]:
    """Run trials, and hand each over as soon as it is done, in no particular order.

    A trial that fails is a row that says why; the others go on. So is one whose process dies,
    killed for its memory, say: joblib's trials have a process for each that runs at once, and
    only what ran in the dead one is lost; Dask gives the trial to other workers first, as often as
    its ``distributed.scheduler.allowed-failures`` says. A single worker of joblib is this very
    process. Every trial seeds itself and a process runs one at a time, so engine and number of
    workers change nothing but the time.

    :param descriptions: the trials; they are taken one by one, when a worker is or will be free.
    :param place: where data are read and logs written, on the machine of each worker.
    :param engine: what runs them.
    :param trial: what runs one of them.
    :return: one row per trial.
    :raises EngineError: if there is no Dask scheduler at the engine's address, or it goes away.
    """
    if engine.kind == "dask":
        return _with_dask(descriptions, place, engine, trial)
    if engine.workers == 1:
        return (run_row(each, place, engine.threads, trial) for each in descriptions)
    return _with_joblib(descriptions, place, engine, trial)


def _with_joblib(
    descriptions: Iterable[Description], place: Place, engine: Engine, trial: Trial
) -> Generator[Row, None, None]:
    from joblib import Parallel, delayed

    processes = _Processes()
    # Threads that wait, each for a process of its own: of joblib's own processes one that dies
    # takes all the others and their trials with it.
    parallel = Parallel(
        n_jobs=engine.workers,
        backend="threading",
        batch_size=1,
        pre_dispatch="n_jobs",
        return_as="generator_unordered",
    )
    run = delayed(processes.run)
    try:
        yield from parallel(run(each, place, engine.threads, trial) for each in descriptions)
    finally:
        processes.end()


class _Processes:
    """A process for each thread that runs trials, replaced if it dies."""

    def __init__(self) -> None:
        self._of_thread = threading.local()
        self._all: list[Any] = []

    def run(self, description: Description, place: Place, threads: int, trial: Trial) -> Row:
        """Run a trial in the process of this thread."""
        from joblib.externals.loky import ProcessPoolExecutor

        mine = self._of_thread
        if not hasattr(mine, "process"):
            mine.process = ProcessPoolExecutor(
                max_workers=1, initializer=end_with, initargs=(os.getpid(),)
            )
            self._all.append(mine.process)
        try:
            row: Row = mine.process.submit(run_row, description, place, threads, trial).result()
        except BrokenProcessPool as error:
            del mine.process
            return failed(description, error, threads)
        return row

    def end(self) -> None:
        """End all processes, and what they are running."""
        for process in self._all:
            process.shutdown(kill_workers=True)


def _with_dask(
    descriptions: Iterable[Description], place: Place, engine: Engine, trial: Trial
) -> Generator[Row, None, None]:
    from dask.distributed import as_completed

    waiting = iter(descriptions)
    running: dict[Any, Description] = {}
    with _dask_client(engine) as client:
        ended = as_completed()

        def hand_over() -> None:
            width = max(engine.workers, sum(client.nthreads().values()))
            for each in islice(waiting, max(0, width - len(running))):
                # Dask would give equal calls one result; ours are kept apart by the record.
                future = client.submit(run_row, each, place, engine.threads, trial, pure=False)
                running[future] = each
                ended.add(future)

        hand_over()
        for future in ended:
            if future.cancelled():
                raise EngineError("the Dask scheduler went away; run again to go on from here")
            description = running.pop(future)
            error = future.exception()
            yield failed(description, error, engine.threads) if error else future.result()
            hand_over()


@contextmanager
def _dask_client(engine: Engine) -> Iterator[Any]:
    import logging

    from dask.distributed import Client, LocalCluster

    if engine.address is None:
        with (
            LocalCluster(
                n_workers=engine.workers,
                threads_per_worker=1,
                memory_limit=0,  # a trial may take what the machine has, as with joblib
                dashboard_address=None,
                silence_logs=logging.ERROR,
            ) as cluster,
            Client(cluster) as client,
        ):
            yield client
        return
    try:
        client = Client(engine.address, timeout=_SECONDS_TO_CONNECT)
    except (OSError, ValueError) as error:
        raise EngineError(
            f"no Dask scheduler at {engine.address!r}: {error}; "
            "start one with 'dask scheduler', and give the address that it prints"
        ) from error
    with client:
        yield client
