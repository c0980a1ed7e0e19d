"""What a user may choose about Synaptic Intelligence: typed and documented once, checked at once."""

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

_CHOICES: dict[str, tuple[str, ...]] = {
    "clamp": get_args(Clamp),
    "gradient": get_args(Gradient),
    "first_anchor": get_args(FirstAnchor),
    "normalisation": get_args(Normalisation),
    "replaced": get_args(Replaced),
}

C = TypeVar("C", bound=type)


def shows_options(cls: C) -> C:
    """Let ``help()`` show each option of a class whose constructor takes ``**options``.

    :param cls: its signature gets the options with their defaults, its docstring their
        descriptions in place of the one of ``options``.
    """
    init: Callable[..., None] = cls.__init__  # type: ignore[misc]
    signature = inspect.signature(init)
    types = get_type_hints(Options)
    shown = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=value, annotation=types[name]
        )
        for name, value in DEFAULTS.items()
    ]
    parameters = [*signature.parameters.values()][:-1]
    init.__signature__ = signature.replace(parameters=[*parameters, *shown])  # type: ignore[attr-defined]
    described = ":param " + (Options.__doc__ or "").partition(":param ")[2].rstrip()
    for documented in (cls, init):
        text = documented.__doc__ or ""
        for line in [line for line in text.splitlines() if ":param options:" in line]:
            margin = line[: line.index(":")]
            documented.__doc__ = text.replace(
                line.strip(), described.replace("\n    ", f"\n{margin}")
            )
    return cls


def check_options(options: Mapping[str, Any]) -> Options:
    """Return all options, those that were not given with their defaults.

    :param options: what the user gave.
    :raises UnknownOptionError: if there is no option of a name.
    :raises ConfigurationError: if a value is not allowed.
    """
    for name in options:
        if name not in DEFAULTS:
            near = get_close_matches(name, DEFAULTS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise UnknownOptionError(
                f"There is no option {name!r}; there are {', '.join(DEFAULTS)}.{hint}"
            )
    every: dict[str, Any] = {**DEFAULTS, **options}
    for name, allowed in _CHOICES.items():
        _check_choice(name, every[name], allowed)
    if every["decay"] is not None:
        allowed_decay = "None or a number in [0, 1]"
        hint = "None sums the importance of all tasks; d keeps d * old + (1 - d) * new"
        every["decay"] = _check_number("decay", every["decay"], allowed_decay, hint)
        if not 0 <= every["decay"] <= 1:
            raise ConfigurationError(
                f"decay must be {allowed_decay}, got {options['decay']!r} ({hint})."
            )
    for name in ("include", "exclude"):
        if every[name] is not None or name == "exclude":
            _check_patterns(name, every[name])
    return Options(**every)  # type: ignore[typeddict-item]


def check_strength(c: object, where: str = "c") -> float:
    """Return a strength as a float.

    :param c: what the user gave.
    :param where: how the error names it.
    :raises ConfigurationError: if it is not a finite number at or above zero.
    """
    allowed = "a finite number, 0 or more"
    value = _check_number(where, c, allowed, "0 switches the penalty off")
    if value < 0:
        raise ConfigurationError(
            f"{where} must be {allowed}, got {c!r}. A negative strength would drive weights away "
            "from the anchor; 0 switches the penalty off."
        )
    return value


def check_damping(xi: object) -> float:
    """Return the damping xi of eq. 5 as a float.

    :param xi: what the user gave, in units of a squared weight.
    :raises ConfigurationError: if it is not a finite number above zero.
    """
    allowed, hint = "a finite number above 0", "the authors use 0.1 and 0.001"
    value = _check_number("xi", xi, allowed, hint)
    if value <= 0:
        raise ConfigurationError(
            f"xi must be {allowed}, got {xi!r}. It keeps eq. 5 from dividing by zero; {hint}."
        )
    return value


def check_fits_in(c: float, xi: float, dtype: torch.dtype) -> None:
    """Refuse numbers that the state of a parameter cannot hold.

    :param c: the strength.
    :param xi: the damping.
    :param dtype: of the state.
    :raises ConfigurationError: if xi would be zero or have lost digits there, or c be infinite.
    """
    held = torch.finfo(dtype)
    if xi < held.tiny:
        raise ConfigurationError(
            f"xi={xi:g} is too small for {dtype}, in which eq. 5 would divide by zero: it must be "
            f"{held.tiny:.3g} or more. The authors use 0.1 and 0.001."
        )
    if 2 * c > held.max:
        raise ConfigurationError(
            f"c={c:g} is too large for {dtype}: it must be {held.max / 2:.3g} or less."
        )


def check_switch(name: str, value: object) -> bool:
    """Return a switch.

    :param name: how the error names it.
    :param value: what the user gave.
    :raises ConfigurationError: if it is not ``True`` or ``False``.
    """
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name} must be True or False, got {value!r}.")
    return value


def _check_number(name: str, value: object, allowed: str, hint: str) -> float:
    """Return a finite real number as a float, or raise."""
    number = math.nan
    if isinstance(value, Real) and not isinstance(value, bool):
        # A whole number may be too large for a float.
        with suppress(OverflowError):
            number = float(value)
    if not math.isfinite(number):
        raise ConfigurationError(f"{name} must be {allowed}, got {value!r} ({hint}).")
    return number


def _check_choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value in allowed:
        return
    near = get_close_matches(str(value), allowed, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ConfigurationError(f"{name} must be one of {', '.join(allowed)}, got {value!r}.{hint}")


def _check_patterns(name: str, patterns: object) -> None:
    is_list = isinstance(patterns, Sequence) and not isinstance(patterns, str)
    if not is_list or not all(isinstance(p, str) and p for p in patterns):  # type: ignore[attr-defined]
        raise ConfigurationError(
            f"{name} must be a list of non-empty patterns such as ['classifier', '*.bias'], "
            f"got {patterns!r}."
        )
