"""Synaptic Intelligence for any PyTorch loop: the life of a task."""

import logging
from collections.abc import Mapping
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from si_avalanche import formulas
from si_avalanche.errors import CallOrderError
from si_avalanche.iteration import Iteration
from si_avalanche.serialization import check_same_parameters, state_from_dict, state_to_dict
from si_avalanche.settings import (
    Options,
    check_damping,
    check_fits_in,
    check_options,
    check_strength,
    check_switch,
    shows_options,
)
from si_avalanche.shards import places_alike, summed
from si_avalanche.step import AtTheStep
from si_avalanche.three_calls import ThreeCalls
from si_avalanche.tracked import Tracked

_log = logging.getLogger("si_avalanche")


@shows_options
class SynapticIntelligence:
    """Synaptic Intelligence (Zenke, Poole & Ganguli 2017), free of any framework.

    In every step ``omega_k += -g_k * dtheta_k`` (eq. 3); at the end of a task
    ``Omega_k += omega_k / (Delta_k**2 + xi)`` (eq. 5); in later tasks the penalty
    ``c * sum_k Omega_k * (theta_k - theta*_k)**2`` (eq. 4). The training loop stays as it is::

        si = SynapticIntelligence(model, c=1.0)
        si.attach(optimizer)
        ...                                 # zero_grad, backward, step, as ever
        si.update_omega()                   # at the end of a task

    g is the gradient of the task loss: what the optimiser is given, before the penalty's gradient
    is added to it. Build the object while the model has its initial weights: they are the first
    anchor. The three calls of the original class do the same with the penalty in the loss:
    :meth:`penalty`, :meth:`update_running_sum`, :meth:`update_omega`.

    Three numbers are kept for each protected weight, all copies, on the parameter's device, in the
    parameter's dtype (float32 for 16-bit ones): importance, path integral and anchor; unless
    ``fused=True``, a fourth one: the weight before the step. A parameter that FSDP2 has sharded has
    its state sharded alike.

    :param model: the module to protect; it is not changed.
    :param c: the strength, 0 or more; 0 leaves the training untouched.
    :param xi: the damping of eq. 5, above 0; in units of a squared weight.
    :param options: those of :class:`~si_avalanche.settings.Options`.
    :raises ConfigurationError: if a value is not allowed.
    :raises ParameterSelectionError: if a pattern matches no parameter or nothing can be protected.
    """

    def __init__(
        self, model: nn.Module, c: float = 1.0, xi: float = 0.1, **options: Unpack[Options]
    ) -> None:
        checked = check_strength(c), check_damping(xi), check_options(options)
        self._tracked = Tracked(model, *checked)
        self._step = AtTheStep(self._tracked)
        self._calls = ThreeCalls(self._tracked, self._step)
        self.iteration = Iteration(self._tracked, self._step)
        """For loops in which others change gradients and weights: see its class."""

    @property
    def c(self) -> float:
        """The strength of the penalty; may be set between two steps."""
        return self._tracked.c

    @c.setter
    def c(self, value: float) -> None:
        checked, state = check_strength(value), self._tracked.state
        for dtype in {omega.dtype for omega in state.importance.values()}:
            check_fits_in(checked, self._tracked.xi, dtype)
        self._tracked.c = checked

    def __repr__(self) -> str:
        """Show the options, what is protected and what is not."""
        tracked = self._tracked
        weights = sum(tensor.numel() for tensor in tracked.state.importance.values())
        skipped = ", ".join(f"{name} ({reason})" for name, reason in tracked.skipped.items())
        chosen = "".join(f", {name}={value!r}" for name, value in tracked.options.items())
        return (
            f"SynapticIntelligence(c={self.c}, xi={tracked.xi}{chosen}; protecting {weights} "
            f"weights in {len(tracked.parameters)} parameters; skipped: {skipped or 'none'})"
        )

    # Around the optimiser's step

    def attach(self, optimizer: Optimizer, *, fused: bool = False) -> None:
        """Be there at each ``step()`` of an optimiser, from now on.

        Just before it the penalty's gradient ``2 * c * Omega * (theta - theta*)`` is added to the
        gradients that exist, for the length of the step; just after it what moved is added to the
        path integral. ``p.grad`` is the task gradient before and after. So the penalty is never
        clipped, projected, scaled or accumulated: what is done to gradients before ``step()`` is
        done to the task gradient alone, as with decoupled weight decay. A parameter without a
        gradient is left alone. What moves weights outside the optimiser's step does not count.

        Several optimisers may be attached, one after the other. An optimiser's copy has no hooks,
        in PyTorch; a copy of this object attaches to the copies of its optimisers.

        :param optimizer: any of PyTorch's or a subclass, or a wrapper that holds one as
            ``.optimizer``; it gets two hooks, its state and groups stay as they are.
        :param fused: make the optimiser's update, the penalty and the path integral one compiled
            pass over memory: for ``Adam``, ``AdamW`` and ``SGD`` of ``torch.optim``. Compiling
            takes some seconds, once. Where there is no compiler, that is logged and the step is
            made by hooks.
        :raises ConfigurationError: if its steps can't be followed, another object follows them, it
            maximises, or they can't be one pass.
        """
        self._step.attach(optimizer, check_switch("fused", fused))

    def attach_others(self, *, fused: bool = False) -> None:
        """Attach to every optimiser that makes a step with a protected parameter, from now on.

        For a loop in which optimisers come and go, or not all of them are known. One that steps
        within a step of another is left alone: what it moves is seen from there.

        :param fused: as for :meth:`attach`.
        """
        self._step.attach_others(check_switch("fused", fused))

    def detach(self, optimizer: Optimizer | None = None) -> None:
        """Let go of an optimiser, or of all; what has been learnt is kept.

        :param optimizer: one that :meth:`attach` was given; ``None`` means all.
        """
        self._step.detach(optimizer)

    def keep_gradient(self, scaler: GradScaler | None = None) -> None:
        """Take the gradients as they are now for the task gradient of the step to come.

        Call it after ``backward()`` if the loop then clips or projects gradients and the raw one
        should be integrated; without it, it is what the optimiser is given. Costs a copy of the
        gradients until the step.

        :param scaler: what has scaled the loss, if its ``unscale_`` comes later than this.
        """
        self._step.keep_gradient(scaler)

    def freeze_statistics(self) -> None:
        """Put normalisation layers with running statistics into evaluation mode.

        Only with ``normalisation="freeze"`` and after the first task. Call it after every
        ``model.train()``; a step in which they were not frozen is refused.
        """
        if self._tracked.freezes_statistics:
            self._tracked.statistics.freeze()

    # The three calls of the original class

    def penalty(self) -> Tensor:
        """Return the surrogate loss of eq. 4; to be added to the task loss if nothing is attached.

        Differentiable with respect to the weights. When its backward pass runs, it copies the
        weights and notes its factor in the loss, so that the path integral can take the task
        loss's gradient alone; evaluated without a backward pass it leaves no trace. It is zero
        while nothing is protected. A protected head that is not in use gets a gradient of zeros
        here, which momentum and weight decay turn into movement; set it back to ``None`` before the
        step, or :meth:`attach` the optimiser, which does not have that effect and is exact also
        where the penalty is strong. With ``DistributedDataParallel`` and heads that are not in use
        only ``attach`` works: PyTorch refuses a gradient for what the forward pass did not use.

        :return: a scalar in the dtype of the state, on the first parameter's device.
        """
        return self._calls.penalty()

    def update_running_sum(self) -> None:
        """Add the step just made to the path integral (eq. 3), in place.

        Call it after the optimiser's step and before ``zero_grad()``, with ``penalty()`` in the
        loss. A step that moved nothing adds nothing.

        :raises CallOrderError: if no step was begun by the backward pass of ``penalty()``, if the
            gradients have been removed or changed since, or if an optimiser is attached.
        """
        self._calls.update_running_sum()

    # The end of a task, and the next

    def update_omega(self) -> None:
        """Consolidate the task (eq. 5): importance, new anchor, path integral back to zero.

        A task without a step changes nothing; if weights moved all the same, that is logged.

        :raises CallOrderError: if steps were recorded, but none of them shows how weights moved.
        :raises NonFiniteError: if a weight or a path integral is not finite; nothing has changed.
        :raises ModelChangedError: as :meth:`begin_task`.
        """
        self.begin_task()
        tracked, steps = self._tracked, self.steps
        is_seen = bool(steps and self._step.optimizers)
        if tracked.parameters and not is_seen and tracked.has_moved_unseen:
            what = (
                f"Weights moved, but none of the {steps} recorded steps shows it: attach() the "
                "optimiser that moves them, a new one as well; or call update_running_sum() after "
                "the optimiser's step, with penalty() in the loss."
            )
            if steps:
                raise CallOrderError(what)
            _log.warning("%s Nothing is consolidated.", what)
        if steps:
            tracked.consolidate()

    def begin_task(self, model: nn.Module | None = None) -> None:
        """Look at the model anew: new, grown, frozen, thawed or moved parameters.

        Need not be called: a step does when it meets a parameter that it does not know. Units that
        exist already keep their state; new ones start unprotected, anchored at their present value.
        A path integral in progress goes on.

        :param model: the model, if it is another object than before.
        :raises ModelChangedError: if a parameter with importance has left the model or shrunk, and
            ``replaced`` is ``"error"``.
        :raises ParameterSelectionError: if nothing could be protected.
        """
        self._calls.end_task()
        self._tracked.follow(model)

    def continues(self, model: nn.Module) -> bool:
        """Whether a model is the one that is protected, or goes on from its weights.

        :param model: any module; it is only read. Waits for the device if it is another one.
        """
        return self._tracked.continues_in(model)

    # What is known

    @property
    def importance(self) -> dict[str, Tensor]:
        """Omega by parameter name: a dictionary of the kept tensors themselves, not copies."""
        return dict(self._tracked.state.importance)

    @property
    def path_integral(self) -> dict[str, Tensor]:
        """Omega (small) of the task in progress, by name: the kept tensors themselves."""
        return dict(self._tracked.state.path_integral)

    @property
    def anchor(self) -> dict[str, Tensor]:
        """Theta* by parameter name: the kept tensors themselves, not copies."""
        return dict(self._tracked.state.anchor)

    # The names under which the original class has them.
    omega, running_sum, prev_params = importance, path_integral, anchor

    @property
    def model(self) -> nn.Module:
        """The module that is protected."""
        return self._tracked.model

    @property
    def skipped(self) -> dict[str, str]:
        """The model's parameters that are not protected, each with the reason."""
        return dict(self._tracked.skipped)

    @property
    def tasks(self) -> int:
        """How many tasks have been consolidated."""
        return self._tracked.state.tasks

    @property
    def steps(self) -> int:
        """How many optimiser steps have been recorded in the task in progress."""
        return self._tracked.state.steps

    @torch.no_grad()
    def total_importance(self) -> Tensor:
        """Return the sum of Omega over all parameters, a scalar on the first one's device."""
        lane = self._tracked.lane(list(self._tracked.parameters))
        parts = [lane.part(places) for places in places_alike(lane.parameters)]
        sums = [summed(formulas.total(part.importance), part.parameters[0]) for part in parts]
        return formulas.total(sums) if sums else torch.zeros(())

    def state_dict(self) -> dict[str, Any]:
        """Return everything needed to go on bit for bit, also in mid-task.

        :return: plain dictionaries with copies of the tensors, integers and a version; it passes
            through ``torch.save`` and ``torch.load(..., weights_only=True)``, and sharded through
            ``torch.distributed.checkpoint``. Options, strength and optimisers are not in it.
        :raises CallOrderError: if weights moved since the last ``update_running_sum()``.
        """
        self._calls.refuse_unrecorded_step()
        return state_to_dict(self._tracked.state)

    def load_state_dict(self, state_dict: Mapping[str, Any], *, may_grow: bool = False) -> None:
        """Take over a saved state; tensors are copied to the parameters' devices and dtypes.

        :param state_dict: what :meth:`state_dict` gave, sharded or not; it is not modified.
        :param may_grow: accept a state that was saved before the model got more units or
            parameters; those start unprotected.
        :raises StateDictError: if entries are missing, extra or misshaped, or the version is
            newer; the object is left as it was.
        :raises ModelChangedError: with ``may_grow``, if the model lacks a parameter of the state
            or has it smaller; the object is left as it was.
        """
        state = state_from_dict(state_dict)
        if not may_grow:
            check_same_parameters(state, self._tracked.state, self._tracked.skipped)
        self._calls.end_task()
        self._tracked.follow(state=state)
