"""Which parameters have importance, known without waiting for the device in every step."""

from collections.abc import Sequence
from typing import TypeAlias

from si_avalanche.live import LiveParameters
from si_avalanche.marks import mark, same_marks
from si_avalanche.state import State, pick

Names: TypeAlias = tuple[str, ...]
"""Names of parameters, in order."""

_MOST = 64
"""Sets of names that are remembered: heads come and go."""


class Important:
    """The parameters with an importance other than zero.

    :param live: the protected parameters; those that are frozen for now do not count.
    :param state: importance; only read.
    """

    def __init__(self, live: LiveParameters, state: State) -> None:
        self._names = live.trainable_names
        self._state = state
        self._seen = mark([])
        self._found: frozenset[str] = frozenset()
        self._split: dict[Names, tuple[Names, Names]] = {}

    def among(self, names: Names) -> tuple[Names, Names]:
        """Tell those with importance from the others.

        Importance is looked at, and the device waited for, only after it has been changed.

        :param names: of any of the parameters.
        :return: those with importance, and the others.
        """
        importance = pick(self._state.importance, self._names)
        if not same_marks(self._seen, importance):
            pairs = zip(self._names, importance, strict=True)
            self._found = frozenset(name for name, omega in pairs if omega.any())
            self._seen = mark(importance)
            self._split.clear()
        split = self._split.get(names)
        if split is None:
            if len(self._split) >= _MOST:
                self._split.clear()
            found = tuple(name for name in names if name in self._found)
            split = self._split[names] = found, without(names, found)
        return split


def without(names: Names, others: Sequence[str]) -> Names:
    """Return the names that are not among others, in their order.

    :param names: any names.
    :param others: those to leave out.
    """
    if not others:
        return names
    unwanted = set(others)
    return tuple(name for name in names if name not in unwanted)
