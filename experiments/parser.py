"""What can be asked on the command line."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from experiments.bench import PARTS
from experiments.protocols import PROTOCOLS
from experiments.records import LOGGERS
from experiments.strategies import COMPARED, STRATEGIES, with_strength
from experiments.streams import SCENARIOS, STREAMS
from experiments.sweep import ENGINES

COMPARISON_SEEDS = ("0", "1", "2", "3", "4")
SEARCH_SEEDS = ("100", "101", "102")
SEARCH_TRIALS = "10"
OFFLINE = ("task", "domain", "class")
"""The scenarios that go over the data of an experience again and again."""

Commands = argparse._SubParsersAction  # argparse has no public name for it


def make_parser() -> argparse.ArgumentParser:
    """Make the parser; the name of the command asked for is in ``command``.

    :return: the parser.
    """
    parser = argparse.ArgumentParser(
        prog="python -m experiments",
        description="Synaptic Intelligence compared, reproduced and measured.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    _add_compare(commands)
    _add_reproduce(commands)
    commands.add_parser(
        "list",
        help="list published experiments, streams and strategies",
        description="List the published experiments, the streams and the strategies by name.",
    )
    _add_tune(commands)
    _add_options(commands)
    _add_bench(commands)
    report = commands.add_parser(
        "report",
        help="tell finished trials again",
        description="Print the tables, draw the figures and write report.html from a record.",
    )
    report.add_argument("folder", type=Path, help="a results folder")
    return parser


def _add_compare(commands: Commands[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "compare",
        help="compare strategies: accuracy, forgetting and cost",
        description="Compare strategies on streams.",
    )
    _add_choice(parser, COMPARISON_SEEDS)
    _add_names(parser, "--strategies", "strategies", list(STRATEGIES), COMPARED)
    _add_names(parser, "--loggers", "Avalanche's loggers to write", LOGGERS, ())
    _add_running(parser, "results/compare-<date-time>")


def _add_reproduce(commands: Commands[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "reproduce",
        help="run a published experiment, and put its figures beside the measured ones",
        description="Run a published experiment. Trials that are done in the results folder are "
        "not run again. With fewer seeds, epochs or steps than published a run is marked reduced "
        "and not compared.",
    )
    parser.add_argument("protocol", metavar="NAME", help=f"one of {', '.join(PROTOCOLS)}")
    parser.add_argument("--only", nargs="*", default=[], metavar="RUN", help="runs by name")
    parser.add_argument(
        "--seeds", nargs="*", metavar="SEED", help="seeds (default: as many as published, from 0)"
    )
    parser.add_argument("--epochs", help="epochs per task (default: as published)")
    parser.add_argument("--iterations", help="steps per task (default: as published)")
    _add_running(parser, "results/NAME")


def _add_tune(commands: Commands[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "tune",
        help="search the strengths again, on validation data",
        description="Search each method's strength on a part cut from the training set, with "
        "the same number of trials for every method.",
    )
    _add_choice(parser, SEARCH_SEEDS)
    tuned = with_strength()
    _add_names(parser, "--strategies", "strategies", tuned, [n for n in tuned if n in COMPARED])
    _add_trials(parser)
    parser.add_argument(
        "--keep", action="store_true", help="let compare use the strengths that are found"
    )
    _add_running(parser, "results/tune-<date-time>")


def _add_options(commands: Commands[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "options",
        help="compare SI's own options with each other",
        description="Compare SI's options, each variant at its own strength found on validation "
        "data, with the default.",
    )
    _add_choice(parser, COMPARISON_SEEDS)
    _add_trials(parser)
    parser.add_argument(
        "--search-seeds",
        nargs="*",
        default=SEARCH_SEEDS,
        metavar="SEED",
        help=f"seeds of the search (default: {' '.join(SEARCH_SEEDS)})",
    )
    _add_running(parser, "results/options-<date-time>")


def _add_bench(commands: Commands[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "bench",
        help="measure what SI costs beside its peers: time, memory, growth",
        description="Time training with SI and with its peers' ways to do it, in one process, in "
        "turn; measure bytes; let networks grow. "
        + " ".join(f"{name}: {what}." for name, what in PARTS.items()),
    )
    _add_names(parser, "--parts", "what to measure", list(PARTS), list(PARTS))
    parser.add_argument("--rounds", default="15", metavar="N", help="how often (default: 15)")
    _add_device(parser)
    parser.add_argument(
        "--stream",
        default="digits",
        metavar="NAME",
        help=f"what trial trains on: one of {', '.join(STREAMS)} (default: digits)",
    )
    parser.add_argument(
        "--scenario",
        default="domain",
        metavar="NAME",
        help=f"in which scenario: {', '.join(OFFLINE)} (default: domain)",
    )
    _add_threads(parser, "2")
    _add_data_root(parser)
    parser.add_argument(
        "--results", type=Path, help="results folder (default: results/bench-<date-time>)"
    )


def _add_threads(parser: argparse.ArgumentParser, default: str = "1") -> None:
    parser.add_argument(
        "--threads", default=default, metavar="N", help=f"PyTorch's threads (default: {default})"
    )


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: cpu)")


def _add_data_root(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data-root",
        type=Path,
        default=Path("data"),
        help="folder with the data sets, such as MNIST/raw (default: %(default)s)",
    )


def _add_choice(parser: argparse.ArgumentParser, seeds: Sequence[str]) -> None:
    _add_names(parser, "--streams", "streams", list(STREAMS), ("digits",))
    _add_names(parser, "--scenarios", "scenarios", list(SCENARIOS), OFFLINE)
    parser.add_argument(
        "--seeds",
        nargs="*",
        default=seeds,
        metavar="SEED",
        help=f"seeds, whole numbers (default: {' '.join(seeds)})",
    )
    own = ", ".join(f"{stream.epochs} for {name}" for name, stream in STREAMS.items())
    parser.add_argument("--epochs", help=f"epochs per experience (default: {own})")


def _add_trials(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--trials",
        default=SEARCH_TRIALS,
        metavar="N",
        help="strengths to try for each method (default: %(default)s)",
    )


def _add_running(parser: argparse.ArgumentParser, results: str) -> None:
    _add_device(parser)
    parser.add_argument(
        "--engine", default="joblib", metavar="NAME", help=f"{' or '.join(ENGINES)}: what runs them"
    )
    parser.add_argument(
        "--scheduler", metavar="ADDRESS", help="a Dask scheduler (default: one of its own)"
    )
    parser.add_argument(
        "--processes",
        default=str(os.cpu_count() or 1),
        metavar="N",
        help="trials that run at once (default: one per core, here %(default)s)",
    )
    _add_threads(parser)
    _add_data_root(parser)
    parser.add_argument(
        "--results",
        type=Path,
        help=f"results folder; trials done in it are not run again (default: {results})",
    )


def _add_names(
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
