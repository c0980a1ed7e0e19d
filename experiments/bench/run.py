"""The bench as the command line asks for it: measured thing by thing, told, drawn and kept."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from experiments.bench import Asked, trial
from experiments.bench.lives import measure_tasks
from experiments.bench.methods import GROWING
from experiments.bench.pictures import draw_all
from experiments.bench.rows import CSV, Row, write_rows
from experiments.bench.steps import measure_steps
from experiments.bench.telling import WIDTH, print_rows, write_markdown
from experiments.bench.through_avalanche import measure_iterations
from experiments.bench.timing import How
from experiments.bench.workloads import Extent, bank, extent_on
from experiments.errors import ResultsError
from experiments.results import versions
from experiments.tables import make_console, print_files


@dataclass(frozen=True)
class Job:
    """One thing to measure.

    :param title: what it is, for the progress display.
    :param how: how it is timed.
    :param run: measures it.
    """

    title: str
    how: How
    run: Callable[[], list[Row]]


def bench(asked: Asked, folder: Path) -> int:
    """Measure what is asked for, print it, and keep it as CSV, Markdown and pictures.

    :param asked: what to measure, and how.
    :param folder: where results go; made if there is something to keep.
    :return: exit status.
    :raises ResultsError: if the folder cannot be used.
    """
    torch.set_num_threads(asked.threads)
    wanted = list(jobs(asked, extent_on(asked.device)))
    if wanted:
        _open(folder)
        rows = _run(wanted, asked, folder)
        console = make_console(WIDTH)
        print_rows(rows, console)
        files = [folder / CSV, write_markdown(rows, folder), *draw_all(rows, folder)]
        print_files(files, folder, console)
    if "trial" in asked.parts:
        return trial.bench(
            asked.stream, asked.scenario, asked.data_root, asked.rounds, asked.threads
        )
    return 0


def jobs(asked: Asked, extent: Extent) -> Iterator[Job]:
    """List what there is to measure.

    :param asked: which parts, how often, on how many threads and where.
    :param extent: how far.
    :return: the jobs, in order.
    """
    asked_for = How(asked.rounds, asked.threads, asked.device)
    both = [part for part in ("step", "memory") if part in asked.parts]
    for workload in extent.workloads:
        how = replace(asked_for, threads=workload.threads or asked.threads)
        if both:
            run = partial(measure_steps, workload, both, how)
            yield Job(f"{' and '.join(both)}: {workload.name}", how, run)
        if "avalanche" in asked.parts:
            run = partial(measure_iterations, workload, how)
            yield Job(f"avalanche: {workload.name}", how, run)
    banks = {
        "parameters": [(number, extent.few) for number in extent.parameters],
        "tensors": [(extent.spread, number) for number in extent.tensors],
    }
    for part, sizes in banks.items():
        for parameters, tensors in sizes if part in asked.parts else ():
            workload = bank(f"{parameters} in {tensors}", parameters, tensors)
            run = partial(measure_steps, workload, [part], asked_for, GROWING)
            yield Job(f"{part}: {workload.name}", asked_for, run)
    if "tasks" in asked.parts:
        run = partial(measure_tasks, extent.life, extent.tasks, asked_for)
        yield Job(f"tasks: {extent.tasks}", asked_for, run)


def _open(folder: Path) -> None:
    if (folder / CSV).exists():
        raise ResultsError(
            f"{folder} holds a {CSV} already, and times of two runs do not go together; give "
            "another folder with --results"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResultsError(f"cannot make the results folder {folder}: {error.strerror}") from error


def _run(wanted: list[Job], asked: Asked, folder: Path) -> list[Row]:
    where = versions(asked.device)
    rows: list[Row] = []
    # On standard error: standard output is for the result alone.
    with Progress(
        TextColumn("bench"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
        console=Console(stderr=True),
        # A display that draws itself would take time from what is timed.
        auto_refresh=False,
    ) as progress:
        bar = progress.add_task("", total=len(wanted))
        for job in wanted:
            progress.update(bar, description=job.title, refresh=True)
            with job.how.on_its_threads():
                rows += [row.ran_on(where, job.how.threads) for row in job.run()]
            gc.collect()  # a method and the optimiser that it is attached to hold each other
            write_rows(rows, folder / CSV)
            progress.update(bar, advance=1, description="done", refresh=True)
    return rows
