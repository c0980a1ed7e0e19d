"""The seconds of a run by what they are spent on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Phases:
    """Adds up the time of the parts of a run, whose bodies may come again and again."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the time that the body takes to a part's.

        :param name: the part.
        """
        started = time.perf_counter()
        try:
            yield
        finally:
            taken = time.perf_counter() - started
            self._seconds[name] = self.seconds(name) + taken

    def seconds(self, name: str) -> float:
        """Tell what a part has taken so far.

        :param name: the part.
        :return: seconds; 0.0 for a part that has not come.
        """
        return self._seconds.get(name, 0.0)
