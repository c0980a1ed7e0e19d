"""Two runs into one folder share the work: what one has taken, the other leaves to it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from experiments.records import Description
from experiments.results import names_done

_SECONDS_BETWEEN_LOOKS = 1.0


class Claims:
    """The trials that a run has taken: a locked file for each, which the system frees if it dies.

    :param record: the record that the runs share.
    """

    def __init__(self, record: Path) -> None:
        self._record = record
        self._mine: dict[str, FileLock] = {}
        self.elsewhere: list[Description] = []
        """What another run had taken when its turn came."""

    def take(self, descriptions: Iterable[Description]) -> Iterator[Description]:
        """Take trials one by one, as they are asked for.

        :param descriptions: the trials to choose from.
        :return: those that no other run has taken or ended well.
        """
        for each in descriptions:
            # Sought by a thread of the engine and given back by another.
            claim = FileLock(self._path(each), thread_local=False)
            try:
                claim.acquire(timeout=0)
            except Timeout:
                self.elsewhere.append(each)
                continue
            self._mine[each.name] = claim
            if each.name in names_done(self._record):
                self.give_back(each)
            else:
                yield each

    def give_back(self, description: Description) -> None:
        """Let go of a trial, after its row is in the record.

        :param description: the trial.
        """
        _let_go(self._mine.pop(description.name))

    def wait(self) -> list[Description]:
        """Wait for another run to let go of a trial, if one has any that was wanted here.

        :return: the trials that were taken elsewhere, less those that ended well since.
        """
        if self.elsewhere:
            claim = FileLock(self._path(self.elsewhere[0]))
            claim.acquire(poll_interval=_SECONDS_BETWEEN_LOOKS)
            done = names_done(self._record)
            _let_go(claim)
            return [each for each in self.elsewhere if each.name not in done]
        return []

    def _path(self, description: Description) -> Path:
        return self._record.with_name(f".{description.name}.claim")

    def __enter__(self) -> Claims:
        return self

    def __exit__(self, *_exception: object) -> None:
        for claim in self._mine.values():
            _let_go(claim)
        self._mine.clear()


def _let_go(claim: FileLock) -> None:
    claim.release()
    # Who has opened the file in between gets a lock that no third one sees. No harm: the record,
    # which is looked at after taking, tells what is done.
    with suppress(OSError):
        Path(claim.lock_file).unlink()
