"""Many trials on several processes. The only file that knows the engine, joblib."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from filelock import FileLock
from joblib import Parallel, delayed

from experiments.quiet import quiet
from experiments.records import Description, Place, Result, Row
from experiments.results import versions


def run_trials(descriptions: Iterable[Description], place: Place, processes: int) -> Iterator[Row]:
    """Run trials, and hand each over as soon as it is done, in no particular order.

    A trial that fails is a row that says why; the others go on. Every trial seeds itself and
    has one thread, so the number of processes changes nothing but the time.

    :param descriptions: the trials.
    :param place: where data are read and logs written.
    :param processes: how many trials run at once.
    :return: one row per trial.
    """
    engine = Parallel(n_jobs=processes, batch_size=1, return_as="generator_unordered")
    rows: Iterator[Row] = engine(delayed(_row)(each, place) for each in descriptions)
    return rows


def _row(description: Description, place: Place) -> Row:
    try:
        with quiet():
            result = _run_on_one_thread(description, place)
    except Exception as error:  # whatever a strategy raises is its row
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return Row(description, None, reason, versions())
    return Row(description, result, None, versions())


def _run_on_one_thread(description: Description, place: Place) -> Result:
    # Imported here so that the parent process, which only waits, starts without torch.
    import torch

    with _first_import_of_avalanche():
        from experiments.trial import run_trial

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return run_trial(description, place)
    finally:
        torch.set_num_threads(threads)


def _first_import_of_avalanche() -> AbstractContextManager[object]:
    """Keep processes apart while Avalanche is imported for the first time on a machine.

    It writes its configuration then and reads it back: a second process would meet half a file.
    """
    if Path("~/.avalanche/config.json").expanduser().exists():
        return nullcontext()
    return FileLock(Path(tempfile.gettempdir()) / "avalanche-first-import.lock")
