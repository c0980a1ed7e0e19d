"""The gradient that the task loss gave, whatever is done to the gradients afterwards."""

from collections.abc import Sequence

import torch
from torch import Tensor

from si_avalanche import formulas
from si_avalanche.errors import CallOrderError
from si_avalanche.live import LiveParameters
from si_avalanche.marks import mark, same_marks, share_tensors
from si_avalanche.open_step import OpenStep
from si_avalanche.settings import Settings
from si_avalanche.state import State, pick


class TaskGradient:
    """Recovers the task gradient of a step.

    Where nothing but the penalty is added to the gradients, the penalty's part is taken off again:
    that needs no memory. Where they are clipped, scaled or projected as well, a copy from the end
    of the backward pass is needed. Which of the two holds is seen in the first step of a task, if
    its loss is watched.

    :param live: the protected parameters.
    :param state: importance and anchor; only read.
    :param settings: whose gradient is wanted, and whether a copy is always kept.
    """

    def __init__(self, live: LiveParameters, state: State, settings: Settings) -> None:
        self._live = live
        self._state = state
        self._settings = settings
        self._copies: dict[str, Tensor] = {}
        self._residue: dict[str, Tensor] = {}

    @property
    def keeps(self) -> bool:
        """Whether a copy is kept in every step."""
        return self._settings.keep_gradient or bool(self._state.alters)

    @property
    def probing(self) -> bool:
        """Whether a copy is kept in the step to come, to see whether gradients are changed."""
        return self._state.alters is None

    def probe(self) -> None:
        """Keep a copy in the first step of a task, to see whether something changes gradients."""
        if not (self._state.alters or self._state.steps):
            self._state.alters = None

    @torch.no_grad()
    def before_backward(self, step: OpenStep | None) -> None:
        """Prepare for gradients to be added to those that are there.

        From a step that goes on, the penalty's part is taken off until the pass is over: processes
        that exchange what has accumulated may have it in different parameters, those that each has
        used so far.

        :param step: the step that goes on, or ``None`` for a new one: what is there then is
            nobody's that is known, as after a plugin's own backward passes, and does not count.
        """
        self._residue = {}
        if step is None:
            there = self._live.names_with_gradient()
            gradients = self._live.gradients(there)
            # Zeroed in place they are no residue; those set to None cost nothing here.
            if formulas.any_nonzero(gradients):
                pairs = zip(there, gradients, strict=True)
                self._residue = {name: gradient.clone() for name, gradient in pairs}
            return
        self._take_penalty_off(step)
        names = list(step.kept)
        if names and not step.rebased:
            torch._foreach_sub_(pick(step.kept, names), self._live.gradients(names))
            step.rebased = True

    @torch.no_grad()
    def undo_rebase(self, step: OpenStep) -> None:
        """Go back to what was there before, because the backward pass added nothing."""
        self.take(step)
        if step.taken_off:
            step.protected, step.strength = step.taken_off, step.strength_taken_off
            step.taken_off, step.has_penalty = [], True
            part = self.penalty_part(step.protected, step.strength)
            torch._foreach_add_(self._live.gradients(step.protected), part)
            step.gradients = mark(self._live.all_gradients())

    @torch.no_grad()
    def take(self, step: OpenStep) -> None:
        """Copy the gradients that a backward pass has brought, as far as copies are needed.

        Those of 16 bits always are: there, the sum with a strong penalty would leave nothing of
        the task gradient.
        """
        if step.rebased:
            names = list(step.kept)
            torch._foreach_add_(pick(step.kept, names), self._live.gradients(names))
            step.rebased = False
        if step.in_graph:
            return
        residue, self._residue = self._residue, {}
        everything = self.keeps or (self.probing and step.watched) or step.scale is not None
        new = [name for name in step.names if name not in step.kept]
        gradients = dict(zip(new, self._live.gradients(new), strict=True))
        for name, gradient in gradients.items():
            if everything or gradient.element_size() < 4 or name in residue:
                like = self._state.path_integral[name]
                copy = self._copies.get(name)
                if copy is None or copy.shape != like.shape or copy.dtype != like.dtype:
                    copy = self._copies[name] = torch.empty_like(like)
                step.kept[name] = copy.copy_(gradient)
                if name in residue:
                    copy.sub_(residue[name])

    def look(self, step: OpenStep, gradients: Sequence[Tensor]) -> None:
        """Note whether the gradients were changed since the end of the backward pass.

        :raises CallOrderError: if they were and there is no copy.
        """
        step.raw = same_marks(step.gradients, gradients)
        if not step.raw:
            self._note_alteration(step)
        if step.scale is not None:
            self._state.alters = True
            self.take(step)

    def set_apart(self, step: OpenStep) -> None:
        """Copy what is not copied yet, so that the penalty's part need not be known later.

        :raises CallOrderError: if the gradients were changed and there is no copy.
        """
        total = self._settings.gradient == "total"
        for name, gradient in zip(step.names, self._integrand(step, total), strict=True):
            step.kept[name] = gradient.clone()
        step.protected, step.strength, step.in_graph, step.raw = [], 0.0, False, False

    def loosen(self, step: OpenStep) -> bool:
        """Take the penalty off the gradients of a step that may go on under another penalty.

        :return: whether there is anything left of its gradients.
        :raises CallOrderError: if the gradients were changed and there is no copy.
        """
        gradients = self._live.all_gradients()
        unchanged = same_marks(step.gradients, gradients)
        if not share_tensors(step.gradients, gradients) or not (
            unchanged or formulas.any_nonzero(gradients)
        ):
            return False
        task = [gradient.clone() for gradient in self._integrand(step, total=False)]
        self._take_penalty_off(step)
        # What could not be taken off must not be added to.
        step.protected, step.strength = step.names if step.protected else [], 0.0
        step.kept = dict(zip(step.names, task, strict=True))
        step.in_graph = step.raw = False
        if unchanged:
            step.gradients = mark(gradients)
        return True

    def of(self, step: OpenStep) -> list[Tensor]:
        """Return the gradient that the path integral takes, in the dtype of the state.

        Where the weight did not move it is zero if it is a copy: a step that was skipped, by a
        fused optimiser or a guard, may have left it infinite.

        :raises CallOrderError: if the gradients are gone or changed and there is no copy.
        """
        gradients = self._integrand(step, self._settings.gradient == "total")
        if self.probing and step.watched:
            self._state.alters = False
            if not self.keeps:
                self._copies.clear()
        if step.scale is not None:
            gradients = list(torch._foreach_div(gradients, step.scale))
        if step.kept:
            moved = zip(self._live.weights(step.names), self._live.before(step.names), strict=True)
            gradients = [
                gradient.masked_fill(now == before, 0.0) if name in step.kept else gradient
                for name, gradient, (now, before) in zip(step.names, gradients, moved, strict=True)
            ]
        return gradients

    def penalty_part(self, names: Sequence[str], strength: float | Tensor) -> list[Tensor]:
        """The penalty's gradient at the weights before the step, times a strength."""
        anchor, importance = pick(self._state.anchor, names), pick(self._state.importance, names)
        return formulas.penalty_gradient(self._live.before(names), anchor, importance, strength)

    def _take_penalty_off(self, step: OpenStep) -> None:
        step.taken_off = []
        gradients = self._live.all_gradients()
        if step.in_graph or not step.protected or not same_marks(step.gradients, gradients):
            return
        part = self.penalty_part(step.protected, step.strength)
        torch._foreach_sub_(self._live.gradients(step.protected), part)
        if step.raw:
            kept = [name for name in step.protected if name in step.kept]
            for live, copy in zip(self._live.gradients(kept), pick(step.kept, kept), strict=True):
                live.copy_(copy)  # exactly, not by a difference
        step.taken_off, step.strength_taken_off = step.protected, step.strength
        step.protected, step.strength, step.has_penalty = [], 0.0, False

    def _integrand(self, step: OpenStep, total: bool) -> list[Tensor]:
        """The gradient of the task, or in total, still scaled, by the names of the step."""
        if not same_marks(step.gradients, self._live.all_gradients()):
            self._note_alteration(step)
        live = [name for name in step.names if name not in step.kept]
        gradients = {
            name: gradient.to(self._state.path_integral[name].dtype)
            for name, gradient in zip(live, self._live.gradients(live), strict=True)
        }
        gradients |= step.kept
        # Copies lack the penalty's part, live gradients have it.
        other = [n for n in step.protected if (n in step.kept) == total]
        if other:
            part = self.penalty_part(other, step.strength)
            factor = step.taken_from_live if total else -1.0
            right = torch._foreach_add(pick(gradients, other), part, alpha=factor)
            gradients.update(zip(other, right, strict=True))
        return pick(gradients, step.names)

    def _note_alteration(self, step: OpenStep) -> None:
        if not step.all_are_kept:
            raise CallOrderError(
                "The gradients were removed or changed between the penalty and "
                "update_running_sum(), and no copy of them was kept. Clip, unscale or project them "
                "before add_penalty_gradient(), or call watch(loss) before every backward pass and "
                "do it whenever you like; with penalty() in the loss it is not supported. Call "
                "zero_grad() after update_running_sum(). If it was the optimiser, as SGD with "
                "nesterov=True and foreach does, foreach=False helps too. If it happens in some "
                "steps, but not in the first of a task (also in Avalanche), pass "
                "keep_gradient=True."
            )
        self._state.alters = True
