"""Published experiments as data: one TOML file each, with the published figures beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from experiments.errors import require_known
from experiments.records import Data, Description, Network, Training, options

_FOLDER = Path(__file__).parent
PROTOCOLS = tuple(sorted(path.stem for path in _FOLDER.glob("*.toml")))


@dataclass(frozen=True)
class Published:
    """What a paper reports of one run; fractions, not percentages.

    :param mean: average accuracy over the tasks after the last one.
    :param error: its error, of the kind that the protocol names; None if there is none.
    :param tasks: accuracy of each task after the last one; empty if not published.
    :param curve: average accuracy over the tasks so far, after each; empty if not published.
    """

    mean: float
    error: float | None = None
    tasks: tuple[float, ...] = ()
    curve: tuple[float, ...] = ()


@dataclass(frozen=True)
class Run:
    """One line of a published experiment.

    :param name: a short name, to ask for it.
    :param description: the trial, with seed 0.
    :param each_after_its_own: whether each task's figure is the one right after that task, not
        the one after the last.
    """

    name: str
    label: str
    description: Description
    published: Published
    each_after_its_own: bool = False


@dataclass(frozen=True)
class Protocol:
    """A published experiment.

    :param measure: what the figures are, such as ``"training accuracy"``.
    :param figure: the form of the paper's own figure: ``"panels"`` (each task as tasks are learnt),
        ``"curve"`` (average over the tasks so far), ``"bars"`` (a bar for each task) or
        ``"scenarios"`` (a mean for each method in each scenario).
    :param seeds: how many the paper has.
    :param error: what the published errors are; empty if there are none.
    :param notes: what a reader has to know.
    """

    name: str
    title: str
    source: str
    measure: str
    figure: str
    seeds: int
    error: str
    notes: tuple[str, ...]
    runs: tuple[Run, ...]


@cache
def read_protocol(name: str) -> Protocol:
    """Read a protocol.

    :param name: one of ``PROTOCOLS``.
    :return: the protocol.
    :raises UnknownNameError: for any other name.
    """
    require_known("protocol", name, PROTOCOLS)
    import tomlkit

    written = tomlkit.parse((_FOLDER / f"{name}.toml").read_text(encoding="utf-8")).unwrap()
    shared = {part: written.pop(part) for part in ("data", "network", "training")}
    runs = tuple(_run(run, shared) for run in written.pop("runs"))
    notes = tuple(written.pop("notes"))
    return Protocol(name=name, runs=runs, notes=notes, **{"error": "", **written})


def _run(written: Mapping[str, Any], shared: Mapping[str, Mapping[str, Any]]) -> Run:
    data, network, training = (
        {**shared[part], **written.get(part, {})} for part in ("data", "network", "training")
    )
    network["hidden"] = tuple(network["hidden"])
    description = Description(
        data=Data(**data),
        strategy=written["strategy"],
        strength=written.get("strength"),
        network=Network(**network),
        training=Training(**training),
        seed=0,
        options=options(**written.get("options", {})),
    )
    published = written["published"]
    return Run(
        name=written["name"],
        label=written["label"],
        description=description,
        published=Published(
            mean=published["mean"],
            error=published.get("error"),
            tasks=tuple(published.get("tasks", ())),
            curve=tuple(published.get("curve", ())),
        ),
        each_after_its_own=written.get("each_after_its_own", False),
    )


def shortened(run: Run, epochs: int | None, iterations: int | None) -> Run:
    """Shorten a run.

    :param run: the run as published.
    :param epochs: epochs per task, or None for the published number.
    :param iterations: steps per task, likewise.
    :return: the run with these.
    """
    training = run.description.training
    if epochs is not None:
        training = replace(training, epochs=epochs)
    if iterations is not None:
        training = replace(training, iterations=iterations)
    return replace(run, description=replace(run.description, training=training))
