"""How long a whole trial takes, beside a bare loop that does the same arithmetic."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from rich import box
from rich.console import Console
from rich.table import Table

from experiments.bench.bare import bare_trial
from experiments.compare import describe
from experiments.phases import Phases
from experiments.records import Choice, Description, Place
from experiments.streams import make_benchmark
from experiments.trial import EVALUATION, TRAINING, run_trial

_BARE = "bare loop"


@dataclass(frozen=True)
class Spent:
    """What a trial took, in seconds.

    :param training: the training of all experiences.
    :param evaluation: the evaluations, one after each experience.
    :param whole: everything, from the description to the result.
    """

    training: float
    evaluation: float
    whole: float

    @property
    def rest(self) -> float:
        """What was neither: streams, networks and strategies made, what a method holds weighed."""
        return self.whole - self.training - self.evaluation


Way = Callable[[Description], Spent]


def time_trials(stream: str, scenario: str, data_root: Path, rounds: int) -> dict[str, list[Spent]]:
    """Time trials as ``compare`` runs them, and the bare loop, in turn; data are in memory.

    :param stream: a name in ``STREAMS``.
    :param scenario: a name in ``SCENARIOS``, but not ``"online"``.
    :param data_root: the folder that holds local data sets.
    :param rounds: how often each is timed.
    :return: what each took in each round, by its name; the bare loop is the last.
    """
    ways: dict[str, tuple[str, Way]] = {
        "Naive": ("naive", _through_avalanche(data_root)),
        "SI": ("si", _through_avalanche(data_root)),
        _BARE: ("naive", _bare(data_root)),
    }
    choice = Choice((stream,), (scenario,), (), (0,), epochs=None, device="cpu")
    # How strong the penalty is makes no difference to its time.
    trials = {
        strategy: describe(choice, stream, scenario, strategy, 0, strength)
        for strategy, strength in (("naive", None), ("si", 1.0))
    }
    for strategy, run in ways.values():
        once = replace(trials[strategy].training, epochs=1)
        run(replace(trials[strategy], training=once))  # data are read, memory is allocated
    spent: dict[str, list[Spent]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, (strategy, run) in ways.items():
            spent[name].append(run(trials[strategy]))
    return spent


def _through_avalanche(data_root: Path) -> Way:
    place = Place(str(data_root))
    return lambda trial: _timed(lambda phases: run_trial(trial, place, phases))


def _bare(data_root: Path) -> Way:
    def run(trial: Description) -> Spent:
        heads = trial.network.head != "multi"
        streams = make_benchmark(trial.data, trial.seed, data_root, global_labels=heads)
        return _timed(lambda phases: bare_trial(trial, streams, phases))

    return run


def _timed(run: Callable[[Phases], object]) -> Spent:
    phases = Phases()
    started = time.perf_counter()
    run(phases)
    whole = time.perf_counter() - started
    return Spent(phases.seconds(TRAINING), phases.seconds(EVALUATION), whole)


def tell_trials(spent: dict[str, list[Spent]], title: str) -> None:
    """Print the table: median seconds of each part, and whole trials against the bare loop's.

    :param spent: what :func:`time_trials` gave.
    :param title: what stands above, without the unit.
    """
    table = Table(box=box.SIMPLE_HEAD, title=f"{title}, seconds", title_justify="left")
    table.add_column("one trial")
    for heading in ("training", "evaluation", "rest", "whole", "bare = 1", "from", "to"):
        table.add_column(heading, justify="right")
    for name, rounds in spent.items():
        parts = ([getattr(each, part) for each in rounds] for part in _PARTS)
        ratios = [each.whole / bare.whole for each, bare in zip(rounds, spent[_BARE], strict=True)]
        table.add_row(
            name,
            *(f"{median(seconds):.3f}" for seconds in parts),
            *(f"{ratio:.2f}" for ratio in (median(ratios), min(ratios), max(ratios))),
        )
    Console().print(table)


_PARTS = ("training", "evaluation", "rest", "whole")
