"""The record of trials: one JSON object a line, appended as trials end, read back as rows."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from experiments.errors import ResultsError, require_known
from experiments.records import Description, Result, Row
from experiments.strategies import STRATEGIES
from experiments.streams import SCENARIOS, STREAMS

RECORD = "trials.jsonl"
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


def versions() -> dict[str, str]:
    """Name the software that a trial ran on.

    :return: versions by name.
    """
    return {
        "python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES},
        "si-avalanche": _own_version(),
    }


def make_folder(folder: Path) -> Path:
    """Make a folder for a new record.

    :param folder: where; parents are made too.
    :return: the path of the record in it, which does not exist yet.
    :raises ResultsError: if the folder cannot be made or holds a record already.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResultsError(f"cannot make the results folder {folder}: {error.strerror}") from error
    record = folder / RECORD
    if record.exists():
        raise ResultsError(f"{record} exists already; choose another results folder")
    return record


def append_row(record: Path, row: Row) -> None:
    """Add a line to a record.

    :param record: the file; made if need be.
    :param row: what to write.
    """
    line = (json.dumps(_flat(row), allow_nan=False) + "\n").encode()
    # One write to a file opened for appending: a reader, or a crash, never meets half a line.
    handle = os.open(record, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, line)
    finally:
        os.close(handle)


def read_rows(record: Path) -> list[Row]:
    """Read a record.

    :param record: the file.
    :return: its rows in a fixed order, whatever the order in which the trials ended.
    :raises ResultsError: if the file is missing or empty, or a line is not a row.
    :raises UnknownNameError: if a row names a stream, scenario or strategy that does not exist.
    """
    if not record.is_file():
        raise ResultsError(f"no record of trials at {record}")
    rows = []
    for number, line in enumerate(record.read_bytes().splitlines(), start=1):
        try:
            row = _row(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            raise ResultsError(f"{record}, line {number} is not a trial: {error}") from error
        for kind, name, known in (
            ("stream", row.description.stream, STREAMS),
            ("scenario", row.description.scenario, SCENARIOS),
            ("strategy", row.description.strategy, STRATEGIES),
        ):
            require_known(kind, name, known)
        rows.append(row)
    if not rows:
        raise ResultsError(f"{record} holds no trial")
    return sorted(rows, key=lambda row: row.description.seed)


def _flat(row: Row) -> dict[str, Any]:
    result = asdict(row.result) if row.result else dict.fromkeys(_RESULT_FIELDS)
    return {
        **asdict(row.description),
        "failure": row.failure,
        **result,
        "versions": row.versions,
    }


_DESCRIPTION_FIELDS: Sequence[str] = tuple(Description.__dataclass_fields__)
_RESULT_FIELDS: Sequence[str] = tuple(Result.__dataclass_fields__)


def _row(line: dict[str, Any]) -> Row:
    description = Description(**{name: line[name] for name in _DESCRIPTION_FIELDS})
    result = None
    if line["failure"] is None:
        values = {name: line[name] for name in _RESULT_FIELDS}
        values["accuracy"] = tuple(tuple(row) for row in values["accuracy"])
        result = Result(**values)
    return Row(description, result, line["failure"], line["versions"])
