"""One optimiser step, from the backward pass to the path integral."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from si_avalanche import formulas
from si_avalanche.backward import LossWatch, at_end_of_backward
from si_avalanche.errors import CallOrderError
from si_avalanche.important import Important, Names, without
from si_avalanche.kernels import Kernels
from si_avalanche.live import LiveParameters
from si_avalanche.marks import Marks, joined, mark, same_marks, share_tensors
from si_avalanche.open_step import OpenStep, carried_over, refuse_second_penalty
from si_avalanche.settings import Settings
from si_avalanche.state import State
from si_avalanche.task_gradient import TaskGradient


class StepRecorder:
    """Turns optimiser steps into the path integral of the task loss.

    :param live: the protected parameters.
    :param state: importance and anchor are read, the path integral is changed in place.
    :param settings: whose gradient the path integral takes, and whether a copy is always kept.
    """

    def __init__(self, live: LiveParameters, state: State, settings: Settings) -> None:
        self._live = live
        self._state = state
        self._settings = settings
        self._kernels = Kernels(live, state, settings.kernel)
        self._task_gradient = TaskGradient(live, state, settings, self._kernels)
        self._open: OpenStep | None = None
        self._idle: OpenStep | None = None
        self._loss = LossWatch()
        self._follows_optimizer = False
        self._is_void = False
        self._important = Important(live, state)

    @property
    def sees_every_step(self) -> bool:
        """Whether the optimiser's own steps are followed."""
        return self._follows_optimizer

    def begin_task(self) -> None:
        """Look again, in the first step to come, whether something changes gradients."""
        self._task_gradient.probe()

    def important_among(self, names: Names) -> tuple[Names, Names]:
        """Return those of the parameters that have an importance other than zero, and the others.

        :param names: of any of the parameters.
        """
        return self._important.among(names)

    def watch(self, loss: Tensor, follows_optimizer: bool, keep: bool) -> None:
        """Take the gradients at the end of the backward pass of this loss.

        :param loss: the task loss.
        :param follows_optimizer: whether :meth:`close` is called from within the optimiser's step,
            so that other movements of weights are none of ours.
        :param keep: whether to keep a copy of the gradients in any case.
        """
        self._state.alters = True if keep else self._state.alters
        self._follows_optimizer, self._is_void = follows_optimizer, False
        self._loss.watch(loss, lambda: self._follow_backward((), 0.0, in_graph=False))

    def penalty_goes_backward(self, protected: Names, c: float, factor: Tensor) -> None:
        """Open a step from within the backward pass of the penalty.

        :param protected: the parameters that get the penalty's gradient.
        :param c: the strength.
        :param factor: the factor of the penalty in the loss, a 0-dimensional tensor.
        """
        self._follow_backward(protected, c * factor.detach(), in_graph=True)

    @torch.no_grad()
    def _follow_backward(self, protected: Names, strength: float | Tensor, in_graph: bool) -> None:
        step = self._open
        goes_on = step is not None and self._goes_on(step)
        if goes_on or not in_graph:
            self._task_gradient.before_backward(step if goes_on else None)
        before = mark(self._live.all_gradients())
        at_end_of_backward(
            partial(self._backward_ends, protected, strength, before, goes_on, in_graph)
        )

    @torch.no_grad()
    def _backward_ends(
        self,
        protected: Names,
        strength: float | Tensor,
        before: Marks,
        goes_on: bool,
        in_graph: bool,
    ) -> None:
        """Open the step, or go on with it, at the end of a backward pass that brought gradients.

        It brought none if they went elsewhere, as with ``torch.autograd.grad``. Strengths add up
        over the backward passes of one step, and over several penalties in one pass.
        """
        names = self._live.names_with_gradient()
        gradients, step = self._live.gradients(names), self._open
        opened_in_this_pass = step is not None and same_marks(step.gradients, gradients)
        if same_marks(before, gradients) and (not in_graph or protected or opened_in_this_pass):
            if step is not None and goes_on:
                self._task_gradient.undo_rebase(step)
            return
        if step is None or not (goes_on or (opened_in_this_pass and in_graph)):
            # Where the optimiser is followed, its step is waited for: one pass over memory less.
            remember = in_graph or not self._follows_optimizer
            step = self._open = self._begin(names, gradients, remember)
        self.refuse_unrecorded_step()
        self._extend(step, names, gradients)
        if in_graph:
            step.protected += without(protected, step.protected)
            step.strength = strength + step.strength
            step.has_penalty, step.in_graph, step.fresh = True, True, False
            step.kept.clear()
        else:
            step.watched = step.fresh = True
            self._task_gradient.take(step)
            self._notice_moved_weights(step)

    @torch.no_grad()
    def add_penalty_gradient(self, c: float, scale: float | None, loss_scale: float | None) -> None:
        """Add the penalty's gradient to the gradients in place; open a step if none is open.

        :param c: the strength.
        :param scale: the factor that the gradients have now, or ``None`` if there is none.
        :param loss_scale: the factor that the loss had on its way backward.
        :raises CallOrderError: if no gradient exists, these gradients have it already, or they
            were changed and no copy was kept.
        """
        names = self._live.names_with_gradient()
        if not names and self._follows_optimizer:
            # Nothing came, or somebody has thrown it away: an iteration without a step.
            self._open, self._is_void = None, True
            return
        if not names:
            raise CallOrderError(
                "add_penalty_gradient() found no gradient: call it after the task loss's "
                "backward() and before the optimiser's step()."
            )
        self._loss.check(loss_scale, look=not self._state.steps)
        gradients, step = self._live.gradients(names), self._open
        if step is None or not step.fresh:
            refuse_second_penalty(step, self._idle, gradients)
            step = self._begin(names, gradients, remember=False)
            step.scale = loss_scale
            self._task_gradient.take(step)
        step.scale = loss_scale
        step.taken_from_live = 1.0 if loss_scale is None else loss_scale / (scale or 1.0)
        self._task_gradient.look(step, gradients)
        step.strength = c if scale is None else c * scale
        self._add_penalty(step, step.strength, names)
        step.has_penalty, step.fresh = True, False
        step.gradients = mark(gradients)
        self._open, self._idle = step, None

    def _add_penalty(self, step: OpenStep, strength: float, names: Names) -> None:
        """Add the penalty's gradient where it is not yet, and copy all weights of the step."""
        free = without(step.names, step.protected)
        if names != step.names:
            free = tuple(name for name in free if name in names)
        pulled, others = self.important_among(free) if strength else ((), free)
        if pulled:
            self._kernels.of(pulled).begin(self._live.gradients(pulled), strength)
        self._live.remember(others if free == step.names else without(step.names, pulled))
        step.protected += pulled
        step.remembered = True

    def before_optimizer_step(self) -> None:
        """Copy the weights anew if something else than the optimiser moved them since."""
        if self._open is not None:
            self._notice_moved_weights(self._open)

    @torch.no_grad()
    def close(self) -> None:
        """Add the step to the path integral, in place.

        :raises CallOrderError: if no step is open, or its gradients are gone or changed and no copy
            was kept.
        """
        step = self._open
        if self._is_void and not self._live.all_gradients():
            return
        if step is None or not step.has_penalty:
            raise CallOrderError(
                "update_running_sum() has no step to record: in every step, also of the first "
                "task, either add penalty() to the loss before backward(), or call "
                "add_penalty_gradient() after it; then step the optimiser, once."
            )
        # A fused optimiser moves weights unseen; to look at them would be to wait for the device.
        unseen = not self._follows_optimizer and same_marks(
            step.weights, self._live.parameters(step.names)
        )
        self._task_gradient.integrate(step, moved_only=unseen)
        self._idle = step if unseen else None
        self._state.steps += 1
        self._open = None

    def end_iteration(self) -> None:
        """Check that in an iteration without an optimiser step nothing else moved the weights.

        :raises CallOrderError: if something did.
        """
        step = self._open
        if step is None:
            return
        seen = not same_marks(step.weights, self._live.parameters(step.names))
        if (seen or not self._state.steps) and self._moved(step):
            raise CallOrderError(
                "Weights moved in an iteration in which the optimiser that is followed made no "
                "step. In Avalanche SIPlugin follows strategy.optimizer: let that one make the "
                "steps, once per iteration at most."
            )

    def refuse_unrecorded_step(self) -> None:
        """Refuse to lose a step that was begun and moved weights; waits for the device.

        :raises CallOrderError: if there is one.
        """
        step = self._open
        if step is not None and not self._follows_optimizer and self._moved(step):
            raise CallOrderError(
                "Weights moved in a step that update_running_sum() has not recorded. Call it once "
                "after every optimiser step. Optimisers that evaluate a closure several times in "
                "one step, such as LBFGS, are not supported."
            )

    @torch.no_grad()
    def end_task(self) -> None:
        """Forget an open step that moved nothing, unless gradients may accumulate further.

        :raises CallOrderError: as :meth:`refuse_unrecorded_step`.
        """
        self.refuse_unrecorded_step()
        step = self._open
        if step is None or not (self._follows_optimizer and step.has_penalty):
            self._open = None
            return
        if not self._task_gradient.loosen(step):
            self._open = None

    def check_before_consolidation(self) -> None:
        """Look at what was not looked at in steps, so as not to wait for the device there.

        :raises CallOrderError: if a loss was multiplied by a factor that was not known.
        """
        self._loss.check_all()

    @torch.no_grad()
    def take_over(self, other: "StepRecorder", same_penalty: bool) -> None:
        """Go on with the step that another recorder of the same model has open.

        :param other: the recorder in use until now.
        :param same_penalty: whether importance and anchor are those that it had.
        :raises CallOrderError: if the penalty is another one, the gradients were changed and there
            is no copy.
        """
        step = other._open
        self._follows_optimizer, self._loss = other._follows_optimizer, other._loss
        if step is None or not (same_penalty or other._task_gradient.loosen(step)):
            return
        unchanged = same_marks(step.gradients, other._live.all_gradients())
        self._open = carried_over(step, other._live, self._live, unchanged)

    def _begin(self, names: Names, gradients: Sequence[Tensor], remember: bool) -> OpenStep:
        self.refuse_unrecorded_step()
        if not self._state.steps:
            everything = self._live.names
            weights = zip(everything, self._live.weights(everything), strict=True)
            self._state.note_start(dict(weights), self._settings.first_anchor)
        if remember:
            self._live.remember(names)
        return OpenStep(names, mark(gradients), mark(self._live.parameters(names)), remember)

    def _extend(self, step: OpenStep, names: Names, gradients: Sequence[Tensor]) -> None:
        """Take in parameters that got their first gradient in a later pass of the step."""
        new = without(names, step.names)
        if step.remembered:
            self._live.remember(new)
        step.names += new
        step.weights = joined(step.weights, mark(self._live.parameters(new)))
        step.gradients = mark(gradients)

    def _notice_moved_weights(self, step: OpenStep) -> None:
        if same_marks(step.weights, self._live.parameters(step.names)):
            return
        with torch.no_grad():
            # The penalty's part can't be taken off later: it was computed at other weights.
            self._task_gradient.set_apart(step)
            self._live.remember(step.names)
            step.remembered = True
            step.weights = mark(self._live.parameters(step.names))

    def _moved(self, step: OpenStep) -> bool:
        """Whether weights moved since the step began, as far as is known; waits for the device."""
        if step.remembered:
            return self._live.have_moved(step.names)
        return not same_marks(step.weights, self._live.parameters(step.names))

    def _goes_on(self, step: OpenStep) -> bool:
        """Whether a backward pass that begins now accumulates onto the gradients of a step."""
        gradients = self._live.all_gradients()
        if not gradients or not share_tensors(step.gradients, gradients):
            return False
        # Zeroed in place, they belong to a new step.
        return same_marks(step.gradients, gradients) or formulas.any_nonzero(gradients)
