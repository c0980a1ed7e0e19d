"""SI's own options: the variants that a study sets against each other, each one change away."""

from __future__ import annotations

from dataclasses import replace

from experiments.records import Description, Option, options

# The first of each is the default of SI.
OPTIONS: dict[str, tuple[Option, ...]] = {
    "clamp": ("accumulated", "per_task", "none"),
    "decay": (None, 0.5, 0.9),
    "gradient": ("task", "total"),
    "first_anchor": ("initial", "zero"),
    "xi": (0.1, 1e-3),
}
POLICIES: dict[str, tuple[Option, ...]] = {"normalisation": ("protect", "exclude", "freeze")}
RESETS = ("all", "moments", "nothing")
"""What the optimiser may forget at each experience."""

PLAIN = "plain"
NORMALISED = "batch normalisation"
FAMILIES = {PLAIN: OPTIONS, NORMALISED: POLICIES}
"""The options that are varied in networks without and with batch normalisation."""

DEFAULT = "default"


def variants_of(trial: Description, family: str) -> dict[str, Description]:
    """Change a trial of our SI in one thing at a time.

    :param trial: the trial under the protocol of its stream; what it says is the default.
    :param family: a name in ``FAMILIES``.
    :return: ``DEFAULT`` first, then the variants, by labels such as ``"clamp = none"``.
    """
    trial = in_family(trial, family)
    given = dict(trial.options)
    variants = {DEFAULT: trial}
    for name, values in FAMILIES[family].items():
        present = given.get(name, values[0])
        for value in values:
            if value != present:
                changed = options(**{**given, name: value})
                variants[f"{name} = {value}"] = replace(trial, options=changed)
    if family == PLAIN:
        for reset in RESETS:
            if reset != trial.training.reset:
                training = replace(trial.training, reset=reset)
                variants[f"reset = {reset}"] = replace(trial, training=training)
    return variants


def in_family(trial: Description, family: str) -> Description:
    """Give a trial the network of a family.

    :param trial: the trial.
    :param family: a name in ``FAMILIES``.
    :return: the trial with or without batch normalisation.
    """
    return replace(trial, network=replace(trial.network, normalised=family == NORMALISED))
