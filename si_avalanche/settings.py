"""What a user may choose: typed and documented once, checked at construction."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from numbers import Real
from typing import Any, Literal, TypedDict, TypeVar, get_args, get_type_hints

import torch

from si_avalanche.errors import ConfigurationError, UnknownOptionError

Clamp = Literal["accumulated", "per_task", "none"]
"""Where negative importance is set to zero: in the accumulated Omega, per task, or nowhere."""

Gradient = Literal["task", "total"]
"""Whose gradient the path integral takes: the task loss's, or task loss plus penalty."""

FirstAnchor = Literal["initial", "zero"]
"""Where a parameter's first displacement starts: at its initial value, or at zero."""

Normalisation = Literal["protect", "exclude", "freeze"]
"""What happens to normalisation layers: their affine parameters, their running statistics."""

Replaced = Literal["error", "drop"]
"""What happens to the state of a layer that was replaced, shrunk or removed."""


class Options(TypedDict, total=False):
    """The options of Synaptic Intelligence apart from its strength c and its damping xi.

    :param clamp: ``"accumulated"`` keeps the accumulated importance at or above zero, as the
        authors' code does (a relu of the accumulated Omega); ``"per_task"`` clamps what each task
        contributes (hypnettorch); ``"none"`` is eq. 5 as printed, where importance may be negative.
    :param decay: ``None`` sums the importance of the tasks (eq. 5); a number d in [0, 1] keeps
        ``d * old + (1 - d) * new`` (the authors' ``omega_decay``).
    :param gradient: ``"task"`` integrates the gradient of the task loss, as in the paper;
        ``"total"`` that of task loss plus penalty, as van de Ven's code and Avalanche's do.
    :param include: patterns of the parameters to protect; ``None`` means all. A pattern is a
        shell-style wildcard that matches a parameter's name or the name of a module above it.
    :param exclude: patterns of parameters to leave out, applied after ``include``.
    :param first_anchor: ``"initial"`` measures the displacement of a parameter's first task from
        its initial value; ``"zero"`` from zero, as in the authors' permuted-MNIST run.
    :param normalisation: ``"protect"`` treats the affine parameters of normalisation layers like
        all others; ``"exclude"`` leaves them out (Avalanche's plugin); ``"freeze"`` protects them
        and, once the first task has been consolidated, keeps the layers that have running
        statistics in evaluation mode while training, so that these no longer drift.
    :param replaced: ``"error"`` refuses a model in which a layer that carries importance is gone,
        has shrunk or has another number of dimensions; ``"drop"`` forgets the state of such layers,
        and of those that were replaced by one with other weights, and logs their names.
    """

    clamp: Clamp
    decay: float | None
    gradient: Gradient
    include: Sequence[str] | None
    exclude: Sequence[str]
    first_anchor: FirstAnchor
    normalisation: Normalisation
    replaced: Replaced


DEFAULTS: Options = {
    "clamp": "accumulated",
    "decay": None,
    "gradient": "task",
    "include": None,
    "exclude": (),
    "first_anchor": "initial",
    "normalisation": "protect",
    "replaced": "error",
}
_TYPES = get_type_hints(Options)

C = TypeVar("C", bound=type)


def shows_options(cls: C) -> C:
    """Let ``help()`` show each option of a class whose constructor ends with ``**options``."""
    init: Callable[..., None] = cls.__init__  # type: ignore[misc]
    signature, kind = inspect.signature(init), inspect.Parameter.KEYWORD_ONLY
    shown = [
        inspect.Parameter(name, kind, default=value, annotation=_TYPES[name])
        for name, value in DEFAULTS.items()
    ]
    parameters = [*list(signature.parameters.values())[:-1], *shown]
    init.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    described = ":param " + (Options.__doc__ or "").partition(":param ")[2].rstrip()
    for documented in (cls, init):
        text = documented.__doc__ or ""
        for line in [line for line in text.splitlines() if ":param options:" in line]:
            indented = described.replace("\n    ", "\n" + line[: line.index(":")])
            documented.__doc__ = text.replace(line.strip(), indented)
    return cls


def check_options(options: Mapping[str, Any]) -> Options:
    """Return all options, those that were not given with their defaults."""
    for name in options:
        if name not in DEFAULTS:
            raise UnknownOptionError(
                f"There is no option {name!r}; there are {', '.join(DEFAULTS)}."
                f"{_did_you_mean(name, list(DEFAULTS))}"
            )
    every: dict[str, Any] = {**DEFAULTS, **options}
    for name, value in every.items():
        allowed = get_args(_TYPES[name])
        if all(isinstance(choice, str) for choice in allowed) and value not in allowed:
            raise ConfigurationError(
                f"{name} must be one of {', '.join(allowed)}, got {value!r}."
                f"{_did_you_mean(str(value), allowed)}"
            )
    if every["decay"] is not None:
        hint = "None sums the importance of all tasks; d keeps d * old + (1 - d) * new"
        every["decay"] = _number("decay", every["decay"], "None or a number in [0, 1]", hint, 0, 1)
    for name in ("include", "exclude"):
        if every[name] is not None or name == "exclude":
            _check_patterns(name, every[name])
    return Options(**every)  # type: ignore[typeddict-item]


def check_strength(c: object, where: str = "c") -> float:
    """Return a strength as a float; an error names it as ``where``."""
    hint = "0 switches the penalty off, below it weights would be driven away from the anchor"
    return _number(where, c, "a finite number, 0 or more", hint, 0)


def check_damping(xi: object) -> float:
    """Return the damping xi of eq. 5 as a float."""
    hint = "it keeps eq. 5 from dividing by zero; the authors use 0.1 and 0.001"
    return _number("xi", xi, "a finite number above 0", hint, math.ulp(0.0))


def check_fits_in(c: float, xi: float, dtype: torch.dtype) -> None:
    """Refuse a damping that is zero in the dtype of the state, or a strength that is infinite."""
    held, bound = torch.finfo(dtype), None
    if xi < held.tiny:
        bound = f"xi={xi:g} is too small for {dtype}: it must be {held.tiny:.3g} or more"
    elif 2 * c > held.max:
        bound = f"c={c:g} is too large for {dtype}: it must be {held.max / 2:.3g} or less"
    if bound is not None:
        raise ConfigurationError(f"{bound}. The authors use xi = 0.1 and 0.001, c = 0.1 and 1.")


def check_switch(name: str, value: object) -> bool:
    """Return a switch."""
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name} must be True or False, got {value!r}.")
    return value


def _number(
    name: str, value: object, allowed: str, hint: str, low: float, high: float = math.inf
) -> float:
    """Return a finite real number between bounds as a float, or raise."""
    number = math.nan
    if isinstance(value, Real) and not isinstance(value, bool):
        # A whole number may be too large for a float.
        with suppress(OverflowError):
            number = float(value)
    if not (math.isfinite(number) and low <= number <= high):
        raise ConfigurationError(f"{name} must be {allowed}, got {value!r} ({hint}).")
    return number


def _did_you_mean(given: str, allowed: Sequence[str]) -> str:
    near = get_close_matches(given, allowed, n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def _check_patterns(name: str, patterns: object) -> None:
    is_list = isinstance(patterns, Sequence) and not isinstance(patterns, str)
    if not is_list or not all(isinstance(p, str) and p for p in patterns):  # type: ignore[attr-defined]
        raise ConfigurationError(
            f"{name} must be a list of non-empty patterns such as ['classifier', '*.bias'], "
            f"got {patterns!r}."
        )
