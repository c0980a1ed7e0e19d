"""Synaptic Intelligence as an Avalanche plugin: hooks translated into the life of a task."""

import weakref
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from avalanche.training.plugins import SupervisedPlugin
from avalanche.training.templates import SupervisedTemplate
from torch import nn

from si_avalanche.compatibility import (
    check_boundaries_are_known,
    check_has_task_gradients,
    is_end_of_task,
    may_change_gradients,
    scales_of_gradients,
)
from si_avalanche.errors import CallOrderError, ConfigurationError
from si_avalanche.schedule import Strength, check_every, check_schedule, strength_of
from si_avalanche.serialization import VERSION, check_count, check_entries, state_from_dict
from si_avalanche.settings import (
    Clamp,
    FirstAnchor,
    Gradient,
    KernelChoice,
    Normalisation,
    Replaced,
    Settings,
)
from si_avalanche.synaptic_intelligence import SynapticIntelligence


class SIPlugin(SupervisedPlugin, supports_distributed=True):  # type: ignore[call-arg]
    """Synaptic Intelligence (Zenke, Poole & Ganguli 2017) for any Avalanche strategy.

    Each experience is a task: its importance is consolidated when the experience ends; in an online
    stream with task boundaries, when the last part of a task ends; without boundaries, every so
    many steps. The penalty never enters ``strategy.loss``: its gradient is added in closed form
    after the backward pass, so loss metrics and loggers show the task loss alone; see
    :func:`~si_avalanche.metrics.si_metrics` for the penalty. Heads that are not in use do not move,
    units that a classifier grows start unprotected.

    The path integral takes the gradient as ``strategy.loss`` gave it, and what moves within
    ``strategy.optimizer.step()``, wherever in the list of plugins this one stands and whatever the
    others do to gradients and weights. Only what reaches the *weights* depends on the order: a
    plugin that clips gradients and stands before this one leaves the penalty's gradient unclipped.

    All state is held by :attr:`si`, on the device of the strategy's model.

    :param c: the strength: a number, 0 or more; one number for each task, the last one repeats; or
        a function from the index of the task to a number. The index counts the tasks this plugin
        has been through, from 0. Avalanche's ``si_lambda`` is ``2 * c``.
    :param xi: the damping of eq. 5, above 0.
    :param clamp: ``"accumulated"``, ``"per_task"`` or ``"none"``.
    :param decay: ``None`` (sum) or d in [0, 1].
    :param gradient: ``"task"`` or ``"total"``.
    :param include: patterns of parameters to protect; ``None`` means all that require gradients.
    :param exclude: patterns of parameters to leave out.
    :param first_anchor: ``"initial"`` or ``"zero"``.
    :param normalisation: ``"protect"``, ``"exclude"`` or ``"freeze"``.
    :param replaced: ``"error"`` or ``"drop"``.
    :param keep_gradient: keep a copy of the task gradient in every step; done anyway if another
        plugin has ``after_backward`` or ``before_update``.
    :param kernel: ``"auto"``, ``"foreach"`` or ``"compiled"``. Each option from ``xi`` to
        here, with the source that uses it, is explained at
        :class:`~si_avalanche.settings.Settings`.
    :param consolidate_every: ``None`` consolidates at the end of each task; a number n consolidates
        after every n optimiser steps instead, and a task is then what lies between (van de Ven).
        Needed for streams that do not tell where tasks end.
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
        normalisation: Normalisation = "protect",
        replaced: Replaced = "error",
        keep_gradient: bool = False,
        kernel: KernelChoice = "auto",
        consolidate_every: int | None = None,
    ) -> None:
        super().__init__()
        self._strength = check_schedule(c)
        self._every = check_every(consolidate_every)
        self._settings = Settings(
            xi=xi,
            clamp=clamp,
            decay=decay,
            gradient=gradient,
            include=include,
            exclude=exclude,
            first_anchor=first_anchor,
            normalisation=normalisation,
            replaced=replaced,
            keep_gradient=keep_gradient,
            kernel=kernel,
        )
        self._strategy: weakref.ref[SupervisedTemplate] | None = None
        self._si: SynapticIntelligence | None = None
        self._loaded: Mapping[str, Any] | None = None
        self._experiences = 0
        self._others_act = False

    @property
    def si(self) -> SynapticIntelligence:
        """The object that holds importance, path integral and anchor.

        :raises CallOrderError: before training has begun, because the model is not known yet.
        """
        if self._si is None:
            raise CallOrderError(
                "SIPlugin has no state yet: it meets the model when strategy.train() begins its "
                "first experience. Ask for .si after that, or call meet(model)."
            )
        return self._si

    @property
    def experiences(self) -> int:
        """How many tasks have been consolidated.

        Tasks are experiences, with the parts of an online one counted together, or stretches of
        ``consolidate_every`` steps.
        """
        return self._experiences

    def meet(self, model: nn.Module) -> None:
        """Meet the model before training begins, so that :attr:`si` is there.

        Need not be called: training does. A state that was loaded is compared with the model now.

        :param model: what will be trained; it is only read. A model met before is kept.
        :raises ParameterSelectionError: if a pattern matches nothing or nothing can be protected.
        :raises ModelChangedError: if the model lacks a parameter of a loaded state or has it
            smaller.
        """
        if self._si is None:
            si = SynapticIntelligence(model, **vars(self._settings))
            if self._loaded is not None:
                si.load_state_dict(self._loaded, may_grow=True)
            self._si, self._loaded = si, None

    def before_training_exp(
        self, strategy: SupervisedTemplate, *args: object, **kwargs: object
    ) -> None:
        """Begin a task: meet the model, adapted to the experience, and choose its strength.

        :raises ConfigurationError: if this strategy has no task gradients (meta-learning), the
            stream does not tell where tasks end, or the plugin has served another strategy with
            another model.
        """
        check_has_task_gradients(strategy)
        self._check_is_the_only_one(strategy)
        if self._every is None:
            check_boundaries_are_known(strategy.experience)
        self._check_is_the_same_model(strategy)
        self.meet(strategy.model)
        self.si.c = strength_of(self._strength, self._experiences)
        self.si.begin_task(strategy.model)
        self._strategy = weakref.ref(strategy)
        self._others_act = may_change_gradients(strategy, self)

    def before_training_iteration(
        self, strategy: SupervisedTemplate, *args: object, **kwargs: object
    ) -> None:
        """Begin a step: follow the model if it changed within the experience."""
        self.si.begin_step(strategy.model)

    def before_backward(
        self, strategy: SupervisedTemplate, *args: object, **kwargs: object
    ) -> None:
        """Watch for the gradient that this loss gives, and for the optimiser's step."""
        self.si.watch(strategy.loss, strategy.optimizer, keep_gradient=self._others_act)

    def after_backward(self, strategy: SupervisedTemplate, *args: object, **kwargs: object) -> None:
        """Add the penalty's gradient to the task gradient."""
        now, on_its_way = scales_of_gradients(strategy)
        self.si.add_penalty_gradient(now, loss_scale=on_its_way)

    def after_training_iteration(
        self, strategy: SupervisedTemplate, *args: object, **kwargs: object
    ) -> None:
        """End the step; consolidate if it is time."""
        self.si.update_running_sum()
        if self._every is not None and self.si.steps >= self._every:
            self._end_task()
            self.si.c = strength_of(self._strength, self._experiences)

    def after_training_exp(
        self, strategy: SupervisedTemplate, *args: object, **kwargs: object
    ) -> None:
        """Consolidate the task, if this is its end."""
        if self._every is None and is_end_of_task(strategy.experience):
            self._end_task()

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

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the strategy: it is only known by a weak reference."""
        return {**self.__dict__, "_strategy": None}

    def _end_task(self) -> None:
        self.si.update_omega()
        self._experiences += 1

    def _check_is_the_only_one(self, strategy: SupervisedTemplate) -> None:
        if any(isinstance(plugin, SIPlugin) and plugin is not self for plugin in strategy.plugins):
            raise ConfigurationError(
                "The strategy has two SIPlugins: each would take the other's penalty for something "
                "that is done to the gradients. Keep one; c may be a list or a function."
            )

    def _check_is_the_same_model(self, strategy: SupervisedTemplate) -> None:
        if self._si is None or (self._strategy is not None and self._strategy() is strategy):
            return
        if not self._si.continues(strategy.model):
            raise ConfigurationError(
                "This SIPlugin holds the importance of another strategy's model. A second strategy "
                "may go on with the same model, or with one that has the same weights; for another "
                "one make a new SIPlugin."
            )
