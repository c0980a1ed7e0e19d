"""The comparison: plan the trials, run them, keep the record, tell and draw it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from experiments.records import Choice, Data, Description, Network, Place, Row, Training
from experiments.results import RECORD, read_rows
from experiments.strategies import STRATEGIES
from experiments.streams import STREAMS
from experiments.strengths import strength_of
from experiments.sweep import Engine


def describe(
    choice: Choice, stream: str, scenario: str, strategy: str, seed: int, strength: float | None
) -> Description:
    """Describe one trial under the protocol of its stream.

    :param choice: what the user chose.
    :param stream: a name in ``STREAMS``.
    :param scenario: a name in ``SCENARIOS``.
    :param strategy: a name in ``STRATEGIES``.
    :param seed: the trial's seed.
    :param strength: the method's strength, None if it has none.
    :return: the description.
    """
    protocol = STREAMS[stream]
    own = protocol.epochs if choice.epochs is None else choice.epochs
    return Description(
        data=Data(stream, scenario, evaluation=choice.evaluation),
        strategy=strategy,
        strength=strength,
        network=Network(hidden=protocol.hidden, head="multi" if scenario == "task" else "single"),
        training=Training(
            batch_size=protocol.batch_size,
            learning_rate=protocol.learning_rate,
            # An online stream is seen once.
            epochs=1 if scenario == "online" else own,
        ),
        seed=seed,
        memory=protocol.memory,
        device=choice.device,
    )


def plan(choice: Choice) -> list[Description]:
    """List the trials of a comparison, each method at the strength written down for it.

    :param choice: what the user chose.
    :return: the trials, seed by seed, so that what is compared is timed side by side.
    """
    return [
        describe(choice, stream, scenario, name, seed, strength_of(stream, scenario, name))
        for stream in choice.streams
        for seed in choice.seeds
        for scenario in choice.scenarios
        for name in STRATEGIES
        if name in choice.strategies
    ]


def compare(choice: Choice, place: Place, engine: Engine, folder: Path) -> int:
    """Run a comparison and tell it.

    :param choice: what to compare.
    :param place: where data are read and logs written.
    :param engine: what runs the trials.
    :param folder: where the record, the summary, the figures and the report go; trials that are
        done in its record are not run again.
    :return: exit status, 0 unless every trial failed.
    """
    from experiments.progress import run_and_record

    return tell(run_and_record(plan(choice), place, engine, folder), folder)


def report(folder: Path) -> int:
    """Tell a finished comparison again, from its record alone.

    :param folder: its results folder.
    :return: exit status, 0 unless every trial failed.
    """
    return tell(read_rows(folder / RECORD), folder)


def tell(rows: Sequence[Row], folder: Path) -> int:
    """Print the tables, write the summary and draw the figures of a record.

    :param rows: the trials.
    :param folder: where the summary and the figures go.
    :return: exit status, 0 unless every trial failed.
    """
    # scipy and matplotlib take longer to import than to use, and no trial waits for them.
    from experiments.plots import draw_all
    from experiments.report import write_report
    from experiments.statistics import summarise
    from experiments.tables import make_console, print_files, print_report, write_summary

    summaries = summarise(rows)
    console = make_console()
    print_report(summaries, console)
    written = [folder / RECORD, write_summary(summaries, folder), *draw_all(rows, folder)]
    written.append(write_report(rows, folder, "Synaptic Intelligence compared"))
    print_files(written, folder, console)
    return 0 if any(row.result for row in rows) else 1
