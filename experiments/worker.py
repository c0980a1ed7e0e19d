"""One trial where it runs: on its own threads and GPU, and whatever goes wrong is its row."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable
from functools import cache
from itertools import count
from pathlib import Path

from filelock import FileLock, Timeout

from experiments.quiet import quiet
from experiments.records import Description, Place, Result, Row
from experiments.results import to_line, versions

Trial = Callable[[Description, Place], Result]
"""What runs a trial; a function of a module, so that another process can import it."""

# Seeds and the number of threads belong to the process: a Dask worker may have several threads.
_ONE_AT_A_TIME = threading.Lock()
_SECONDS_BETWEEN_LOOKS = 1.0


def real_trial(description: Description, place: Place) -> Result:
    """Run a trial with Avalanche, which is imported here: who only waits starts without it.

    :param description: what to train, on what, and how.
    :param place: where data are read and logs written.
    :return: what the trial measured.
    """
    _import_avalanche_alone_the_first_time()
    from experiments.trial import run_trial

    return run_trial(description, place)


def run_row(description: Description, place: Place, threads: int, trial: Trial) -> Row:
    """Run a trial in this process, after whichever it is running now.

    :param description: the trial.
    :param place: where data are read and logs written.
    :param threads: how many threads PyTorch takes.
    :param trial: what runs it.
    :return: its row; one with the reason if it failed, or measured what is no finite number.
    """
    with _ONE_AT_A_TIME:
        try:
            with quiet():
                result = _run(description, place, threads, trial)
            row = Row(description, result, None, _versions(description, threads))
            to_line(row)
        except Exception as error:  # whatever a strategy raises is its row
            return failed(description, error, threads)
    return row


def failed(description: Description, error: BaseException, threads: int) -> Row:
    """Make the row of a trial that has no result.

    :param description: the trial.
    :param error: why.
    :param threads: how many threads PyTorch was to take.
    :return: the row, with the reason on one line.
    """
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return Row(description, None, reason, _versions(description, threads))


def end_with(parent: int) -> None:
    """Let this process end when its parent does, even if that is killed.

    :param parent: the number of the process that started this one.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        # Not sys.exit: the trial is in another thread, and nobody waits for it any more.
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def gpu_of(worker: int, gpus: int) -> str:
    """Deal GPUs to workers, one after the other.

    :param worker: the worker's number on its machine, from 0.
    :param gpus: how many GPUs the machine has, at least 1.
    :return: the worker's GPU, as PyTorch names it.
    """
    return f"cuda:{worker % gpus}"


def _versions(description: Description, threads: int) -> dict[str, str]:
    # More threads add in another order, so that the last digits may differ.
    return {**versions(description.device), "threads": str(threads)}


def _run(description: Description, place: Place, threads: int, trial: Trial) -> Result:
    import torch

    # An order such as cuda:1 is the user's own, and the others are on the only GPU.
    if description.device == "cuda" and (gpus := torch.cuda.device_count()) > 1:
        # What "cuda" means in this process: the description, and so its name, stays as it is.
        torch.cuda.set_device(gpu_of(_worker_number(), gpus))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return trial(description, place)
    finally:
        torch.set_num_threads(before)


def _own_temporary(name: str) -> Path:
    # Of each user: on a shared machine nobody can lock another's file.
    return Path(tempfile.gettempdir()) / f"si-avalanche-{Path.home().name}-{name}"


@cache
def _worker_number() -> int:
    """Number the processes of this machine that run trials, whatever started them.

    :return: the lowest number that no other process has; it is this one's until it ends.
    """
    return next(number for number in count() if _is_free(number))


_KEPT: list[FileLock] = []


def _is_free(number: int) -> bool:
    lock = FileLock(_own_temporary(f"worker-{number}.lock"), thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    _KEPT.append(lock)
    return True


def _import_avalanche_alone_the_first_time() -> None:
    """Keep processes apart while Avalanche is imported for the first time on a machine.

    It writes its configuration then and reads it back: a second process would meet half a file.
    """
    with FileLock(_own_temporary("first-import.lock")):
        if not Path("~/.avalanche/config.json").expanduser().exists():
            import avalanche  # noqa: F401
