"""The command line: every request checked before any work begins, and errors as one line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from pathlib import Path

from experiments import arguments
from experiments.bench import PARTS, Asked
from experiments.errors import ExperimentError
from experiments.parser import OFFLINE, make_parser
from experiments.records import LOGGERS, Choice, Place
from experiments.strategies import STRATEGIES, with_strength
from experiments.streams import SCENARIOS, STREAMS, require_data
from experiments.sweep import Engine


def main(argv: Sequence[str] | None = None) -> int:
    """Answer a command line.

    :param argv: the arguments, or None for the program's own.
    :return: exit status: 0 for success, 1 if every trial failed, 2 for a request that cannot be
        met.
    """
    options = make_parser().parse_args(argv)
    try:
        return _COMMANDS[options.command](options)
    except ExperimentError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the trials that ended are in the record", file=sys.stderr)
        return 130


def _compare(options: argparse.Namespace) -> int:
    choice = _choice(options, list(STRATEGIES))
    loggers = arguments.names("logger", options.loggers, LOGGERS) if options.loggers else ()
    folder = _folder(options)
    place = Place(str(options.data_root), str(folder / "logs"), loggers)
    engine = _engine(options)
    from experiments.compare import compare

    return compare(choice, place, engine, folder)


def _reproduce(options: argparse.Namespace) -> int:
    from experiments.reproduce import reproduce, request

    asked = request(
        options.protocol,
        only=arguments.split(options.only),
        seeds=None if options.seeds is None else arguments.seeds(options.seeds),
        epochs=_count("number of epochs", options.epochs),
        iterations=_count("number of steps", options.iterations),
        device=arguments.device(options.device),
    )
    for stream in {run.description.data.stream for run in asked.runs}:
        require_data(stream, options.data_root)
    folder = options.results or Path("results") / options.protocol
    return reproduce(asked, Place(str(options.data_root)), _engine(options), folder)


def _list(_options: argparse.Namespace) -> int:
    from experiments.listing import print_list

    print_list()
    return 0


def _tune(options: argparse.Namespace) -> int:
    choice = _choice(options, with_strength(), evaluation="validation")
    trials = arguments.whole("number of trials", options.trials, least=1)
    folder, engine = _folder(options), _engine(options)
    from experiments.progress import run_and_record
    from experiments.tune import tune

    place = Place(str(options.data_root))
    run = partial(run_and_record, place=place, engine=engine, folder=folder)
    return tune(choice, run, folder, trials, options.keep)


def _options(options: argparse.Namespace) -> int:
    choice = _choice(options, None)
    trials = arguments.whole("number of trials", options.trials, least=1)
    search_seeds = arguments.seeds(options.search_seeds)
    folder, engine = _folder(options), _engine(options)
    from experiments.progress import run_and_record
    from experiments.study import study

    place = Place(str(options.data_root))
    run = partial(run_and_record, place=place, engine=engine, folder=folder)
    return study(choice, run, folder, trials, search_seeds)


def _bench(options: argparse.Namespace) -> int:
    from experiments.quiet import quiet, quiet_profiler

    quiet_profiler()
    (stream,) = arguments.names("stream", [options.stream], list(STREAMS))
    (scenario,) = arguments.names("scenario", [options.scenario], OFFLINE)
    asked = Asked(
        parts=arguments.names("part", options.parts, list(PARTS)),
        rounds=arguments.whole("number of rounds", options.rounds, least=1),
        threads=arguments.whole("number of threads", options.threads, least=1),
        device=arguments.device(options.device),
        stream=stream,
        scenario=scenario,
        data_root=options.data_root,
    )
    if "trial" in asked.parts:
        require_data(stream, asked.data_root)
    with quiet():
        from experiments.bench.run import bench

        return bench(asked, _folder(options))


def _report(options: argparse.Namespace) -> int:
    from experiments.compare import report

    return report(options.folder)


_COMMANDS = {
    "compare": _compare,
    "reproduce": _reproduce,
    "list": _list,
    "tune": _tune,
    "options": _options,
    "bench": _bench,
    "report": _report,
}


def _choice(
    options: argparse.Namespace, strategies: Sequence[str] | None, evaluation: str = "test"
) -> Choice:
    choice = Choice(
        streams=arguments.names("stream", options.streams, list(STREAMS)),
        scenarios=arguments.names("scenario", options.scenarios, list(SCENARIOS)),
        strategies=arguments.names("strategy", options.strategies, strategies)
        if strategies is not None
        else (),
        seeds=arguments.seeds(options.seeds),
        epochs=_count("number of epochs", options.epochs),
        device=arguments.device(options.device),
        evaluation=evaluation,
    )
    for stream in choice.streams:
        require_data(stream, options.data_root)
    return choice


def _count(kind: str, value: str | None) -> int | None:
    return None if value is None else arguments.whole(kind, value, least=1)


def _engine(options: argparse.Namespace) -> Engine:
    return Engine(
        kind=options.engine,
        workers=arguments.whole("number of processes", options.processes, least=1),
        address=options.scheduler,
        threads=arguments.whole("number of threads", options.threads, least=1),
    )


def _folder(options: argparse.Namespace) -> Path:
    if options.results is not None:
        folder: Path = options.results
        return folder
    return Path("results") / f"{options.command}-{datetime.now():%Y-%m-%d-%H%M%S}"
