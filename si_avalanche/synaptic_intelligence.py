"""Synaptic Intelligence for any PyTorch loop: the life of a task, step by step."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from si_avalanche import formulas
from si_avalanche.binding import Binding, bind
from si_avalanche.consolidation import end_task
from si_avalanche.kept_state import KeptState
from si_avalanche.normalisation import RunningStatistics
from si_avalanche.optimizer_steps import OptimizerFollower
from si_avalanche.parameters import check_patterns_match
from si_avalanche.serialization import check_same_parameters, state_from_dict, state_to_dict
from si_avalanche.settings import (
    Clamp,
    FirstAnchor,
    Gradient,
    KernelChoice,
    Normalisation,
    Replaced,
    Settings,
    check_strength,
)
from si_avalanche.state import State, pick
from si_avalanche.steps import StepRecorder


class SynapticIntelligence(KeptState):
    """Synaptic Intelligence (Zenke, Poole & Ganguli 2017), free of any framework.

    In every step ``omega_k += -g_k * dtheta_k`` (eq. 3); at the end of a task
    ``Omega_k += omega_k / (Delta_k**2 + xi)`` (eq. 5); in later tasks the penalty
    ``c * sum_k Omega_k * (theta_k - theta*_k)**2`` (eq. 4). Two ways to use it::

        loss = task_loss + si.penalty()     # the three-call use
        loss.backward()
        optimizer.step()
        si.update_running_sum()             # ... and si.update_omega() at the end of a task

        task_loss.backward()                # the faster use: no graph for the penalty
        si.add_penalty_gradient()
        optimizer.step()
        si.update_running_sum()

    In both, g is the gradient of the task loss alone, from one backward pass. To clip, unscale or
    project gradients, use the second; call :meth:`watch` if it happens before
    ``add_penalty_gradient()`` and g should be the gradient that the loss gave. Build the object
    while the model has its initial weights: they are the first anchor.

    Four numbers are kept for each protected weight, all copies, on the parameter's device, in the
    parameter's dtype (float32 for 16-bit ones): importance, path integral, anchor, and the weight
    before the step. Where gradients are changed after the backward pass, a fifth one is kept: the
    task gradient.

    :param model: the module to protect; only its gradients are ever changed.
    :param c: the strength, 0 or more; 0 leaves the training untouched.
    :param xi: the damping of eq. 5, above 0.
    :param clamp: ``"accumulated"``, ``"per_task"`` or ``"none"``.
    :param decay: ``None`` (sum) or d in [0, 1].
    :param gradient: ``"task"`` or ``"total"``.
    :param include: patterns of parameters to protect; ``None`` means all that require gradients.
    :param exclude: patterns of parameters to leave out.
    :param first_anchor: ``"initial"`` or ``"zero"``.
    :param normalisation: ``"protect"``, ``"exclude"`` or ``"freeze"``.
    :param replaced: ``"error"`` or ``"drop"``.
    :param keep_gradient: keep a copy of the task gradient in every step.
    :param kernel: ``"auto"``, ``"foreach"`` or ``"compiled"``. Each option, with the
        source that uses it, is explained at :class:`~si_avalanche.settings.Settings`.
    :raises ConfigurationError: if a value is not allowed.
    :raises ParameterSelectionError: if a pattern matches no parameter or nothing can be protected.
    """

    _recorder: StepRecorder

    def __init__(
        self,
        model: nn.Module,
        c: float = 1.0,
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
    ) -> None:
        self.c = c
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
        check_patterns_match(model, (*(include or ()), *exclude))
        self._optimizer = OptimizerFollower()
        self._follow(model, State())

    @property
    def c(self) -> float:
        """The strength of the penalty; may be set between two steps."""
        return self._c

    @c.setter
    def c(self, value: float) -> None:
        self._c = check_strength(value)

    def __repr__(self) -> str:
        """Show the options, what is protected and what is not."""
        weights = sum(tensor.numel() for tensor in self._state.importance.values())
        skipped = ", ".join(f"{name} ({reason})" for name, reason in self.skipped.items())
        return (
            f"SynapticIntelligence(c={self._c}, {self._settings}, protecting {weights} weights in "
            f"{len(self._bound.live.names)} parameters; skipped: {skipped or 'none'})"
        )

    def begin_task(self, model: nn.Module | None = None) -> None:
        """Look at the model anew: new, grown, frozen, thawed or moved parameters.

        Need not be called: the first step of a task does. Units that exist already keep their
        state; new ones start unprotected, anchored at their present value. A path integral in
        progress goes on.

        :param model: the model, if it is another object than before.
        :raises ModelChangedError: if a parameter with importance has left the model or shrunk, and
            ``replaced`` is ``"error"``.
        :raises ParameterSelectionError: if nothing is left to protect.
        """
        model = self._bound.model if model is None else model
        if not self._bound.is_up_to_date_with(model):
            self._follow(model, self._state, self._bound)
        self._bound = replace(self._bound, model=model, statistics=RunningStatistics(model))
        self._recorder.begin_task()
        self._task_is_open = True

    def begin_step(self, model: nn.Module | None = None) -> None:
        """Look whether the model still has the very parameters it had, and follow it if not.

        Need not be called, unless ``normalisation="freeze"``: then call it before the forward pass
        of every step, so that running statistics stay as they were after the first task.

        :param model: the model, if it is another object than before.
        :raises ModelChangedError: as :meth:`begin_task`.
        """
        model = self._bound.model if model is None else model
        if not (self._task_is_open and self._bound.live.are_still_all_of(model)):
            self.begin_task(model)
        if self._statistics_are_frozen:
            self._bound.statistics.freeze()
        self._looked = True

    def watch(
        self, loss: Tensor, optimizer: Optimizer | None = None, *, keep_gradient: bool = False
    ) -> None:
        """Take the task gradient at the end of the backward pass of this loss.

        Call it between the forward and the backward pass. Then it does not matter for the path
        integral what is done to the gradients before ``add_penalty_gradient()``: clipping,
        projection, unscaling. Gradients may also accumulate over several backward passes, each
        with its ``watch()`` and ``add_penalty_gradient()``: the penalty is in them once, and
        not in what data-parallel processes exchange in the last pass.

        :param loss: the task loss; it gets a hook and is not changed.
        :param optimizer: if given, its own steps are followed: the path integral is made of what
            moves within ``optimizer.step()``, and of nothing else. ``update_running_sum()`` then
            ends the iteration, with or without a step. The optimiser gets two hooks until then.
        :param keep_gradient: copy the task gradient in any case. Without it, a copy is made in the
            first step of a task, and from then on only if something has changed the gradients.
        :raises ModelChangedError: as :meth:`begin_task`.
        :raises ConfigurationError: if the optimiser is no ``torch.optim.Optimizer``.
        """
        self._refuse_drift()
        self.begin_step()
        if optimizer is not None:
            self._optimizer.attach(
                optimizer,
                before=lambda: self._recorder.before_optimizer_step(),
                after=lambda: self._recorder.close(),
            )
        self._recorder.watch(loss, optimizer is not None, keep_gradient)

    def penalty(self) -> Tensor:
        """Return the surrogate loss of eq. 4, to be added to the task loss.

        Differentiable with respect to the weights. When its backward pass runs, it copies the
        weights and notes its factor in the loss, so that the path integral can take the task
        loss's gradient alone; evaluated without a backward pass it leaves no trace. It is zero
        while nothing is protected. A protected head that is not in use gets a gradient of zeros
        here, which momentum and weight decay turn into movement; ``add_penalty_gradient()`` does
        not have that effect, and is more exact in 16 bits. With ``DistributedDataParallel`` and
        heads that are not in use only ``add_penalty_gradient()`` works: PyTorch refuses a gradient
        for what the forward pass did not use.

        :return: a scalar in the dtype of the state, on the first parameter's device.
        """
        self._look_at_model()
        state, recorder, c = self._state, self._recorder, self._c
        names, _ = recorder.important_among(self._bound.live.trainable_names) if c else ((), ())
        if names:
            anchor, importance = pick(state.anchor, names), pick(state.importance, names)
            value = formulas.penalty(self._bound.live.weights(names), anchor, importance, c)
        else:
            first = next(iter(state.anchor.values()))
            value = first.new_zeros((), requires_grad=True)
        if value.requires_grad:
            hook = partial(recorder.penalty_goes_backward, names, c)
            value.register_hook(hook)
        return value

    def add_penalty_gradient(
        self, scale: float | None = None, *, loss_scale: float | None = None
    ) -> None:
        """Add the gradient of eq. 4 to the gradients that exist, in place, and copy the weights.

        ``p.grad += 2 * c * Omega * (theta - theta*)``, without a graph; nothing is computed while
        nothing is protected. A parameter whose gradient is ``None`` keeps ``None``. Call it in
        every step, between the task loss's backward pass and the optimiser's step.

        :param scale: the factor that the gradients have now and the optimiser's step takes off
            again, ``scaler.get_scale()`` of a ``GradScaler``; the penalty's gradient gets it too.
        :param loss_scale: the factor that the loss had on its way backward, if the gradients of a
            watched loss have been unscaled since. The path integral is free of both.
        :raises CallOrderError: if no gradient exists, these gradients have it already, or the
            watched loss was multiplied by more than ``scale``.
        """
        self._look_at_model()
        self._recorder.add_penalty_gradient(self._c, scale, loss_scale or scale)

    def update_running_sum(self) -> None:
        """Add the step just made to the path integral (eq. 3), in place.

        Call it after the optimiser's step and before ``zero_grad()``. A step that moved nothing
        adds nothing. If :meth:`watch` was given the optimiser, the step has been added already.

        :raises CallOrderError: if no step was begun, by the backward pass of ``penalty()`` or by
            ``add_penalty_gradient()``; if the gradients have been removed or changed since, and no
            copy was kept.
        """
        if self._optimizer.is_attached:
            self._optimizer.detach()
            self._recorder.end_iteration()
        else:
            self._recorder.close()

    def update_omega(self) -> None:
        """Consolidate the task (eq. 5): importance, new anchor, path integral back to zero.

        A task without a step changes nothing.

        :raises CallOrderError: if weights moved since the last ``update_running_sum()``, or in no
            recorded step at all, because it was called before the optimiser's step.
        :raises NonFiniteError: if a weight or a path integral is not finite; nothing has changed.
        """
        self._recorder.check_before_consolidation()
        self._recorder.end_task()
        if self._state.steps:
            seen = self._recorder.sees_every_step
            end_task(self._bound.live, self._state, self._settings, seen)
        self._task_is_open = self._looked = False

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on bit for bit, also in mid-task.

        :return: plain dictionaries with copies of the tensors, integers and a version; it passes
            through ``torch.save`` and ``torch.load(..., weights_only=True)``. Options and strength
            are not in it.
        :raises CallOrderError: if weights moved since the last ``update_running_sum()``.
        """
        self._recorder.refuse_unrecorded_step()
        return state_to_dict(self._state)

    def load_state_dict(self, state_dict: Mapping[str, Any], *, may_grow: bool = False) -> None:
        """Take over a saved state; tensors are copied to the parameters' devices and dtypes.

        :param state_dict: what :meth:`state_dict` gave; it is not modified.
        :param may_grow: accept a state that was saved before the model got more units or
            parameters; those start unprotected.
        :raises StateDictError: if entries are missing, extra or misshaped, or the version is
            newer; the object is left as it was.
        :raises ModelChangedError: with ``may_grow``, if the model lacks a parameter of the state
            or has it smaller; the object is left as it was.
        """
        state = state_from_dict(state_dict)
        if not may_grow:
            check_same_parameters(state, self._state, self.skipped)
        self._follow(self._bound.model, state)

    def continues(self, model: nn.Module) -> bool:
        """Whether a model is the one that is protected, or goes on from its weights.

        :param model: any module; it is only read. Waits for the device if it is another one.
        """
        return self._bound.continues_in(model)

    def _follow(self, model: nn.Module, state: State, before: Binding | None = None) -> None:
        """Bind a state to a model; raises before anything is changed."""
        bound = bind(model, state, self._settings, before)
        recorder = StepRecorder(bound.live, state, self._settings)
        if hasattr(self, "_recorder"):
            recorder.take_over(self._recorder, same_penalty=before is not None)
        self._recorder = recorder
        self._bound, self._state = bound, state
        self._task_is_open = self._looked = False

    @property
    def _statistics_are_frozen(self) -> bool:
        return self._settings.normalisation == "freeze" and self._state.tasks > 0

    def _refuse_drift(self) -> None:
        if self._statistics_are_frozen:
            self._bound.statistics.refuse_drift()

    def _look_at_model(self) -> None:
        self._refuse_drift()
        if not self._looked:
            self.begin_step()
        self._looked = False
