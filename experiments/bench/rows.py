"""What was measured, one row for each thing, and the CSV file that holds it."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_type_hints

from experiments.bench.memory import Seen
from experiments.bench.timing import Spread
from experiments.errors import ResultsError

CSV = "bench.csv"


@dataclass(frozen=True)
class Row:
    """One thing measured; what was not measured of it is None.

    :param part: a name in ``PARTS``.
    :param workload: what was trained.
    :param method: the method's label.
    :param what: ``"step"`` or ``"consolidation"``.
    :param parameters: the network's parameters.
    :param tensors: in how many tensors.
    :param tasks: how many tasks had been learnt, where that is what grows.
    :param rounds: how often it was timed.
    :param seconds_min: of one call, the fastest round.
    :param ratio_min: to training without SI with Adam as it is by default, the smallest of all
        rounds; that one's step in the same round is 1.
    :param fused_ratio_min: to training without SI with ``Adam(fused=True)``.
    :param parameter_bytes: of the network.
    :param state_bytes: held between steps, beyond the network and its optimiser.
    :param peak_bytes: at the worst moment of a step, beyond training without SI with the same
        optimiser.
    :param waits: how often a step waits for the GPU, beyond the same.
    :param machine: its kind, processors and GPU.
    :param threads: PyTorch's.
    :param date: in UTC.
    """

    part: str
    workload: str
    method: str
    what: str = "step"
    parameters: int | None = None
    tensors: int | None = None
    tasks: int | None = None
    rounds: int | None = None
    seconds_min: float | None = None
    seconds_median: float | None = None
    seconds_max: float | None = None
    ratio_min: float | None = None
    ratio_median: float | None = None
    ratio_max: float | None = None
    fused_ratio_min: float | None = None
    fused_ratio_median: float | None = None
    fused_ratio_max: float | None = None
    parameter_bytes: int | None = None
    state_bytes: int | None = None
    peak_bytes: int | None = None
    waits: int | None = None
    machine: str = ""
    threads: int | None = None
    date: str = ""
    python: str = ""
    torch: str = ""
    avalanche: str = ""
    si_avalanche: str = ""

    def timed(self, rounds: int, **spreads: Spread) -> Row:
        """Return this row with times.

        :param rounds: how often it was timed.
        :param spreads: ``seconds`` of one call, ``ratio`` and ``fused_ratio``, as far as known.
        """
        values: dict[str, Any] = {
            f"{name}_{end}": value
            for name, spread in spreads.items()
            for end, value in asdict(spread).items()
        }
        return replace(self, rounds=rounds, **values)

    def weighed(self, state: int, step: Seen, plain: Seen) -> Row:
        """Return this row with bytes.

        :param state: held between steps.
        :param step: what the profiler saw of the method's step.
        :param plain: what it saw of a step without SI.
        """
        return replace(
            self,
            state_bytes=state,
            peak_bytes=state + step.rise - plain.rise,
            waits=None if step.waits is None else step.waits - (plain.waits or 0),
        )

    def ran_on(self, versions: Mapping[str, str], threads: int) -> Row:
        """Return this row with where and when it was measured.

        :param versions: what :func:`experiments.results.versions` gave.
        :param threads: PyTorch's.
        """
        return replace(
            self,
            machine=versions["machine"],
            threads=threads,
            date=versions["date"],
            python=versions["python"],
            torch=versions["torch"],
            avalanche=versions["avalanche-lib"],
            si_avalanche=versions["si-avalanche"],
        )


def write_rows(rows: Sequence[Row], path: Path) -> Path:
    """Write rows as a CSV file with a heading; empty fields for what there is not.

    :param rows: what to write.
    :param path: the file; one that is there is replaced.
    :return: the file.
    """
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=[field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    return path


def read_rows(path: Path) -> list[Row]:
    """Read what :func:`write_rows` wrote.

    :param path: the file.
    :return: the rows, in the file's order.
    :raises ResultsError: if the file is not one that the bench wrote.
    """
    kinds = get_type_hints(Row)
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if list(reader.fieldnames or ()) != list(kinds):
            raise ResultsError(
                f"{path} has not the columns of the bench, {', '.join(kinds)}; write it again "
                "with python -m experiments bench"
            )
        return [_row(line, kinds) for line in reader]


def _row(line: Mapping[str, str], kinds: Mapping[str, type | UnionType]) -> Row:
    values: dict[str, Any] = {name: _value(text, kinds[name]) for name, text in line.items()}
    return Row(**values)


def _value(text: str, kind: type | UnionType) -> str | int | float | None:
    if kind is str:
        return text
    number = int if int in get_args(kind) else float
    return number(text) if text else None
