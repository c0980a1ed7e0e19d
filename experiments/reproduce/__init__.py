"""A published experiment run again: its trials, and what came out beside what was published."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from experiments.errors import BadValueError, require_known
from experiments.protocols import Protocol, Run, read_protocol, shortened
from experiments.records import Description, Place
from experiments.sweep import Engine


@dataclass(frozen=True)
class Request:
    """What a user asked to reproduce.

    :param only: names of runs, or none for all.
    :param seeds: the seeds, or None for as many as were published, from 0.
    :param epochs: fewer or more epochs than published, or None.
    :param iterations: fewer or more steps per task than published, or None.
    """

    protocol: Protocol
    only: tuple[str, ...]
    seeds: tuple[int, ...] | None
    epochs: int | None
    iterations: int | None
    device: str

    def __post_init__(self) -> None:
        """Check that the protocol has what is asked of it.

        :raises UnknownNameError: for a run that it has not.
        :raises BadValueError: for epochs of a protocol that counts steps, or the other way round.
        """
        known = [run.name for run in self.protocol.runs]
        for name in self.only:
            require_known(f"run of {self.protocol.name}", name, known)
        training = self.protocol.runs[0].description.training
        if self.epochs is not None and training.epochs is None:
            raise BadValueError(
                f"{self.protocol.name} counts steps, {training.iterations} a task; "
                "say --iterations, not --epochs"
            )
        if self.iterations is not None and training.iterations is None:
            raise BadValueError(
                f"{self.protocol.name} counts epochs, {training.epochs} a task; "
                "say --epochs, not --iterations"
            )

    @property
    def runs(self) -> list[Run]:
        """The runs asked for, shortened if that was asked for."""
        return [
            shortened(run, self.epochs, self.iterations)
            for run in self.protocol.runs
            if not self.only or run.name in self.only
        ]

    def trials_of(self, run: Run) -> list[Description]:
        """List the trials of a run.

        :param run: one of :attr:`runs`.
        :return: one trial for each seed.
        """
        seeds = range(self.protocol.seeds) if self.seeds is None else self.seeds
        return [replace(run.description, seed=seed, device=self.device) for seed in seeds]


def request(
    name: str,
    only: Sequence[str] = (),
    seeds: Sequence[int] | None = None,
    epochs: int | None = None,
    iterations: int | None = None,
    device: str = "cpu",
) -> Request:
    """Check what a user asks for.

    :param name: the protocol's name.
    :param only: names of its runs; none for all.
    :param seeds: the seeds; None for as many as were published.
    :param epochs: epochs per task; None for the published number.
    :param iterations: steps per task; None for the published number.
    :param device: where to train.
    :return: the request.
    :raises UnknownNameError: for a protocol or run that does not exist.
    :raises BadValueError: for epochs where steps count, or the other way round.
    """
    chosen = None if seeds is None else tuple(seeds)
    return Request(read_protocol(name), tuple(only), chosen, epochs, iterations, device)


def reproduce(asked: Request, place: Place, engine: Engine, folder: Path) -> int:
    """Run a published experiment, and tell what came out beside what was published.

    :param asked: what to run.
    :param place: where data are read.
    :param engine: what runs the trials.
    :param folder: where the record, the table, the figure and the report go; trials that are
        done in its record are not run again.
    :return: exit status, 0 unless every trial failed.
    """
    from experiments.progress import run_and_record

    trials = {run.name: asked.trials_of(run) for run in asked.runs}
    # Seed by seed, so that what is compared runs side by side.
    in_turn = [trial for seed in zip(*trials.values(), strict=True) for trial in seed]
    rows = run_and_record(in_turn, place, engine, folder)

    # scipy and matplotlib take longer to import than to use, and no trial waits for them.
    from experiments.reproduce.outcomes import outcome
    from experiments.reproduce.telling import tell

    outcomes = [
        outcome(asked.protocol, run, [row for row in rows if row.description in trials[run.name]])
        for run in asked.runs
    ]
    tell(asked.protocol, outcomes, rows, folder)
    return 0 if any(row.result for row in rows) else 1
