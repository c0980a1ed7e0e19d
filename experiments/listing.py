"""What there is to ask for, by name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from experiments.protocols import PROTOCOLS, Protocol, read_protocol
from experiments.strategies import STRATEGIES
from experiments.streams import SCENARIOS, STREAMS


def print_list() -> None:
    """Print the published experiments with their runs, the streams and the strategies."""
    console = Console(highlight=False, markup=False)
    _print(
        console,
        "Published experiments: python -m experiments reproduce NAME",
        ("name", "what", "runs", "seeds"),
        (_protocol(read_protocol(name)) for name in PROTOCOLS),
    )
    _print(
        console,
        "Streams",
        ("name", "what", "experiences"),
        ((name, stream.title, str(stream.experiences)) for name, stream in STREAMS.items()),
    )
    _print(console, "Scenarios", ("name", "what"), SCENARIOS.items())
    _print(
        console,
        "Strategies",
        ("name", "what", "strength"),
        ((name, each.label, each.strength or "-") for name, each in STRATEGIES.items()),
    )


def _protocol(protocol: Protocol) -> tuple[str, ...]:
    runs = " ".join(run.name for run in protocol.runs)
    source = protocol.source.split(", arXiv")[0]
    return protocol.name, f"{protocol.title}; {source}", runs, str(protocol.seeds)


def _print(
    console: Console, title: str, headings: Sequence[str], rows: Iterable[Sequence[str]]
) -> None:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False)
    # A name that is broken cannot be copied.
    table.add_column(headings[0], no_wrap=True)
    for heading in headings[1:]:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    console.print()
