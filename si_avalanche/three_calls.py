"""The three calls of the original class: the penalty in the loss, each step recorded by hand."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from si_avalanche import formulas
from si_avalanche.errors import CallOrderError
from si_avalanche.iteration import at_end_of_backward
from si_avalanche.marks import Marks, mark, same_marks, share_tensors
from si_avalanche.shards import local, places_alike, summed
from si_avalanche.step import AtTheStep
from si_avalanche.tracked import Lane, Tracked


class ThreeCalls:
    """Records steps between the backward pass of the penalty and ``update_running_sum()``.

    The task gradient is the live one less the penalty's, which is known in closed form: from one
    backward pass, at the price of the digits that a strong penalty drowns.

    :param tracked: the protected parameters; the path integral is changed in place.
    :param at_the_step: must not be attached to anything meanwhile.
    """

    def __init__(self, tracked: Tracked, at_the_step: AtTheStep) -> None:
        self._tracked, self._at_the_step = tracked, at_the_step
        self._open: Lane | None = None
        self._gradients, self._weights = mark([]), mark([])
        self._pulls: list[tuple[tuple[str, ...], Tensor]] = []
        self._pass, self._pulls_of_pass = -1, list(self._pulls)

    def penalty(self) -> Tensor:
        """Return the surrogate loss; see ``SynapticIntelligence.penalty``."""
        tracked = self._tracked
        if tracked.has_changed:
            self.refuse_unrecorded_step()
            self._open = None
            tracked.follow()
        trained = [p for p in tracked.parameters.values() if p.requires_grad]
        places, lane = tracked.lane_of(trained).important
        names = lane.names if places and tracked.c else ()
        if names:
            value = self._value_of(lane)
        else:
            like = next(iter(tracked.state.anchor.values()), torch.zeros(()))
            value = torch.zeros((), dtype=like.dtype, device=like.device, requires_grad=True)
        if value.requires_grad:
            value.register_hook(partial(self._penalty_goes_backward, names))
        return value

    def _value_of(self, lane: Lane) -> Tensor:
        """Return the penalty of some parameters, with what other processes hold of them."""
        values = []
        for places in places_alike(lane.parameters):
            part = lane.part(places)
            pairs = zip(part.parameters, part.importance, strict=True)
            weights = [local(parameter).to(omega.dtype) for parameter, omega in pairs]
            value = formulas.penalty(weights, part.anchor, part.importance, self._tracked.c)
            values.append(summed(value, part.parameters[0]))
        return formulas.total(values)

    @torch.no_grad()
    def _penalty_goes_backward(self, names: tuple[str, ...], factor: Tensor) -> None:
        """Note the penalty's factor in the loss, and await the end of the backward pass."""
        if self._at_the_step.optimizers:
            raise CallOrderError(
                "penalty() went backward although an optimiser is attached, at whose steps the "
                "penalty's gradient is added already. Leave penalty() out of the loss, or detach()."
            )
        number = torch._C._current_graph_task_id()
        if number != self._pass:
            self._pass, self._pulls_of_pass = number, []
            lane = self._with_gradient()
            there = [p.grad for p in lane.parameters]
            goes_on = share_tensors(self._gradients, there) and (
                # Zeroed in place, they belong to a new step.
                same_marks(self._gradients, there)
                or lane.anywhere(formulas.any_nonzero(lane.gradients))
            )
            at_end_of_backward(partial(self._pass_ends, mark(there), goes_on))
        self._pulls_of_pass.append((names, self._tracked.c * factor.detach()))

    @torch.no_grad()
    def _pass_ends(self, before: Marks, goes_on: bool) -> None:
        """Open the step, or go on with it, if the pass brought gradients.

        It brought none if they went elsewhere, as with ``torch.autograd.grad``.
        """
        tracked, pulls, self._pass = self._tracked, self._pulls_of_pass, -1
        lane = self._with_gradient()
        gradients = [p.grad for p in lane.parameters]
        has_pull = any(names for names, _ in pulls)
        if same_marks(before, gradients) and (has_pull or self._open is not None):
            return
        _ = lane.gradients  # refuses those that are sparse
        self.refuse_unrecorded_step()
        if self._open is None or not goes_on:
            tracked.begin_step()
            self._open, self._pulls = None, []
        known = () if self._open is None else self._open.names
        new = lane.part([k for k, name in enumerate(lane.names) if name not in known])
        if new.names:
            torch._foreach_copy_(tracked.before(new), new.weights)
        self._open, self._pulls = lane, self._pulls + pulls
        self._gradients, self._weights = mark(gradients), mark(lane.parameters)

    def _with_gradient(self) -> Lane:
        everything = self._tracked.parameters.values()
        return self._tracked.lane_of([p for p in everything if p.grad is not None])

    @torch.no_grad()
    def update_running_sum(self) -> None:
        """Add the step just made; see ``SynapticIntelligence.update_running_sum``."""
        if self._at_the_step.optimizers:
            raise CallOrderError(
                "update_running_sum() was called although an optimiser is attached, whose steps "
                "are recorded already. Leave the call out, or detach()."
            )
        lane, tracked = self._open, self._tracked
        if lane is None:
            raise CallOrderError(
                "update_running_sum() has no step to record: in every step, also of the first "
                "task, add penalty() to the loss before backward(), then step the optimiser, "
                "once. Or attach() the optimiser, and leave both calls out."
            )
        if not lane.names:
            self._open, tracked.state.steps = None, tracked.state.steps + 1
            return
        lane = self._with_gradients_as_they_were(lane)
        before, weights = tracked.before(lane), lane.weights
        integrands = list(lane.gradients)
        pulls = self._pulls if tracked.options["gradient"] == "task" else []
        for names, strength in pulls:
            places = [k for k, name in enumerate(lane.names) if name in names]
            part = lane.part(places)
            mine, start = ([each[place] for place in places] for each in (integrands, before))
            kept = part.anchor, part.importance
            less = formulas.add_penalty_gradient(mine, start, *kept, -strength)
            for place, integrand in zip(places, less, strict=True):
                integrands[place] = integrand
        if same_marks(self._weights, self._open.parameters):
            # A skipped step, perhaps for infinite gradients.
            rows = zip(integrands, before, weights, strict=True)
            integrands = [g.masked_fill(start == end, 0.0) for g, start, end in rows]
        formulas.add_path_increment_(lane.path_integral, integrands, before, weights)
        self._open, tracked.state.steps = None, tracked.state.steps + 1

    def _with_gradients_as_they_were(self, lane: Lane) -> Lane:
        """Return the lane of those whose gradient is still that of the backward pass.

        Those of heads that are not in use may have been taken away, so that these do not move.
        """
        there = [k for k, p in enumerate(lane.parameters) if p.grad is not None]
        kept = (
            [self._gradients.tensors[k] for k in there],
            [self._gradients.versions[k] for k in there],
        )
        gone = lane.part([k for k in range(len(lane.names)) if k not in set(there)])
        is_as_it_was = same_marks(Marks(*kept), [lane.parameters[k].grad for k in there])
        if not is_as_it_was or (gone.names and self._have_moved(gone)):
            raise CallOrderError(
                "The gradients were removed or changed between backward() and "
                "update_running_sum(), where the task gradient is the live one less the penalty's. "
                "Clip, unscale or project with attach(optimizer) instead of the three calls. Call "
                "zero_grad() after update_running_sum(). If it was the optimiser, as SGD with "
                "nesterov=True and foreach does, attach it or pass foreach=False."
            )
        return lane.part(there)

    def _have_moved(self, lane: Lane) -> bool:
        """Whether a weight differs from its copy; waits for the device."""
        pairs = zip(lane.weights, self._tracked.before(lane), strict=True)
        moved = not all(torch.equal(now.to(before.dtype), before) for now, before in pairs)
        return lane.anywhere(moved)

    def refuse_unrecorded_step(self) -> None:
        """Refuse to lose a step that was begun and moved weights; waits for the device.

        :raises CallOrderError: if there is one.
        """
        if self._open is not None and self._have_moved(self._open):
            raise CallOrderError(
                "Weights moved in a step that update_running_sum() has not recorded. Call it once "
                "after every optimiser step. Optimisers that evaluate a closure several times in "
                "one step, such as LBFGS, are not supported."
            )

    def end_task(self) -> None:
        """Forget an open step that moved nothing.

        :raises CallOrderError: as :meth:`refuse_unrecorded_step`.
        """
        self.refuse_unrecorded_step()
        self._open = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out a step that is open: a copy of the model has no gradients."""
        return {"_tracked": self._tracked, "_at_the_step": self._at_the_step}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Begin without one."""
        self.__init__(**{name[1:]: value for name, value in state.items()})  # type: ignore[misc]
