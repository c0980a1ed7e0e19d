"""One optimiser step, from the backward pass to the path integral."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor
from torch.autograd import Variable

from si_avalanche import formulas
from si_avalanche.errors import CallOrderError, ParameterSelectionError
from si_avalanche.live import LiveParameters, Marks, mark, same_marks
from si_avalanche.settings import Gradient
from si_avalanche.state import State, pick


@dataclass
class _OpenStep:
    """What is known between the backward pass and the end of the step.

    :param names: parameters whose weights were copied.
    :param protected: those of them whose gradient contains the penalty's.
    :param strength: the factor of the penalty's gradient in theirs.
    :param in_closed_form: whether the penalty's gradient was added, not brought by autograd.
    :param marks: the gradients at the end of the backward pass or of the addition.
    :param kept: task gradients that the addition of the penalty's would have rounded away.
    """

    names: list[str]
    protected: list[str]
    strength: float | Tensor
    in_closed_form: bool
    marks: Marks
    kept: dict[str, Tensor] = field(default_factory=dict)


class StepRecorder:
    """Turns optimiser steps into the path integral of the task loss.

    :param live: the protected parameters.
    :param state: importance and anchor are read, the path integral is changed in place.
    :param gradient: whose gradient the path integral takes.
    """

    def __init__(self, live: LiveParameters, state: State, gradient: Gradient) -> None:
        self._live = live
        self._state = state
        self._gradient = gradient
        self._open: _OpenStep | None = None
        self._importance_marks: Marks = []
        self._important: list[str] = []

    def important_names(self) -> list[str]:
        """Return the parameters with an importance other than zero.

        Importance is looked at, and the device waited for, only after it has been changed.
        """
        names = self._live.trainable_names
        importance = pick(self._state.importance, names)
        if not same_marks(self._importance_marks, importance):
            pairs = zip(names, importance, strict=True)
            self._important = [name for name, omega in pairs if omega.any()]
            self._importance_marks = mark(importance)
        return self._important

    @torch.no_grad()
    def add_penalty_gradient(self, c: float) -> None:
        """Open a step: copy the weights, add the penalty's gradient to the gradients in place.

        :param c: the strength.
        :raises CallOrderError: if no gradient exists, or these gradients have it already.
        """
        live = self._live
        names = live.names_with_gradient()
        if not names:
            raise CallOrderError(
                "add_penalty_gradient() found no gradient: call it after the task loss's "
                "backward() and before the optimiser's step()."
            )
        gradients = dict(zip(names, live.gradients(names), strict=True))
        _refuse_sparse(gradients)
        self._refuse_second_penalty(list(gradients.values()))
        self.refuse_unrecorded_step()
        live.remember(names)
        protected = _intersection(self.important_names(), names) if c else []
        # In 16 bits the sum with a strong penalty leaves nothing of the task gradient.
        kept = {n: gradients[n].clone() for n in protected if gradients[n].element_size() < 4}
        if protected:
            torch._foreach_add_(pick(gradients, protected), self._penalty_gradient(protected, c))
        self._open = _OpenStep(names, protected, c, True, mark(list(gradients.values())), kept)

    def open_in_backward(self, protected: list[str], c: float, factor: Tensor) -> None:
        """Open a step from within the backward pass of the penalty.

        :param protected: the parameters that get the penalty's gradient.
        :param c: the strength.
        :param factor: the factor of the penalty in the loss, a 0-dimensional tensor.
        """
        accumulates = self._open is not None and self._goes_on(self._open)
        before = mark(self._gradients())
        settle = partial(self._settle, protected, c * factor.detach(), before, accumulates)
        # The one place where autograd tells that all gradients have arrived.
        Variable._execution_engine.queue_callback(settle)

    @torch.no_grad()
    def _settle(
        self, protected: list[str], strength: Tensor, before: Marks, accumulates: bool
    ) -> None:
        """Open the step at the end of a backward pass, if it brought the penalty's gradient.

        It did not if the gradients went elsewhere, as with ``torch.autograd.grad``. Strengths add
        up over the backward passes of one step, and over several penalties in one pass.
        """
        names, gradients, step = self._live.names, self._gradients(), self._open
        is_open = step is not None and same_marks(step.marks, gradients)
        if same_marks(before, gradients) and (protected or is_open):
            return
        _refuse_sparse(dict(zip(self._live.names_with_gradient(), gradients, strict=True)))
        self.refuse_unrecorded_step()
        if step is not None and (accumulates or (is_open and not step.in_closed_form)):
            strength = strength + step.strength
        self._live.remember(names)
        self._open = _OpenStep(names, protected, strength, False, mark(gradients))

    @torch.no_grad()
    def close(self) -> None:
        """Add the step to the path integral, in place.

        :raises CallOrderError: if no step is open, or its gradients are gone or changed.
        """
        step, names = self._open, self._live.names_with_gradient()
        if step is None:
            raise CallOrderError(
                "update_running_sum() has no step to record: in every step, also of the first "
                "task, either add penalty() to the loss before backward(), or call "
                "add_penalty_gradient() after it; then step the optimiser."
            )
        if not names or not self._gradients_are_those_of(step):
            raise CallOrderError(
                "The gradients were removed or changed between the penalty and "
                "update_running_sum(). Clip, unscale or project them after backward() and before "
                "add_penalty_gradient() (in Avalanche: in after_backward, by a plugin listed "
                "before SIPlugin); bring penalty() in the last of several backward passes; call "
                "zero_grad() after update_running_sum(); and if it was the optimiser, as SGD with "
                "nesterov=True and foreach does, pass it foreach=False."
            )
        formulas.add_path_increment_(
            pick(self._state.path_integral, names),
            self._integrand(names, step),
            self._live.before(names),
            self._live.weights(names),
        )
        self._state.steps += 1
        self._open = None

    def refuse_unrecorded_step(self) -> None:
        """Refuse to lose a step that was begun and moved weights; waits for the device.

        :raises CallOrderError: if there is one.
        """
        if self._open is not None and self._live.have_moved(self._open.names):
            raise CallOrderError(
                "Weights moved in a step that update_running_sum() has not recorded. Call it once "
                "after every optimiser step. Optimisers that evaluate a closure several times in "
                "one step, such as LBFGS, are not supported."
            )

    def drop_idle_step(self) -> None:
        """Forget an open step that moved nothing."""
        self._open = None

    def _goes_on(self, step: _OpenStep) -> bool:
        """Whether a backward pass that begins now accumulates onto the gradients of a step."""
        gradients = self._gradients()
        if step.in_closed_form or not gradients or not _same_tensors(step.marks, gradients):
            return False
        # Zeroed in place, they belong to a new step.
        return same_marks(step.marks, gradients) or any(bool(g.any()) for g in gradients)

    def _gradients(self) -> list[Tensor]:
        return self._live.gradients(self._live.names_with_gradient())

    def _gradients_are_those_of(self, step: _OpenStep) -> bool:
        return same_marks(step.marks, self._gradients())

    def _refuse_second_penalty(self, gradients: list[Tensor]) -> None:
        step = self._open
        if step is None:
            return
        if step.in_closed_form and _same_tensors(step.marks, gradients):
            raise CallOrderError(
                "add_penalty_gradient() was called twice in one step: call it once, after all "
                "backward passes of the step, then step the optimiser, then call "
                "update_running_sum(), also if the optimiser skipped its step."
            )
        if not step.in_closed_form and step.protected and self._gradients_are_those_of(step):
            raise CallOrderError(
                "add_penalty_gradient() found the penalty's gradient there already, because the "
                "loss contained penalty(). Use one or the other."
            )

    def _integrand(self, names: list[str], step: _OpenStep) -> list[Tensor]:
        """The gradient that the path integral takes, in the dtype of the state."""
        gradients = {
            name: gradient.to(self._state.path_integral[name].dtype)
            for name, gradient in zip(names, self._live.gradients(names), strict=True)
        }
        if self._gradient == "total":
            return list(gradients.values())
        for name, kept in step.kept.items():
            gradients[name] = kept.to(gradients[name].dtype)
        protected = [n for n in _intersection(step.protected, names) if n not in step.kept]
        if protected:
            part = self._penalty_gradient(protected, step.strength)
            rest = torch._foreach_sub(pick(gradients, protected), part)
            gradients.update(zip(protected, rest, strict=True))
        return list(gradients.values())

    def _penalty_gradient(self, names: list[str], strength: float | Tensor) -> list[Tensor]:
        """The penalty's gradient at the weights before the step."""
        anchor, importance = pick(self._state.anchor, names), pick(self._state.importance, names)
        return formulas.penalty_gradient(self._live.before(names), anchor, importance, strength)


def _intersection(names: Sequence[str], others: Sequence[str]) -> list[str]:
    wanted = set(others)
    return [name for name in names if name in wanted]


def _same_tensors(marks: Marks, tensors: Sequence[Tensor]) -> bool:
    return bool({id(tensor) for tensor, _ in marks} & {id(tensor) for tensor in tensors})


def _refuse_sparse(gradients: Mapping[str, Tensor]) -> None:
    for name, gradient in gradients.items():
        if gradient.layout != torch.strided:
            raise ParameterSelectionError(
                f"The gradient of {name!r} is sparse ({gradient.layout}), which is not supported. "
                f"Use sparse=False in its layer, or leave it out with exclude=[{name!r}]."
            )
