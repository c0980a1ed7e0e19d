"""The strength that each method is compared with: data in ``searched``, one file per stream."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from experiments.errors import StrengthsError
from experiments.strategies import STRATEGIES

if TYPE_CHECKING:
    from tomlkit.items import Table

FOLDER = Path(__file__).with_name("searched")

Entry: TypeAlias = dict[str, Any]
"""A method's ``strength`` and how it was found; see :func:`experiments.tune.entry`."""


def strength_of(stream: str, scenario: str, strategy: str) -> float | None:
    """Look a strength up.

    :param stream: a name in ``STREAMS``.
    :param scenario: a name in ``SCENARIOS``.
    :param strategy: a name in ``STRATEGIES``.
    :return: the strength, or None for a method that has none.
    :raises StrengthsError: if it should have one and none is written down.
    """
    if STRATEGIES[strategy].strength is None:
        return None
    try:
        return float(read_strengths(stream)[scenario][strategy]["strength"])
    except KeyError as error:
        raise StrengthsError(
            f"no strength is written down for {strategy!r} in the {scenario!r} scenario of "
            f"{stream!r}; find one with `python -m experiments tune --streams {stream} "
            f"--scenarios {scenario} --strategies {strategy} --keep`"
        ) from error


def read_strengths(stream: str) -> dict[str, dict[str, Entry]]:
    """Read what is written down for a stream.

    :param stream: a name in ``STREAMS``.
    :return: scenario, then method, then its entry; empty if the stream was never searched.
    """
    return _read(FOLDER / f"{stream}.toml")


@cache
def _read(path: Path) -> dict[str, dict[str, Entry]]:
    import tomlkit

    return tomlkit.parse(path.read_text(encoding="utf-8")).unwrap() if path.is_file() else {}


def write_strengths(
    folder: Path, stream: str, entries: Mapping[tuple[str, str], Mapping[str, Any]]
) -> Path:
    """Write entries into a stream's file, and leave its other entries as they are.

    :param folder: where the file is, or is to be.
    :param stream: a name in ``STREAMS``.
    :param entries: by scenario and method; values as TOML has them.
    :return: the file.
    """
    import tomlkit

    path = folder / f"{stream}.toml"
    document = tomlkit.parse(path.read_text(encoding="utf-8") if path.is_file() else _HEADER)
    for (scenario, method), entry in entries.items():
        section = document.setdefault(scenario, tomlkit.table(is_super_table=True))
        section[method] = _table(entry)
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(tomlkit.dumps(document), encoding="utf-8")
    _read.cache_clear()
    return path


_HEADER = """\
# Written by `python -m experiments tune`: what `compare` uses, and how it was found.
"""


def _table(entry: Mapping[str, Any]) -> Table:
    import tomlkit

    table = tomlkit.table()
    for name, value in entry.items():
        if isinstance(value, Mapping):
            inline = tomlkit.inline_table()
            inline.update(value)
            value = inline
        table.add(name, value)
    table.add(tomlkit.nl())
    return table
