"""The gradient that the task loss gave, whatever is done to the gradients afterwards."""

from collections.abc import Sequence

import torch
from torch import Tensor

from si_avalanche import formulas
from si_avalanche.errors import CallOrderError
from si_avalanche.kernels import Kernels
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
    :param state: whether gradients were seen to be changed is noted in it.
    :param settings: whose gradient is wanted, and whether a copy is always kept.
    :param kernels: the arithmetic.
    """

    def __init__(
        self, live: LiveParameters, state: State, settings: Settings, kernels: Kernels
    ) -> None:
        self._live = live
        self._state = state
        self._kernels = kernels
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

    def undo_rebase(self, step: OpenStep) -> None:
        """Go back to what was there before, because the backward pass added nothing."""
        self.take(step)
        if step.taken_off:
            step.protected, step.strength = step.taken_off, step.strength_taken_off
            step.taken_off, step.has_penalty = (), True
            self._pull(step.protected, self._live.gradients(step.protected), step.strength)
            step.gradients = mark(self._live.all_gradients())

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
        if not (everything or residue or self._live.has_narrow):
            return
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
        self._copy(step, total=self._settings.gradient == "total")
        step.protected, step.strength, step.in_graph, step.raw = (), 0.0, False, False

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
        self._copy(step, total=False)
        self._take_penalty_off(step)
        # What could not be taken off must not be added to.
        step.protected, step.strength = step.names if step.protected else (), 0.0
        step.in_graph = step.raw = False
        if unchanged:
            step.gradients = mark(gradients)
        return True

    def integrate(self, step: OpenStep, moved_only: bool) -> None:
        """Add the step to the path integral, in place; the copies of the weights are used up.

        :param step: the step, whose copies of gradients are used up as well.
        :param moved_only: whether the weights may all have stayed where they were. Then, and where
            there are copies, gradients may be infinite: the step was skipped for that reason.
        :raises CallOrderError: if the gradients are gone or changed and there is no copy.
        """
        total = self._settings.gradient == "total"
        self._refuse_lost(step)
        if self.probing and step.watched:
            self._state.alters = False
            if not self.keeps:
                self._copies.clear()
        moved_only = moved_only or bool(step.kept)
        taken_off = -step.taken_from_live * step.strength if total else step.strength
        if step.scale is not None:
            torch._foreach_div_(list(step.kept.values()), step.scale)
            taken_off = taken_off / step.scale
        with_other, right = self._sorted(step, total)
        for names, strength in ((with_other, taken_off), (right, None)):
            if names:
                self._kernels.of(names).end(self._gradients(step, names), strength, moved_only)

    def _take_penalty_off(self, step: OpenStep) -> None:
        step.taken_off = ()
        gradients = self._live.all_gradients()
        if step.in_graph or not step.protected or not same_marks(step.gradients, gradients):
            return
        self._pull(step.protected, self._live.gradients(step.protected), -step.strength)
        if step.raw:
            kept = [name for name in step.protected if name in step.kept]
            for live, copy in zip(self._live.gradients(kept), pick(step.kept, kept), strict=True):
                live.copy_(copy)  # exactly, not by a difference
        step.taken_off, step.strength_taken_off = step.protected, step.strength
        step.protected, step.strength, step.has_penalty = (), 0.0, False

    def _pull(
        self, names: tuple[str, ...], gradients: Sequence[Tensor], strength: float | Tensor
    ) -> None:
        if names:
            self._kernels.of(names).pull(gradients, strength)

    def _copy(self, step: OpenStep, total: bool) -> None:
        """Copy the gradient of the task, or in total, still scaled, of all names of the step."""
        self._refuse_lost(step)
        with_other, _ = self._sorted(step, total)
        for name, gradient in zip(step.names, self._gradients(step, step.names), strict=True):
            if name not in step.kept:
                like = self._state.path_integral[name]
                step.kept[name] = gradient.to(like.dtype, copy=True)
        strength = step.taken_from_live * step.strength if total else -step.strength
        self._pull(with_other, pick(step.kept, with_other), strength)

    def _sorted(self, step: OpenStep, total: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The names whose gradient has the penalty's part if it should not, or the other way round.

        Copies lack that part, live gradients have it.

        :return: those names, and the others.
        """
        if not step.kept and (total or len(step.protected) == len(step.names)):
            return ((), step.names) if total else (step.names, ())
        wrong = {name for name in step.protected if (name in step.kept) == total}
        right = tuple(name for name in step.names if name not in wrong)
        return tuple(name for name in step.names if name in wrong), right

    def _gradients(self, step: OpenStep, names: Sequence[str]) -> list[Tensor]:
        """The copies of gradients, and the live ones where there is no copy."""
        if not step.kept:
            return self._live.gradients(names)
        live = [name for name in names if name not in step.kept]
        gradients = dict(zip(live, self._live.gradients(live), strict=True)) | step.kept
        return pick(gradients, names)

    def _refuse_lost(self, step: OpenStep) -> None:
        if not same_marks(step.gradients, self._live.all_gradients()):
            self._note_alteration(step)

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
