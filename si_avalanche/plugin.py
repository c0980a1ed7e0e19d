"""Synaptic Intelligence as an Avalanche plugin: hooks translated into the life of a task."""

import logging
import weakref
from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Unpack

from avalanche.training.plugins import SupervisedPlugin
from avalanche.training.templates import SupervisedTemplate
from torch import nn
from torch.amp import GradScaler

from si_avalanche.compatibility import (
    check_boundaries_are_known,
    check_has_task_gradients,
    has_own,
    is_last_part,
    origin_of,
    others_act,
    scaler_of,
)
from si_avalanche.errors import CallOrderError, ConfigurationError
from si_avalanche.schedule import Strength, check_every, check_schedule, strength_of
from si_avalanche.serialization import VERSION, check_count, check_entries, state_from_dict
from si_avalanche.settings import (
    Options,
    check_damping,
    check_options,
    check_switch,
    shows_options,
)
from si_avalanche.synaptic_intelligence import SynapticIntelligence

_log = logging.getLogger("si_avalanche")


@shows_options
class SIPlugin(SupervisedPlugin, supports_distributed=True):  # type: ignore[call-arg]
    """Synaptic Intelligence (Zenke, Poole & Ganguli 2017) for any Avalanche strategy.

    Each experience is a task: its importance is consolidated when the experience ends; in an online
    stream with task boundaries, when the last part of a task ends; without boundaries, every so
    many steps. The penalty never enters ``strategy.loss``: its gradient is added in closed form
    within the optimiser's step, so loss metrics and loggers show the task loss alone; see
    :func:`~si_avalanche.metrics.si_metrics` for the penalty. Heads that are not in use do not move,
    units that a classifier grows start unprotected.

    The path integral takes the gradient as ``strategy.loss`` gave it, and what moves within the
    steps of optimisers, wherever in the list of plugins this one stands and whatever the others do
    to gradients and weights. The penalty comes last: what clips or projects gradients never clips
    or projects it. All state is held by :attr:`si`, on the device of the strategy's model.

    :param c: the strength: a number, 0 or more; one number for each task, the last one repeats; or
        a function from the index of the task to a number. The index counts the tasks this plugin
        has been through, from 0. Avalanche's ``si_lambda`` is ``2 * c``.
    :param xi: the damping of eq. 5, above 0; in units of a squared weight.
    :param consolidate_every: ``None`` consolidates at the end of each task; a number n consolidates
        after every n optimiser steps instead, and a task is then what lies between (van de Ven).
        Needed for streams that do not tell where tasks end.
    :param fused: make the optimiser's update, the penalty and the path integral one compiled pass;
        for ``Adam``, ``AdamW`` and ``SGD``, see
        :meth:`~si_avalanche.synaptic_intelligence.SynapticIntelligence.attach`.
    :param options: those of :class:`~si_avalanche.settings.Options`.
    :raises ConfigurationError: if a value is not allowed. Patterns are checked against the model
        when training begins.
    """

    def __init__(
        self,
        c: Strength = 1.0,
        xi: float = 0.1,
        *,
        consolidate_every: int | None = None,
        fused: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__()
        self._strength, self._every = check_schedule(c), check_every(consolidate_every)
        self._fused = check_switch("fused", fused)
        self._xi, self._options = check_damping(xi), check_options(options)
        self._si: SynapticIntelligence | None = None
        self._loaded: Mapping[str, Any] | None = None
        self._experiences = self._parts = 0
        self._strategy: weakref.ref[SupervisedTemplate] | None = None
        self._origin: weakref.ref[Any] | None = None
        self._scaler: GradScaler | None = None
        self._others_act = self._has_own_loop = False

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
            si = SynapticIntelligence(model, xi=self._xi, **self._options)
            if self._loaded is not None:
                si.load_state_dict(self._loaded, may_grow=True)
            self._si, self._loaded = si, None

    def before_training_exp(self, strategy: SupervisedTemplate, **kwargs: object) -> None:
        """Begin a task: meet the model, adapted to the experience, and attach to its optimiser.

        :raises ConfigurationError: if this strategy has no task gradients (meta-learning), the
            stream does not tell where tasks end, the plugin has served another strategy with
            another model, or the optimiser can't be followed.
        """
        check_has_task_gradients(strategy)
        if self._every is None:
            check_boundaries_are_known(strategy.experience)
        self._check_it_may_serve(strategy)
        self.meet(strategy.model)
        self._begin_part(strategy.experience)
        self.si.c = strength_of(self._strength, self._experiences)
        self.si.begin_task(strategy.model)
        self._strategy = weakref.ref(strategy)
        self._attach(strategy)

    def _attach(self, strategy: SupervisedTemplate) -> None:
        """Follow each optimiser that steps a protected parameter; see whether others act."""
        self.si.detach()
        hooks = getattr(strategy.optimizer, "_optimizer_step_pre_hooks", None)
        self._has_own_loop = has_own(strategy, "training_epoch", "optimizer_step")
        self._others_act = bool(
            self._has_own_loop
            or hooks
            or has_own(strategy, "backward")
            or others_act(strategy, self)
        )
        self._scaler = scaler_of(strategy) if self._others_act else None
        self.si.attach(strategy.optimizer, fused=self._fused)
        self.si.attach_others(fused=self._fused)

    def before_training_iteration(self, strategy: SupervisedTemplate, **kwargs: object) -> None:
        """Follow the model if it is another one, and freeze running statistics if asked to."""
        if strategy.model is not self.si.model:
            self.si.begin_task(strategy.model)
        self.si.freeze_statistics()

    def before_backward(self, strategy: SupervisedTemplate, **kwargs: object) -> None:
        """Where others act, watch for what this loss brings, and for who moves weights."""
        if self._others_act:
            self.si.iteration.watch(strategy.loss, self._scaler)
        if self._has_own_loop:
            self.si.iteration.begin()

    def before_update(self, strategy: SupervisedTemplate, **kwargs: object) -> None:
        """Where others act, refuse the gradients of another loss."""
        if self._others_act:
            self.si.iteration.refuse_other_loss()

    def after_training_iteration(self, strategy: SupervisedTemplate, **kwargs: object) -> None:
        """Refuse weights that moved without an optimiser; consolidate if it is time."""
        if self._has_own_loop:
            self.si.iteration.end()
        if self._every is not None and self.si.steps >= self._every:
            self.end_task()
            self.si.c = strength_of(self._strength, self._experiences)

    def after_training_exp(self, strategy: SupervisedTemplate, **kwargs: object) -> None:
        """Consolidate the task, if this is its end, and let go of the optimiser."""
        self.si.iteration.check_factors()
        self._parts += 1
        is_last = is_last_part(strategy.experience, self._parts)
        if self._every is None and is_last:
            self.end_task()
        elif self._every is None and is_last is None and self._parts == 1:
            _log.warning(
                "This online stream does not tell how many parts its tasks have. SIPlugin "
                "consolidates when a part of another task begins; after the last one call "
                "end_task()."
            )
        self.si.detach()

    def end_task(self) -> None:
        """Consolidate the task now.

        Need not be called, but for an online stream whose last part nothing tells to be the last: a
        log entry asks for it.

        :raises NonFiniteError: if a weight or a path integral is not finite; nothing has changed.
        """
        self.si.update_omega()
        self._experiences += 1
        self._origin, self._parts = None, 0

    def _begin_part(self, experience: Any) -> None:  # noqa: ANN401
        """End the task before, if this experience belongs to another one and nobody has said so."""
        origin = origin_of(experience)
        is_other = self._origin is not None and self._origin() is not origin
        begins = is_other or origin is None or experience.is_first_subexp
        if self._every is None and self._parts and begins:
            self.end_task()
        self._origin = None if origin is None else weakref.ref(origin)

    def state_dict(self) -> dict[str, Any]:
        """Return everything the plugin has learnt, also in mid-experience.

        :return: plain dictionaries with copies of the tensors, integers and a version; it passes
            through ``torch.save`` and ``torch.load(..., weights_only=True)``.
        :raises CallOrderError: in the middle of a training iteration.
        """
        state = deepcopy(self._loaded) if self._si is None else self._si.state_dict()
        parts = {"parts": self._parts} if self._parts else {}
        return {"version": VERSION, "experiences": self._experiences, "si": state, **parts}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over a saved state; training goes on with the experience after the last one saved.

        Before training has begun the model is not known: then the parameters are compared with
        the model's when it begins, and a model that has grown since is welcome.

        :param state_dict: what :meth:`state_dict` gave; it is not modified.
        :raises StateDictError: if entries are missing, extra or misshaped, or the version is
            newer; the plugin is left as it was.
        """
        check_entries(state_dict, ("experiences", "si"), "SIPlugin", may_have=("parts",))
        counts = [state_dict.get(name, 0) for name in ("experiences", "parts")]
        for name, count in zip(("experiences", "parts"), counts, strict=True):
            check_count(name, count)
        si_state = state_dict["si"]
        if si_state is None:
            self._si = self._loaded = None
        elif self._si is None:
            state_from_dict(si_state)
            self._loaded = deepcopy(si_state)
        else:
            self.si.load_state_dict(si_state)
        self._experiences, self._parts = counts
        self._origin = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is only known by weak references."""
        return {**self.__dict__, "_strategy": None, "_origin": None}

    def _check_it_may_serve(self, strategy: SupervisedTemplate) -> None:
        if any(isinstance(plugin, SIPlugin) and plugin is not self for plugin in strategy.plugins):
            raise ConfigurationError(
                "The strategy has two SIPlugins: each would add its penalty to the same steps. "
                "Keep one; c may be a list or a function."
            )
        is_known = self._strategy is not None and self._strategy() is strategy
        if self._si is not None and not is_known and not self._si.continues(strategy.model):
            raise ConfigurationError(
                "This SIPlugin holds the importance of another strategy's model. A second strategy "
                "may go on with the same model, or with one that has the same weights; for another "
                "one make a new SIPlugin."
            )
