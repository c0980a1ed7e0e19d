"""What a user may choose about Synaptic Intelligence, checked once, at construction."""

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from numbers import Real
from typing import Literal, get_args

from si_avalanche.errors import ConfigurationError

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

KernelChoice = Literal["auto", "foreach", "compiled"]
"""In which form a step is computed; the numbers are the same."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The options of Synaptic Intelligence apart from its strength c.

    :param xi: damping xi of eq. 5, above zero; in units of a squared weight.
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
        all others; ``"exclude"`` leaves them out; ``"freeze"`` protects them and, once the first
        task has been consolidated, keeps the layers that have running statistics in evaluation
        mode while training, so that these no longer drift.
    :param replaced: ``"error"`` refuses a model in which a layer that carries importance is gone,
        has shrunk or has another number of dimensions; ``"drop"`` forgets the state of such layers,
        and of those that were replaced by one with other weights, and logs their names.
    :param keep_gradient: keep a copy of the task gradient in every step. Without it, that is done
        only where gradients may be changed after the backward pass (clipping, projection): where
        another plugin acts there, and once it was seen to happen. Needed only if something else
        changes them, in some steps and not in the first of a task: then an error says so.
    :param kernel: how a step is computed; the numbers are the same. ``"auto"`` takes
        ``torch.compile`` for large models on the CPU, which needs a C++ compiler and, in the first
        step, some seconds; where that does not work it is logged once, and PyTorch's foreach
        functions are taken, as ``"foreach"`` always does. ``"compiled"`` compiles for any size and
        device.
    :raises ConfigurationError: if a value is not allowed.
    """

    xi: float = 0.1
    clamp: Clamp = "accumulated"
    decay: float | None = None
    gradient: Gradient = "task"
    include: Sequence[str] | None = None
    exclude: Sequence[str] = ()
    first_anchor: FirstAnchor = "initial"
    normalisation: Normalisation = "protect"
    replaced: Replaced = "error"
    keep_gradient: bool = False
    kernel: KernelChoice = "auto"

    def __post_init__(self) -> None:
        """Check every value."""
        xi = _check_number(
            "xi", self.xi, "a finite number above 0", "the authors use 0.1 and 0.001"
        )
        object.__setattr__(self, "xi", xi)
        if self.xi <= 0:
            raise ConfigurationError(
                f"xi must be a finite number above 0, got {self.xi!r}. It keeps eq. 5 from "
                "dividing by zero; the authors use 0.1 and 0.001."
            )
        _check_choice("clamp", self.clamp, get_args(Clamp))
        _check_choice("gradient", self.gradient, get_args(Gradient))
        _check_choice("first_anchor", self.first_anchor, get_args(FirstAnchor))
        _check_choice("normalisation", self.normalisation, get_args(Normalisation))
        _check_choice("replaced", self.replaced, get_args(Replaced))
        _check_choice("kernel", self.kernel, get_args(KernelChoice))
        _check_switch("keep_gradient", self.keep_gradient)
        if self.decay is not None:
            decay = _check_number("decay", self.decay, "None or a number in [0, 1]", "None sums")
            object.__setattr__(self, "decay", decay)
            if not 0 <= self.decay <= 1:
                raise ConfigurationError(
                    f"decay must be None or a number in [0, 1], got {self.decay!r}. None sums "
                    "the importance of all tasks; d keeps d * old + (1 - d) * new."
                )
        if self.include is not None:
            _check_patterns("include", self.include)
        _check_patterns("exclude", self.exclude)


def check_strength(c: object, where: str = "c") -> float:
    """Return a strength as a float.

    :param c: what the user gave.
    :param where: how the error names it.
    :return: ``float(c)``.
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


def _check_switch(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name} must be True or False, got {value!r}.")


def _check_patterns(name: str, patterns: object) -> None:
    is_list = isinstance(patterns, Sequence) and not isinstance(patterns, str)
    if not is_list or not all(isinstance(p, str) and p for p in patterns):  # type: ignore[attr-defined]
        raise ConfigurationError(
            f"{name} must be a list of non-empty patterns such as ['classifier', '*.bias'], "
            f"got {patterns!r}."
        )
