"""An iteration of a loop in which others act: what its loss brings, and who moves weights."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.amp import GradScaler
from torch.autograd import Variable

from si_avalanche import formulas
from si_avalanche.errors import CallOrderError
from si_avalanche.shards import anywhere, local
from si_avalanche.step import AtTheStep, scale_of
from si_avalanche.tracked import Lane, Tracked


class Marks:
    """Tensors, kept alive, with the counts of their changes in place as far as PyTorch counts."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.tensors, self._versions = list(tensors), [tensor._version for tensor in tensors]

    def are_those_of(self, tensors: Sequence[Tensor | None]) -> bool:
        """Whether these are the very tensors, not known to be changed; ``None`` may be any."""
        rows = zip(self.tensors, self._versions, tensors, strict=False)
        return len(self.tensors) == len(tensors) and all(
            now is None or (now is tensor and now._version == version)
            for tensor, version, now in rows
        )

    def go_on_in(self, lane: Lane) -> bool:
        """Whether a backward pass that finds these gradients adds to those that were marked."""
        gradients = [p.grad for p in lane.parameters]
        if set(map(id, self.tensors)).isdisjoint(map(id, gradients)):
            return False
        # Zeroed in place, they belong to a new step.
        return self.are_those_of(gradients) or lane.anywhere(formulas.any_nonzero(lane.gradients))


def at_end_of_backward(call: Callable[[], None]) -> None:
    """Call a function when the backward pass that is under way has brought all its gradients."""
    # The one place where autograd tells; queued a second time from there, to come after what
    # data-parallel wrappers queue during the pass.
    queue = Variable._execution_engine.queue_callback
    queue(partial(queue, call))


class Iteration:
    """Sees what a backward pass brings, and whether nobody but an optimiser moves the weights.

    Gradients may accumulate over several passes. What others have left in them before a pass of the
    loss, or do to them after it, is not the loss's: what it brings is kept for the step.
    """

    def __init__(self, tracked: Tracked, at_the_step: AtTheStep) -> None:
        self._tracked, self._at_the_step = tracked, at_the_step
        self._seen = self._weights = Marks([])
        self._copies: list[Tensor] = []
        self._awaited, self._steps = False, 0
        self._excess: Tensor | None = None

    def watch(self, loss: Tensor, scaler: GradScaler | None = None) -> None:
        """Await the backward pass of a loss, and keep what it brings.

        :param loss: any tensor of one entry; it gets a hook if it requires a gradient.
        :param scaler: what may scale it on its way.
        :raises CallOrderError: from the backward pass, if a factor of the loss is not known.
        """

        def hook(factor: Tensor) -> None:
            self._awaited = False
            self._note_factor(factor.detach().max(), scale_of(scaler, []))
            self._begin_pass(scale_of(scaler, self._at_the_step.optimizers))

        self._awaited = loss.requires_grad
        if loss.requires_grad:
            loss.register_hook(hook)

    def refuse_other_loss(self) -> None:
        """Refuse gradients that are not those of the loss (``CallOrderError``)."""
        if self._awaited and self._tracked.lane_with_gradients().names:
            raise CallOrderError(
                "The backward pass did not go through the loss that SIPlugin found: something "
                "replaced strategy.loss after SIPlugin's before_backward; list that plugin before "
                "SIPlugin."
            )

    @torch.no_grad()
    def _begin_pass(self, scale: Tensor | None) -> None:
        there = self._tracked.lane_with_gradients()
        if not self._seen.go_on_in(there):
            self._at_the_step.kept.clear()
        self._add(there, -1.0, scale)
        at_end_of_backward(partial(self._end_pass, scale))

    @torch.no_grad()
    def _end_pass(self, scale: Tensor | None) -> None:
        there = self._tracked.lane_with_gradients()
        self._add(there, 1.0, scale)
        self._seen = Marks([p.grad for p in there.parameters])

    def _add(self, lane: Lane, sign: float, scale: Tensor | None) -> None:
        kept = self._at_the_step.kept
        columns = zip(lane.parameters, lane.gradients, lane.path_integral, strict=True)
        for parameter, gradient, path in columns:
            unscaled = gradient if scale is None else gradient / scale
            kept.setdefault(parameter, torch.zeros_like(path)).add_(unscaled, alpha=sign)

    def _note_factor(self, factor: Tensor, scale: Tensor | None) -> None:
        """Note a factor of the loss; look at it at once on the CPU, and in the first step."""
        excess = factor if scale is None else factor / scale.to(factor.device)
        self._excess = excess if self._excess is None else torch.maximum(self._excess, excess)
        if factor.device.type != "cpu" and self._tracked.state.steps:
            return
        # More backward passes than anybody accumulates to one step.
        if scale is not None and float(scale) >= 1024.0 and float(factor) <= 1.0:
            raise CallOrderError(
                f"A GradScaler with the scale {float(scale):g} was found, but the loss went "
                f"backward times {float(factor):g}: it was not scaled. Scale it, or take the "
                "scaler away."
            )
        self.check_factors()

    def check_factors(self) -> None:
        """Refuse a factor larger than what is known; smaller ones come of accumulation."""
        excess, self._excess = 0.0 if self._excess is None else float(self._excess), None
        # An infinite one makes gradients that the optimiser's step or the consolidation refuses.
        if 1.001 < excess < float("inf"):
            raise CallOrderError(
                f"The loss was multiplied by {excess:g} on its way backward, over and above what "
                "is known. Keep the GradScaler as an attribute of the strategy or of one of its "
                "plugins, and list a plugin that changes strategy.loss before SIPlugin."
            )

    @torch.no_grad()
    def begin(self) -> None:
        """Note the weights, because the loop may move them by itself."""
        parameters = list(self._tracked.parameters.values())
        self._steps, self._weights = self._tracked.state.steps, Marks(parameters)
        # Not every movement is counted by PyTorch: in the beginning they are looked at.
        self._copies = [] if self._steps else [p.detach().clone() for p in parameters]

    def end(self) -> None:
        """Refuse an iteration in which weights moved, but not by an optimiser's step."""
        now = self._weights.tensors
        differ = [
            not torch.equal(local(p), local(q)) for p, q in zip(self._copies, now, strict=False)
        ]
        same = not any(anywhere(differ, now)) if differ else self._weights.are_those_of(now)
        self._weights, self._copies = Marks([]), []
        if self._tracked.state.steps == self._steps and not same:
            raise CallOrderError(
                "Weights moved in an iteration in which the optimisers that are followed made no "
                "step. SIPlugin follows every torch.optim.Optimizer that steps a protected "
                "parameter: let these make the steps."
            )
