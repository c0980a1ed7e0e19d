"""The streams: a name to a data set in experiences, as an Avalanche benchmark.

Torch and Avalanche are imported by the functions that need them: the command line reads the
names here, and has to answer a typing error at once.
"""

from __future__ import annotations

from contextlib import redirect_stdout
from dataclasses import replace
from functools import lru_cache
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.errors import BadValueError, MissingDataError, require_known
from experiments.records import Data
from experiments.streams.registry import SCENARIOS, STREAMS, Load, Stream
from experiments.untyped import Benchmark

if TYPE_CHECKING:
    from experiments.streams.samples import Parts

__all__ = [
    "SCENARIOS",
    "STREAMS",
    "Stream",
    "input_shape",
    "make_benchmark",
    "require_data",
    "require_possible",
]

INPUTS = ("unit", "padded", "normalised")
EVALUATIONS = ("test", "train", "validation")


def require_data(name: str, data_root: Path) -> None:
    """Check that the files of a stream exist, without reading them.

    :param name: a name in ``STREAMS``.
    :param data_root: the folder that holds local data sets.
    :raises MissingDataError: naming every file that is expected and absent, and where to get it.
    """
    missing, where = [], []
    for source in STREAMS[name].sources:
        absent = [path for path in (data_root / file for file in source.files) if not path.exists()]
        if absent:
            missing += absent
            where.append(f"{source.page}: {source.layout}")
    if missing:
        raise MissingDataError(name, missing, where, data_root)


def require_possible(data: Data) -> None:
    """Check that a stream can be had as described, without reading it.

    :param data: the stream, its scenario and what is done to its inputs.
    :raises UnknownNameError: for a name that does not exist.
    :raises BadValueError: for a combination that no stream has.
    """
    require_known("stream", data.stream, STREAMS)
    require_known("scenario", data.scenario, SCENARIOS)
    require_known("kind of inputs", data.inputs, INPUTS)
    require_known("evaluation", data.evaluation, EVALUATIONS)
    stream = STREAMS[data.stream]
    _require_count(data, stream)
    if data.inputs != "unit" and len(stream.shape) != 3:
        raise BadValueError(
            f"inputs {data.inputs!r} need images with channels, rows and columns, and those of "
            f"stream {data.stream!r} have the shape {stream.shape}; use inputs 'unit'"
        )
    if data.inputs == "normalised" and stream.moments is None:
        known = ", ".join(name for name, each in STREAMS.items() if each.moments)
        raise BadValueError(
            f"inputs 'normalised' are known for {known}, not for {data.stream!r}; use 'padded'"
        )
    if data.first_plain and data.stream != "permuted_mnist":
        raise BadValueError(f"first_plain is for permuted_mnist, not for {data.stream!r}")
    if data.shuffled_classes and not stream.own_classes:
        raise BadValueError(
            f"shuffled_classes is for streams whose experiences have classes of their own; those "
            f"of {data.stream!r} all have the same ones"
        )


def _require_count(data: Data, stream: Stream) -> None:
    count = data.experiences
    if count is None:
        return
    if data.scenario == "domain" and stream.domain is not None:
        raise BadValueError(
            f"the domains of {data.stream!r} are its own; leave the number of experiences "
            f"({count}) out"
        )
    if count < 1 or (stream.counts and count not in stream.counts):
        allowed = ", ".join(map(str, stream.counts)) or "1 or more"
        raise BadValueError(
            f"stream {data.stream!r} cannot be cut into {count} experiences; allowed: {allowed}"
        )


def input_shape(data: Data) -> tuple[int, ...]:
    """Tell the shape of one input.

    :param data: the stream and what is done to its inputs.
    :return: such as ``(1, 28, 28)``, with the border that ``data.inputs`` adds.
    """
    shape = STREAMS[data.stream].shape
    if data.inputs == "unit":
        return shape
    channels, rows, columns = shape
    return (channels, rows + 4, columns + 4)


def make_benchmark(data: Data, seed: int, data_root: Path, *, global_labels: bool) -> Benchmark:
    """Build an Avalanche benchmark; its samples are tensors in memory unless they are too many.

    The samples that were read last are kept, so that a process that runs many trials reads the
    data once.

    :param data: which stream, in which scenario, and what accuracy is taken on.
    :param seed: the trial's seed; only some streams depend on it.
    :param data_root: the folder that holds local data sets.
    :param global_labels: whether classes keep labels of their own in a task-incremental stream,
        for a head that all tasks share; they are counted from 0 in each experience otherwise.
    :return: a benchmark with a stream ``"train"`` and one named after ``data.evaluation``.
    :raises UnknownNameError: for a stream or scenario that does not exist.
    :raises BadValueError: for a combination that no stream has.
    :raises MissingDataError: if files are missing.
    :raises UnusableDataError: if files are there that cannot be read.
    """
    from experiments.streams.samples import benchmark_of

    require_possible(data)
    require_data(data.stream, data_root)
    stream = STREAMS[data.stream]
    load = (stream.domain if data.scenario == "domain" else None) or stream.load
    decided = seed if stream.seeded or data.shuffled_classes else 0
    # The samples are the same in every scenario; only their labels differ.
    parts = _read(load, replace(data, scenario="class"), decided, data_root)
    return benchmark_of(
        parts, data.scenario, own_classes=stream.own_classes, global_labels=global_labels
    )


@lru_cache(maxsize=1)
def _read(load: Load, data: Data, seed: int, data_root: Path) -> Parts:
    from experiments.streams.samples import choose_parts

    # Avalanche's data sets print how they get on.
    with redirect_stdout(StringIO()):
        return choose_parts(load(data, seed, data_root), data.evaluation)
