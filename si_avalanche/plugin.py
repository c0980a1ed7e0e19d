"""Synaptic Intelligence as an Avalanche plugin: hooks translated into the life of a task."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from numbers import Real
from typing import Any, TypeAlias

from avalanche.training.plugins import SupervisedPlugin
from avalanche.training.templates import SupervisedTemplate
from avalanche.training.utils import _at_task_boundary

from si_avalanche.errors import CallOrderError, ConfigurationError
from si_avalanche.serialization import VERSION, check_count, check_entries, state_from_dict
from si_avalanche.settings import Clamp, FirstAnchor, Gradient, Settings, check_strength
from si_avalanche.synaptic_intelligence import SynapticIntelligence

Strength: TypeAlias = float | Sequence[float] | Callable[[int], float]
"""One c for all experiences, one for each (the last repeats), or a function of the index."""


class SIPlugin(SupervisedPlugin):
    """Synaptic Intelligence (Zenke, Poole & Ganguli 2017) for any Avalanche strategy.

    Each experience is a task: its importance is consolidated when the experience ends; in an online
    stream with task boundaries, when the last part of a task ends. The penalty never enters
    ``strategy.loss``: its gradient is added in closed form after the backward pass, so loss metrics
    and loggers show the task loss alone; see :func:`~si_avalanche.metrics.si_metrics` for the
    penalty. Heads that are not in use do not move, units that a classifier grows start unprotected.

    All state is held by :attr:`si`, on the device of the strategy's model.

    :param c: the strength: a number, 0 or more; one number for each experience, the last one
        repeats; or a function from the experience index to a number. The index counts the
        experiences this plugin has been through, from 0. Avalanche's ``si_lambda`` is ``2 * c``.
    :param xi: the damping of eq. 5, above 0.
    :param clamp: ``"accumulated"``, ``"per_task"`` or ``"none"``.
    :param decay: ``None`` (sum) or d in [0, 1].
    :param gradient: ``"task"`` or ``"total"``.
    :param include: patterns of parameters to protect; ``None`` means all that require gradients.
    :param exclude: patterns of parameters to leave out.
    :param first_anchor: ``"initial"`` or ``"zero"``. Each option, with the source that uses it, is
        explained at :class:`~si_avalanche.settings.Settings`.
    :raises ConfigurationError: if a value is not allowed. Patterns are checked against the model
        when training begins.
    """

    def __init__(
        self,
        c: Strength = 1.0,
        xi: float = 0.1,
        *,
        clamp: Clamp = "accumulated",
        decay: float | None = None,
        gradient: Gradient = "task",
        include: Sequence[str] | None = None,
        exclude: Sequence[str] = (),
        first_anchor: FirstAnchor = "initial",
    ) -> None:
        super().__init__()
        self._strength = _check_schedule(c)
        self._settings = Settings(
            xi=xi,
            clamp=clamp,
            decay=decay,
            gradient=gradient,
            include=include,
            exclude=exclude,
            first_anchor=first_anchor,
        )
        self._si: SynapticIntelligence | None = None
        self._loaded: Mapping[str, Any] | None = None
        self._experiences = 0

    @property
    def si(self) -> SynapticIntelligence:
        """The object that holds importance, path integral and anchor.

        :raises CallOrderError: before training has begun, because the model is not known yet.
        """
        if self._si is None:
            raise CallOrderError(
                "SIPlugin has no state yet: it meets the model when strategy.train() begins its "
                "first experience. Ask for .si after that."
            )
        return self._si

    @property
    def experiences(self) -> int:
        """How many experiences have been consolidated; parts of an online one count together."""
        return self._experiences

    def before_training_exp(
        self, strategy: SupervisedTemplate, *args: object, **kwargs: object
    ) -> None:
        """Begin a task: meet the model, adapted to the experience, and choose its strength."""
        c = _strength_of(self._strength, self._experiences)
        if self._si is None:
            si = SynapticIntelligence(strategy.model, c, **vars(self._settings))
            if self._loaded is not None:
                si.load_state_dict(self._loaded, may_grow=True)
            self._si, self._loaded = si, None
        self._si.c = c
        self._si.begin_task(strategy.model)

    def before_training_iteration(
        self, strategy: SupervisedTemplate, *args: object, **kwargs: object
    ) -> None:
        """Begin a step: follow the model if it changed within the experience."""
        self.si.begin_step(strategy.model)

    def after_backward(self, strategy: SupervisedTemplate, *args: object, **kwargs: object) -> None:
        """Copy the weights and add the penalty's gradient to the task gradient."""
        self.si.add_penalty_gradient()

    def after_training_iteration(
        self, strategy: SupervisedTemplate, *args: object, **kwargs: object
    ) -> None:
        """Add the optimiser's step to the path integral."""
        self.si.update_running_sum()

    def after_training_exp(
        self, strategy: SupervisedTemplate, *args: object, **kwargs: object
    ) -> None:
        """Consolidate the task, if this is its end."""
        if _at_task_boundary(strategy.experience, before=False):
            self.si.update_omega()
            self._experiences += 1

    def state_dict(self) -> dict[str, Any]:
        """Return everything the plugin has learnt, also in mid-experience.

        :return: plain dictionaries with copies of the tensors, integers and a version; it passes
            through ``torch.save`` and ``torch.load(..., weights_only=True)``.
        :raises CallOrderError: in the middle of a training iteration.
        """
        state = deepcopy(self._loaded) if self._si is None else self._si.state_dict()
        return {"version": VERSION, "experiences": self._experiences, "si": state}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over a saved state; training goes on with the experience after the last one saved.

        Before training has begun the model is not known: then the parameters are compared with
        the model's when it begins, and a model that has grown since is welcome.

        :param state_dict: what :meth:`state_dict` gave; it is not modified.
        :raises StateDictError: if entries are missing, extra or misshaped, or the version is
            newer; the plugin is left as it was.
        """
        check_entries(state_dict, ("experiences", "si"), "SIPlugin")
        check_count("experiences", state_dict["experiences"])
        si_state = state_dict["si"]
        if si_state is not None and self._si is None:
            state_from_dict(si_state)
            self._loaded = deepcopy(si_state)
        elif si_state is not None:
            self.si.load_state_dict(si_state)
        else:
            self._si = self._loaded = None
        self._experiences = state_dict["experiences"]


def _check_schedule(c: object) -> Strength:
    if callable(c):
        return c
    if isinstance(c, Sequence) and not isinstance(c, str | bytes) and c:
        return [check_strength(value, f"c[{index}]") for index, value in enumerate(c)]
    if isinstance(c, Real):
        return check_strength(c)
    raise ConfigurationError(
        "c must be a number, 0 or more, a list with at least one such number (one for each "
        "experience, the last one repeats), or a function from the experience index to one, "
        f"got {c!r}."
    )


def _strength_of(c: Strength, experience: int) -> float:
    if callable(c):
        return check_strength(c(experience), f"c({experience})")
    if isinstance(c, Sequence):
        return c[min(experience, len(c) - 1)]
    return c
