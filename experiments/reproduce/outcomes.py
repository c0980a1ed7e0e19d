"""What a run measured, as the paper would have put it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from experiments.protocols import Protocol, Run
from experiments.records import Matrix, Row, Training
from experiments.statistics import Estimate, estimate


@dataclass(frozen=True)
class Outcome:
    """One run of a protocol, over seeds.

    :param n: the number of seeds whose trial ended.
    :param reduced: what is not as published, such as ``"2 of 10 epochs"``; empty if all is. Then
        nothing is compared with the published figure.
    :param mean: average accuracy over the tasks after the last one; None if no trial ended.
    :param tasks: accuracy of each task after the last one (or after its own, if the run says so).
    :param curve: average accuracy over the tasks so far, after each.
    :param per_task: accuracy of each task (first index) after each task (second index).
    :param failures: the reasons of trials that failed.
    """

    run: Run
    n: int
    reduced: str
    mean: Estimate | None
    tasks: tuple[Estimate, ...]
    curve: tuple[Estimate, ...]
    per_task: tuple[tuple[Estimate, ...], ...]
    failures: tuple[str, ...]


def outcome(protocol: Protocol, run: Run, rows: Sequence[Row]) -> Outcome:
    """Summarise a run over seeds.

    :param protocol: its protocol, as published.
    :param run: the run, perhaps shortened.
    :param rows: its trials.
    :return: the summary.
    """
    matrices = [row.result.accuracy for row in rows if row.result]
    finals = [_finals(run, matrix) for matrix in matrices]
    tasks = range(len(finals[0])) if finals else range(0)
    return Outcome(
        run=run,
        n=len(matrices),
        reduced=", ".join(_reductions(protocol, run, len(matrices))),
        mean=estimate([fmean(final) for final in finals]) if finals else None,
        tasks=tuple(estimate([final[task] for final in finals]) for task in tasks),
        curve=tuple(estimate([fmean(matrix[t][: t + 1]) for matrix in matrices]) for t in tasks),
        per_task=tuple(
            tuple(estimate([matrix[t][task] for matrix in matrices]) for t in tasks)
            for task in tasks
        ),
        failures=tuple(dict.fromkeys(row.failure for row in rows if row.failure)),
    )


def _finals(run: Run, matrix: Matrix) -> list[float]:
    if run.each_after_its_own:
        return [line[task] for task, line in enumerate(matrix)]
    return list(matrix[-1])


def _reductions(protocol: Protocol, run: Run, seeds: int) -> list[str]:
    published = next(each for each in protocol.runs if each.name == run.name).description.training
    given, full = _length(run.description.training), _length(published)
    unit = "epochs" if published.epochs is not None else "steps a task"
    told = [f"{given} of {full} {unit}"] if given != full else []
    return told + ([f"{seeds} of {protocol.seeds} seeds"] if seeds < protocol.seeds else [])


def _length(training: Training) -> int:
    length = training.epochs if training.epochs is not None else training.iterations
    assert length is not None
    return length


@dataclass(frozen=True)
class Line:
    """One figure, published and measured; fractions.

    :param run: the run's label.
    :param scenario: its scenario.
    :param what: such as ``"task 1"`` or ``"mean"``.
    :param published: None if it is not published, or the run is reduced.
    :param holds: whether the measured 95 % interval holds the published figure; None without an
        interval or a published figure.
    """

    run: str
    scenario: str
    what: str
    published: float | None
    published_error: float | None
    measured: Estimate
    holds: bool | None
    reduced: str


def lines(result: Outcome) -> list[Line]:
    """Put every published figure of a run beside the measured one.

    :param result: the run.
    :return: a line for each task and one for the mean; only the mean if no tasks are published.
    """
    if result.mean is None:
        return []
    published = result.run.published
    pairs: list[tuple[str, float, float | None, Estimate]] = [
        (f"task {number}", figure, None, measured)
        for number, (figure, measured) in enumerate(
            zip(published.tasks, result.tasks, strict=False), start=1
        )
    ]
    pairs.append(("mean", published.mean, published.error, result.mean))
    return [
        Line(
            run=result.run.label,
            scenario=result.run.description.data.scenario,
            what=what,
            published=None if result.reduced else figure,
            published_error=None if result.reduced else error,
            measured=measured,
            holds=None if result.reduced else _holds(measured, figure),
            reduced=result.reduced,
        )
        for what, figure, error, measured in pairs
    ]


def _holds(measured: Estimate, published: float) -> bool | None:
    if measured.half_width is None:
        return None
    return abs(measured.mean - published) <= measured.half_width
