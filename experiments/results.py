"""The record of trials: one JSON object a line, appended as trials end, read back as rows."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock

from experiments.errors import ResultsError, require_known
from experiments.records import Row, row_from_dict, row_to_dict
from experiments.strategies import STRATEGIES
from experiments.streams import SCENARIOS, STREAMS

RECORD = "trials.jsonl"
_MEND = "delete the line, and its trial will be run again"
_PACKAGES = ("torch", "avalanche-lib")


@cache
def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


@cache
def _own_version() -> str:
    # Asked of the package itself: in a checkout it may run without being installed.
    try:
        return str(import_module("si_avalanche").__version__)
    except ImportError:
        return "not installed"


def versions(device: str = "cpu") -> dict[str, str]:
    """Name what a trial ran on, and when.

    :param device: the trial's device.
    :return: the versions of the software by name, ``machine`` (its kind, processors and GPU) and
        ``date`` (in UTC, as ISO writes it).
    """
    return {
        "python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES},
        "si-avalanche": _own_version(),
        "machine": _machine(device),
        "date": datetime.now(UTC).date().isoformat(),
    }


def _machine(device: str) -> str:
    kind = f"{platform.machine()}, {os.cpu_count()} CPUs"
    if device.startswith("cuda"):
        import torch

        if torch.cuda.is_available():
            return f"{kind}, {torch.cuda.get_device_name(device)}"
    return kind


def open_folder(folder: Path) -> Path:
    """Make a folder for a record, or go on with the one that is there.

    :param folder: where; parents are made too.
    :return: the path of the record in it; a last line that is not whole is set aside first.
    :raises ResultsError: if the folder cannot be made or written to.
    """
    record = folder / RECORD
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _lock(record):
            _mend(record)
    except OSError as error:
        raise ResultsError(f"cannot make the results folder {folder}: {error.strerror}") from error
    return record


def to_line(row: Row) -> str:
    """Write a row as a line of the record.

    :param row: the row.
    :return: a JSON object, without the end of the line.
    :raises ResultsError: if a number in it is not finite, which JSON cannot hold.
    """
    try:
        return json.dumps(row_to_dict(row), allow_nan=False)
    except ValueError as error:
        raise ResultsError("the trial measured a number that is not finite") from error


def append_row(record: Path, row: Row) -> None:
    """Add a line to a record, which other processes may be adding to as well.

    :param record: the file; made if need be.
    :param row: what to write.
    :raises ResultsError: if it cannot be written, the disk being full, say.
    """
    line = (to_line(row) + "\n").encode()
    try:
        with _lock(record):
            _mend(record)
            with record.open("ab") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
    except OSError as error:
        raise ResultsError(
            f"cannot write to {record}: {error.strerror}; mend that and run again: "
            "the trials in the record are kept"
        ) from error


def names_done(record: Path) -> set[str]:
    """List the trials that ended well.

    :param record: the file; if it is missing, nothing is done.
    :return: their names.
    :raises ResultsError: if a line is not a row.
    """
    if not record.exists():
        return set()
    done = set()
    for number, line in enumerate(_lines(record), start=1):
        with _named(record, number):
            written = json.loads(line)
            if written["result"] is not None:
                done.add(written["name"])
    return done


def read_rows(record: Path) -> list[Row]:
    """Read a record.

    :param record: the file.
    :return: one row per trial, in a fixed order whatever ended first; of a trial that is there
        more than once its first success, or its last failure if it has none.
    :raises ResultsError: if the file is missing or empty, or a line is not a row as it was written.
    :raises UnknownNameError: if a row names a stream, scenario or strategy that does not exist.
    """
    if not record.is_file():
        raise ResultsError(f"no record of trials at {record}")
    rows = [_row(record, number, line) for number, line in enumerate(_lines(record), start=1)]
    if not rows:
        raise ResultsError(f"{record} holds no trial")
    return sorted(_once_each(rows), key=_place_in_order)


def _lock(record: Path) -> FileLock:
    return FileLock(record.with_name(f".{record.name}.lock"))


def _lines(record: Path) -> list[bytes]:
    written = record.read_bytes()
    if written and not written.endswith(b"\n"):
        # Someone may be writing: who holds the lock sees the record as it is between two writes.
        with _lock(record):
            written = record.read_bytes()
    whole, torn = _split(written)
    if torn:
        _warn(f"the last line of {record} is not whole and is left out; its trial is not done")
    return whole.splitlines()


def _mend(record: Path) -> None:
    if not record.exists():
        return
    with record.open("r+b") as file:
        if not _ends_in_mid_line(file):
            return
        file.seek(0)
        whole, torn = _split(file.read())
        if not torn:
            file.write(b"\n")
            return
        aside = record.with_name(f"{record.name}.torn")
        with aside.open("ab") as other:
            other.write(torn + b"\n")
        file.truncate(len(whole))
    _warn(f"the last line of {record} was not whole; it is now in {aside.name}, its trial not done")


def _ends_in_mid_line(file: BinaryIO) -> bool:
    if file.seek(0, os.SEEK_END) == 0:
        return False
    file.seek(-1, os.SEEK_END)
    return file.read(1) != b"\n"


def _split(written: bytes) -> tuple[bytes, bytes]:
    """Part a record into its whole lines and what was torn off a last one, if anything."""
    start = written.rfind(b"\n") + 1
    try:
        # An editor may have taken the end of a line that is whole.
        json.loads(written[start:])
    except ValueError:
        return written[:start], written[start:]
    return written, b""


def _warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)


@contextmanager
def _named(record: Path, number: int) -> Iterator[None]:
    """Tell which line is not a trial."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ResultsError(f"{record}, line {number} is not a trial ({reason}); {_MEND}") from error


def _row(record: Path, number: int, line: bytes) -> Row:
    with _named(record, number):
        written: dict[str, Any] = json.loads(line)
        name, row = written["name"], row_from_dict(written)
    for kind, given, known in (
        ("stream", row.description.data.stream, STREAMS),
        ("scenario", row.description.data.scenario, SCENARIOS),
        ("strategy", row.description.strategy, STRATEGIES),
    ):
        require_known(kind, given, known)
    if name != row.description.name:
        raise ResultsError(
            f"{record}, line {number} is named {name}, and what it describes would be named "
            f"{row.description.name}: it was edited, or written by another version of the "
            f"experiments; {_MEND}"
        )
    return row


def _once_each(rows: Iterable[Row]) -> Iterable[Row]:
    best: dict[str, Row] = {}
    for row in rows:
        name = row.description.name
        if name not in best or best[name].result is None:
            best[name] = row
    return best.values()


def _place_in_order(row: Row) -> tuple[str, str, str, float, int, str]:
    which = row.description
    strength = -1.0 if which.strength is None else which.strength
    where = which.data.stream, which.data.scenario
    return (*where, which.strategy, strength, which.seed, which.name)
