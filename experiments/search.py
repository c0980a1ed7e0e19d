"""The search of a method's strength: spread over a range at first, then where Optuna says."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from experiments.errors import BadValueError
from experiments.records import Description, Row
from experiments.statistics import Estimate, accuracies, estimate

if TYPE_CHECKING:
    import optuna

Run: TypeAlias = Callable[[Sequence[Description]], list[Row]]
"""Runs trials, or looks up those that ended before; hands back a row for each, in any order."""

Key = TypeVar("Key", bound=Hashable)

# The first half of the strengths is spread evenly, the others come one by one.
LEAST_TRIALS = 3
# How far the search may go on beyond an end of the range that was the best of it.
BEYOND = 1e3
_SAMPLER_SEED = 0


@dataclass(frozen=True)
class Target:
    """What a strength is searched for.

    :param low: the smallest strength tried, above 0.
    :param high: the largest strength tried. If one of the two ends is the best of those spread
        over the range, the search goes on beyond it, by a factor of ``BEYOND`` at most.
    :param describe: describes a trial from its strength and its seed.
    """

    low: float
    high: float
    describe: Callable[[float, int], Description]


@dataclass(frozen=True)
class Tried:
    """One strength that was tried.

    :param accuracy: average accuracy on the validation part over the seeds; None if a seed failed.
    :param failure: the reason of the first failure, or None.
    :param versions: the software of its first trial.
    """

    strength: float
    accuracy: Estimate | None
    failure: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def score(self) -> float:
        """What the search sees: the accuracy, and 0 if any seed failed."""
        return self.accuracy.mean if self.accuracy else 0.0


@dataclass(frozen=True)
class Found:
    """What a search says about one method.

    :param tried: every strength that was tried, sorted.
    """

    tried: tuple[Tried, ...]

    @property
    def best(self) -> Tried | None:
        """The best strength, the middle one of those that do equally well; None if all failed."""
        ended = [each for each in self.tried if each.accuracy]
        top = max((each.score for each in ended), default=0.0)
        equals = [each for each in ended if each.score == top]
        return equals[len(equals) // 2] if equals else None

    @property
    def flat(self) -> bool:
        """Whether every strength ended and gave the same accuracy."""
        return all(each.accuracy for each in self.tried) and len({e.score for e in self.tried}) == 1

    @property
    def at_edge(self) -> bool:
        """Whether the best strength is the smallest or the largest tried: more may be better."""
        return self.best in (self.tried[0], self.tried[-1])


def search(
    targets: Mapping[Key, Target], seeds: Sequence[int], trials: int, run: Run
) -> dict[Key, Found]:
    """Search a strength for each target, all side by side and with the same budget.

    The strengths that are tried follow from the results alone: run again with a ``run`` that
    remembers its trials, a search that was cut off goes on where it stopped.

    :param targets: what to search, by names of the caller's.
    :param seeds: the seeds that a strength is averaged over.
    :param trials: strengths to try for each target, at least ``LEAST_TRIALS``.
    :param run: runs the trials.
    :return: what was found, by the same names.
    :raises BadValueError: if ``trials`` is too small.
    """
    if trials < LEAST_TRIALS:
        raise BadValueError(
            f"a search of {trials} strengths is too short; it needs at least {LEAST_TRIALS}, "
            "both ends of the range and one between"
        )
    studies = {key: _Study(target, trials) for key, target in targets.items()}
    while any(study.remaining for study in studies.values()):
        asked = {key: study.ask() for key, study in studies.items()}
        descriptions = {
            (key, strength): [targets[key].describe(strength, seed) for seed in seeds]
            for key, strengths in asked.items()
            for strength in strengths
        }
        each_once = list(dict.fromkeys(chain.from_iterable(descriptions.values())))
        rows = {row.description.name: row for row in run(each_once)}
        for (key, strength), wanted in descriptions.items():
            studies[key].tell(_tried(strength, [rows[each.name] for each in wanted]))
    return {key: study.found() for key, study in studies.items()}


def _tried(strength: float, rows: Sequence[Row]) -> Tried:
    failure = next((row.failure for row in rows if row.failure is not None), None)
    accuracy = None if failure else estimate(list(accuracies(rows).values()))
    return Tried(strength, accuracy, failure, rows[0].versions)


class _Study:
    """Optuna's view of one target. A Gaussian process finds a peak in fewer trials than TPE."""

    def __init__(self, target: Target, trials: int) -> None:
        self._target = target
        self._first = max(LEAST_TRIALS, math.ceil(trials / 2))
        self._study: optuna.Study | None = None
        self._trial: optuna.Trial | None = None
        self._tried: dict[float, Tried] = {}
        self.remaining = trials

    def ask(self) -> list[float]:
        """Name the strengths to try next: several at first, then one."""
        if not self._tried:
            strengths = _spread(self._target.low, self._target.high, self._first)
        else:
            if self._study is None:
                self._study, self._range = self._begin()
            self._trial = self._study.ask({"strength": self._range})
            strengths = [_round(self._trial.params["strength"])]
        self.remaining -= len(strengths)
        return strengths

    def _begin(self) -> tuple[optuna.Study, optuna.distributions.FloatDistribution]:
        """Hand the first strengths over, with the range that they suggest."""
        import optuna

        # Its notes are about its own speed; what it suggests is in the record.
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        low, high = self._target.low, self._target.high
        best = self.found().best
        if best and best.strength == low:
            low /= BEYOND
        elif best and best.strength == high:
            high *= BEYOND
        within = optuna.distributions.FloatDistribution(low, high, log=True)
        sampler = optuna.samplers.GPSampler(seed=_SAMPLER_SEED, n_startup_trials=self._first)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        for strength, tried in self._tried.items():
            study.add_trial(
                optuna.trial.create_trial(
                    params={"strength": strength},
                    distributions={"strength": within},
                    value=tried.score,
                )
            )
        return study, within

    def tell(self, tried: Tried) -> None:
        """Take in what a strength gave."""
        if self._study is not None and self._trial is not None:
            self._study.tell(self._trial, tried.score)
        self._tried[tried.strength] = tried

    def found(self) -> Found:
        """Sort what was tried."""
        return Found(tuple(self._tried[strength] for strength in sorted(self._tried)))


def _spread(low: float, high: float, count: int) -> list[float]:
    ratio = high / low
    return [_round(low * ratio ** (step / (count - 1))) for step in range(count)]


def _round(strength: float) -> float:
    # So that another machine's last digits do not make another trial of it.
    return float(f"{strength:.3g}")
