"""A sweep with its record: what is done is skipped, and one display tells how far it is."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import closing
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from experiments.claims import Claims
from experiments.records import Description, Place, Row
from experiments.results import append_row, names_done, open_folder, read_rows
from experiments.sweep import Engine, run_trials
from experiments.worker import Trial, real_trial


def run_and_record(
    descriptions: Sequence[Description],
    place: Place,
    engine: Engine,
    folder: Path,
    trial: Trial = real_trial,
) -> list[Row]:
    """Run the trials that are not done, under one progress display, and record each as it ends.

    A trial that failed before is run again. Another run may be at work in the same folder: each
    trial is run by whoever comes to it first, and this one waits for the other's at the end.

    :param descriptions: the trials.
    :param place: where data are read and logs written.
    :param engine: what runs them.
    :param folder: where the record is or will be.
    :param trial: what runs one of them.
    :return: the rows of these trials, in the record's order, whenever they were run.
    :raises ResultsError: if the folder or the record cannot be used.
    :raises UnknownNameError: if the record names something that does not exist.
    :raises EngineError: if the engine cannot be reached.
    """
    record = open_folder(folder)
    if record.exists() and record.stat().st_size:
        read_rows(record)  # a record that could not be told later is refused before the work
    asked = {each.name: each for each in descriptions}
    before = names_done(record) & asked.keys()
    left = [each for name, each in asked.items() if name not in before]
    with _Display(len(asked), len(before)) as display:
        while left:
            with Claims(record) as claims:
                rows = run_trials(claims.take(left), place, engine, trial)
                with closing(rows):
                    for row in rows:
                        append_row(record, row)
                        claims.give_back(row.description)
                        display.ended(row)
            left = claims.wait()
        display.done(names_done(record) & asked.keys())
    return [row for row in read_rows(record) if row.description.name in asked]


class _Display:
    """The progress of a sweep on standard error: standard output is for the result alone."""

    def __init__(self, total: int, before: int) -> None:
        self._failed = 0
        self._first = f"{before} of {total} done before; " if before else ""
        self._progress = Progress(
            TextColumn("trials"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
            console=Console(stderr=True),
        )
        self._bar = self._progress.add_task(f"{self._first}starting", total=total, completed=before)

    def ended(self, row: Row) -> None:
        """Count a trial, and name it as the last."""
        self._failed += row.result is None
        which = row.description
        last = f"{which.data.stream}, {which.data.scenario}, {which.strategy}, seed {which.seed}"
        self._progress.update(self._bar, advance=1, description=self._told(last))

    def done(self, names: Collection[str]) -> None:
        """Count what other runs did too."""
        completed = len(names) + self._failed
        self._progress.update(self._bar, completed=completed, description=self._told("done"))

    def _told(self, last: str) -> str:
        return f"{self._first}{f'{self._failed} failed; ' if self._failed else ''}{last}"

    def __enter__(self) -> _Display:
        self._progress.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._progress.stop()
