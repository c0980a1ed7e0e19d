"""The three calls of the original class: the penalty in the loss, each step recorded by hand."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from si_avalanche import formulas
from si_avalanche.errors import CallOrderError
from si_avalanche.iteration import Marks, at_end_of_backward
from si_avalanche.shards import local, places_alike, summed
from si_avalanche.step import AtTheStep
from si_avalanche.tracked import Lane, Tracked


class ThreeCalls:
    """Records steps between the backward pass of the penalty and ``update_running_sum()``.

    The task gradient is the live one less the penalty's, which is known in closed form: from one
    backward pass, at the price of the digits that a strong penalty drowns.
    """

    def __init__(self, tracked: Tracked, at_the_step: AtTheStep) -> None:
        self._tracked, self._at_the_step = tracked, at_the_step
        self._open: Lane | None = None
        self._gradients, self._weights = Marks([]), Marks([])
        self._pulls: list[tuple[tuple[str, ...], Tensor]] = []
        self._pass, self._pulls_of_pass = -1, list(self._pulls)

    def penalty(self) -> Tensor:
        """Return the surrogate loss; see ``SynapticIntelligence.penalty``."""
        tracked = self._tracked
        if tracked.has_changed:
            self.end_task()
            tracked.follow()
        trained = [p for p in tracked.parameters.values() if p.requires_grad]
        places, lane = tracked.lane_of(trained).important
        names = lane.names if places and tracked.c else ()
        if names:
            parts = [lane.part(places) for places in places_alike(lane.parameters)]
            value = formulas.total([self._penalty_of(part) for part in parts])
        else:
            like = next(iter(tracked.state.anchor.values()), torch.zeros(()))
            value = torch.zeros((), dtype=like.dtype, device=like.device, requires_grad=True)
        if value.requires_grad:
            value.register_hook(partial(self._goes_backward, names))
        return value

    def _penalty_of(self, lane: Lane) -> Tensor:
        pairs = zip(lane.parameters, lane.importance, strict=True)
        weights = [local(parameter).to(omega.dtype) for parameter, omega in pairs]
        value = formulas.penalty(weights, lane.anchor, lane.importance, self._tracked.c)
        return summed(value, lane.parameters[0])

    @torch.no_grad()
    def _goes_backward(self, names: tuple[str, ...], factor: Tensor) -> None:
        """Note the penalty's factor in the loss, and await the end of the backward pass."""
        self._refuse_attached("penalty() went backward", "penalty() out of the loss")
        number = torch._C._current_graph_task_id()
        if number != self._pass:
            self._pass, self._pulls_of_pass = number, []
            lane = self._tracked.lane_with_gradients()
            before, goes_on = (
                Marks([p.grad for p in lane.parameters]),
                self._gradients.go_on_in(lane),
            )
            at_end_of_backward(partial(self._pass_ends, before, goes_on))
        self._pulls_of_pass.append((names, self._tracked.c * factor.detach()))

    @torch.no_grad()
    def _pass_ends(self, before: Marks, goes_on: bool) -> None:
        """Open the step, or go on with it, if the pass brought gradients.

        It brought none if they went elsewhere, as with ``torch.autograd.grad``.
        """
        tracked, pulls, self._pass = self._tracked, self._pulls_of_pass, -1
        lane, has_pull = tracked.lane_with_gradients(), any(names for names, _ in pulls)
        gradients = [p.grad for p in lane.parameters]
        if before.are_those_of(gradients) and (has_pull or self._open is not None):
            return
        _ = lane.gradients  # refuses those that are sparse
        self.refuse_unrecorded_step()
        if self._open is None or not goes_on:
            tracked.begin_step()
            self._open, self._pulls = lane.part([]), []
        known = self._open.names
        new = lane.part([k for k, name in enumerate(lane.names) if name not in known])
        if new.names:
            torch._foreach_copy_(tracked.before(new), new.weights)
        self._open, self._pulls = lane, self._pulls + pulls
        self._gradients, self._weights = Marks(gradients), Marks(list(lane.parameters))

    @torch.no_grad()
    def update_running_sum(self) -> None:
        """Add the step just made; see ``SynapticIntelligence.update_running_sum``."""
        self._refuse_attached("update_running_sum() was called", "the call out")
        lane, tracked = self._open, self._tracked
        if lane is None:
            raise CallOrderError(
                "update_running_sum() has no step to record: in every step, also of the first "
                "task, add penalty() to the loss before backward(), then step the optimiser, once. "
                "Or attach() the optimiser, and leave both calls out."
            )
        # A skipped step, perhaps for infinite gradients.
        stayed = self._weights.are_those_of(list(lane.parameters))
        lane = self._with_gradients_as_they_were(lane)
        before, weights, integrands = tracked.before(lane), lane.weights, list(lane.gradients)
        for names, strength in self._pulls if tracked.options["gradient"] == "task" else ():
            places = [k for k, name in enumerate(lane.names) if name in names]
            part = lane.part(places)
            mine, start = ([each[place] for place in places] for each in (integrands, before))
            kept = part.anchor, part.importance
            less = formulas.add_penalty_gradient(mine, start, *kept, -strength)
            for place, integrand in zip(places, less, strict=True):
                integrands[place] = integrand
        if stayed:
            rows = zip(integrands, before, weights, strict=True)
            integrands = [g.masked_fill(start == end, 0.0) for g, start, end in rows]
        if lane.names:
            formulas.add_path_increment_(lane.path_integral, integrands, before, weights)
        self._open, tracked.state.steps = None, tracked.state.steps + 1

    def _with_gradients_as_they_were(self, lane: Lane) -> Lane:
        """Return the lane of those whose gradient is still that of the backward pass.

        Those of heads that are not in use may have been taken away, so that these do not move.
        """
        gradients = [p.grad for p in lane.parameters]
        there = [k for k, gradient in enumerate(gradients) if gradient is not None]
        gone = lane.part([k for k, gradient in enumerate(gradients) if gradient is None])
        if not self._gradients.are_those_of(gradients) or self._have_moved(gone):
            raise CallOrderError(
                "The gradients were removed or changed between backward() and "
                "update_running_sum(), where the task gradient is the live one less the penalty's. "
                "Call zero_grad() after update_running_sum(). To clip, unscale or project, or with "
                "an optimiser that changes gradients itself, such as SGD with nesterov=True and "
                "foreach, use attach(optimizer) instead of the three calls."
            )
        return lane.part(there)

    def _have_moved(self, lane: Lane) -> bool:
        """Whether a weight differs from its copy; waits for the device."""
        pairs = zip(lane.weights, self._tracked.before(lane), strict=True)
        return lane.anywhere(any(not torch.equal(now.to(old.dtype), old) for now, old in pairs))

    def _refuse_attached(self, what: str, call: str) -> None:
        if self._at_the_step.optimizers:
            raise CallOrderError(
                f"{what} although an optimiser is attached, at whose steps the penalty is added "
                f"and the path integral recorded. Leave {call}, or detach()."
            )

    def refuse_unrecorded_step(self) -> None:
        """Refuse to lose a step that was begun and moved weights (``CallOrderError``)."""
        if self._open is not None and self._have_moved(self._open):
            raise CallOrderError(
                "Weights moved in a step that update_running_sum() has not recorded. Call it once "
                "after every optimiser step. Optimisers that evaluate a closure several times in "
                "one step, such as LBFGS, are not supported."
            )

    def end_task(self) -> None:
        """Forget an open step that moved nothing, and refuse one that moved weights."""
        self.refuse_unrecorded_step()
        self._open = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out a step that is open: a copy of the model has no gradients."""
        return {"tracked": self._tracked, "at_the_step": self._at_the_step}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Begin without one."""
        self.__init__(**state)  # type: ignore[misc]
