"""The command line: what can be asked, and errors as one line."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from experiments import arguments
from experiments.errors import ExperimentError
from experiments.records import LOGGERS, Choice, Place
from experiments.strategies import STRATEGIES, with_strength
from experiments.streams import SCENARIOS, STREAMS, require_data

COMPARISON_SEEDS = ("0", "1", "2")
SEARCH_SEEDS = ("100", "101", "102")
NORMALISATION_SEEDS = ("0", "1", "2", "3", "4")


def main(argv: Sequence[str] | None = None) -> int:
    """Answer a command line.

    :param argv: the arguments, or None for the program's own.
    :return: exit status: 0 for success, 1 if every trial failed, 2 for a request that cannot be
        met.
    """
    options = _parser().parse_args(argv)
    try:
        status: int = options.run(options)
    except ExperimentError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the trials that ended are in the record", file=sys.stderr)
        return 130
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m experiments", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    compare = commands.add_parser(
        "compare",
        help="compare strategies: accuracy, forgetting and cost",
        description="Compare strategies on streams of five two-class tasks.",
    )
    _add_common(compare, list(STRATEGIES), COMPARISON_SEEDS)
    _add_list(compare, "--loggers", "Avalanche's loggers to write", LOGGERS, default=())
    compare.set_defaults(run=_compare)
    tune = commands.add_parser(
        "tune",
        help="search the strengths again, on validation data",
        description="Search each method's strength on a part cut from the training set.",
    )
    _add_common(tune, with_strength(), SEARCH_SEEDS)
    tune.set_defaults(run=_tune)
    normalisation = commands.add_parser(
        "normalisation",
        help="compare what SI may do about normalisation layers",
        description="Compare SI's policies for batch normalisation, each at its best strength.",
    )
    _add_common(normalisation, ["naive", "si"], NORMALISATION_SEEDS)
    normalisation.set_defaults(run=_normalisation)
    report = commands.add_parser(
        "report",
        help="tell a finished comparison again",
        description="Print the tables and draw the figures of a comparison from its record.",
    )
    report.add_argument("folder", type=Path, help="the comparison's results folder")
    report.set_defaults(run=_report)
    return parser


def _add_common(
    parser: argparse.ArgumentParser, strategies: Sequence[str], seeds: Sequence[str]
) -> None:
    _add_list(parser, "--streams", "streams", list(STREAMS), default=("digits",))
    _add_list(parser, "--scenarios", "scenarios", list(SCENARIOS), default=list(SCENARIOS))
    _add_list(parser, "--strategies", "strategies", strategies, default=strategies)
    parser.add_argument(
        "--seeds",
        nargs="*",
        default=seeds,
        metavar="SEED",
        help=f"seeds, whole numbers (default: {' '.join(seeds)})",
    )
    own = ", ".join(f"{stream.epochs} for {name}" for name, stream in STREAMS.items())
    parser.add_argument("--epochs", help=f"epochs per experience (default: {own})")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: cpu)")
    parser.add_argument(
        "--processes",
        default=str(os.cpu_count() or 1),
        help="trials that run at once (default: one per core, here %(default)s)",
    )
    parser.add_argument(
        "--data-root",
        type=Path,
        default=Path("data"),
        help="folder with MNIST/raw and FashionMNIST/raw (default: %(default)s)",
    )
    parser.add_argument(
        "--results", type=Path, help="results folder (default: results/<command>-<date-time>)"
    )


def _add_list(
    parser: argparse.ArgumentParser,
    option: str,
    kind: str,
    allowed: Sequence[str],
    default: Sequence[str],
) -> None:
    chosen = "all" if list(default) == list(allowed) else " ".join(default) or "none"
    parser.add_argument(
        option,
        nargs="*",
        default=list(default),
        metavar="NAME",
        help=f"{kind}: {', '.join(allowed)} (default: {chosen})",
    )


def _compare(options: argparse.Namespace) -> int:
    choice = _choice(options, list(STRATEGIES), "test")
    loggers = arguments.names("logger", options.loggers, LOGGERS) if options.loggers else ()
    folder = _folder(options, "compare")
    place = Place(str(options.data_root), str(folder / "logs"), loggers)
    processes = arguments.whole("number of processes", options.processes, least=1)
    from experiments.compare import compare

    return compare(choice, place, processes, folder)


def _tune(options: argparse.Namespace) -> int:
    choice = _choice(options, with_strength(), "validation")
    processes = arguments.whole("number of processes", options.processes, least=1)
    from experiments.tune import tune

    return tune(choice, Place(str(options.data_root)), processes, _folder(options, "tune"))


def _normalisation(options: argparse.Namespace) -> int:
    choice = _choice(options, ["naive", "si"], "test")
    processes = arguments.whole("number of processes", options.processes, least=1)
    from experiments.normalisation import study

    folder = _folder(options, "normalisation")
    return study(choice, Place(str(options.data_root)), processes, folder)


def _report(options: argparse.Namespace) -> int:
    from experiments.compare import report

    return report(options.folder)


def _choice(options: argparse.Namespace, strategies: Sequence[str], evaluation: str) -> Choice:
    choice = Choice(
        streams=arguments.names("stream", options.streams, list(STREAMS)),
        scenarios=arguments.names("scenario", options.scenarios, list(SCENARIOS)),
        strategies=arguments.names("strategy", options.strategies, strategies),
        seeds=arguments.seeds(options.seeds),
        epochs=None
        if options.epochs is None
        else arguments.whole("number of epochs", options.epochs, least=1),
        device=arguments.device(options.device),
        evaluation=evaluation,
    )
    for stream in choice.streams:
        require_data(stream, options.data_root)
    return choice


def _folder(options: argparse.Namespace, command: str) -> Path:
    if options.results is not None:
        folder: Path = options.results
        return folder
    return Path("results") / f"{command}-{datetime.now():%Y-%m-%d-%H%M%S}"
