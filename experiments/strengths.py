"""The strength that each method is compared with: read from, and written like, strengths.toml."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from experiments.errors import StrengthsError
from experiments.strategies import STRATEGIES

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PATH = Path(__file__).with_name("strengths.toml")


@cache
def read_strengths() -> dict[str, Any]:
    """Read the strengths as they are written down.

    :return: stream, scenario, then the method's strength, beside a ``"note"`` on each scenario.
    """
    return tomllib.loads(PATH.read_text(encoding="utf-8"))


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
        return float(read_strengths()[stream][scenario][strategy])
    except KeyError as error:
        raise StrengthsError(
            f"{PATH.name} has no strength for {strategy!r} in [{stream}.{scenario}]; "
            "find one with `python -m experiments tune`"
        ) from error


def write_section(stream: str, scenario: str, note: str, chosen: Mapping[str, str]) -> str:
    """Write a section in the form of strengths.toml.

    :param stream: the section's stream.
    :param scenario: the section's scenario.
    :param note: a word on how the strengths were found.
    :param chosen: for each method the right-hand side of its line, a number and a comment.
    :return: the section's text.
    """
    lines = [f"[{stream}.{scenario}]", f'note = "{note}"']
    lines += [f"{method} = {value}" for method, value in chosen.items()]
    return "\n".join(lines) + "\n"
