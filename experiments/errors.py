"""Named errors that tell the user what to change; the command line prints them as one line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path


class ExperimentError(Exception):
    """Base of every error that the user of an experiment can remedy."""


class BadValueError(ExperimentError):
    """A value on the command line that no run could use."""


class UnknownNameError(ExperimentError):
    """A name that no registry knows.

    :param kind: what was looked for, such as ``"strategy"``.
    :param given: the name as the user wrote it.
    :param allowed: the names that exist.
    """

    def __init__(self, kind: str, given: str, allowed: Sequence[str]) -> None:
        nearest = get_close_matches(given.lower(), allowed, n=1, cutoff=0.0)
        hint = f"; the nearest name is {nearest[0]!r}" if nearest else ""
        super().__init__(f"unknown {kind} {given!r}{hint}; allowed: {', '.join(allowed)}")


def require_known(kind: str, given: str, allowed: Iterable[str]) -> None:
    """Check a name against a registry.

    :param kind: what the name is, such as ``"strategy"``.
    :param given: the name.
    :param allowed: the names that exist.
    :raises UnknownNameError: if it is not one of them.
    """
    names = list(allowed)
    if given not in names:
        raise UnknownNameError(kind, given, names)


class MissingDataError(ExperimentError):
    """Files of a local data set that are not where they should be.

    :param stream: the stream that needs them.
    :param missing: the paths that were expected.
    :param where: for each data set concerned, its page and how to lay its files out.
    :param data_root: the folder that holds local data sets.
    """

    def __init__(
        self, stream: str, missing: Iterable[Path], where: Iterable[str], data_root: Path
    ) -> None:
        files = "\n  ".join(str(path) for path in missing)
        pages = "\n  ".join(where)
        super().__init__(
            f"stream {stream!r} reads local files and nothing is ever downloaded; "
            f"these were expected and are missing:\n  {files}\n"
            f"The data folder is {data_root} (see --data-root). Get them from:\n  {pages}"
        )


class UnusableDataError(ExperimentError):
    """Files of a local data set that are there and cannot be used.

    :param name: the data set.
    :param folder: where its files lie.
    :param reason: what its reader said.
    """

    def __init__(self, name: str, folder: Path, reason: str) -> None:
        super().__init__(
            f"the files of {name} below {folder} are incomplete or damaged ({reason}); nothing is "
            "ever downloaded, so replace them by the original ones"
        )


class ResultsError(ExperimentError):
    """A results folder or record that cannot be used."""


class EngineError(ExperimentError):
    """What runs the trials cannot be reached."""


class StrengthsError(ExperimentError):
    """A strength that is not written down."""
