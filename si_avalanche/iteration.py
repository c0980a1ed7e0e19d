"""An iteration of a training loop in which others act: what its loss brings, and who moves weights."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.amp import GradScaler
from torch.autograd import Variable

from si_avalanche import formulas
from si_avalanche.errors import CallOrderError
from si_avalanche.marks import mark, same_marks, share_tensors
from si_avalanche.shards import anywhere, local
from si_avalanche.step import AtTheStep, scale_of
from si_avalanche.tracked import Lane, Tracked

_MANY = 1024.0
"""More backward passes than anybody accumulates to one step."""


def at_end_of_backward(call: Callable[[], None]) -> None:
    """Call a function at the end of the backward pass that is under way.

    :param call: what to call once all gradients have arrived, those that data-parallel wrappers
        exchange at the end of the pass included.
    """
    # The one place where autograd tells that all gradients have arrived; queued a second time
    # from there, to come after what such wrappers queue during the pass.
    queue = Variable._execution_engine.queue_callback
    queue(partial(queue, call))


class Iteration:
    """Sees what a backward pass brings, and whether nobody but the optimiser moves the weights.

    Gradients may accumulate over several passes. What others have left in them before a pass of the
    loss, or do to them after it, is not the loss's.

    :param tracked: the protected parameters.
    :param at_the_step: its ``kept`` is filled where the task gradient is not, or may not be, what
        the optimiser will find.
    """

    def __init__(self, tracked: Tracked, at_the_step: AtTheStep) -> None:
        self._tracked, self._at_the_step = tracked, at_the_step
        self._seen = mark([])
        self._awaited = False
        self._excess: Tensor | None = None
        self._steps, self._weights = 0, mark([])
        self._copies: list[Tensor] = []

    def watch(self, loss: Tensor, keep: bool, scaler: GradScaler | None) -> None:
        """Await the backward pass of a loss.

        :param loss: any tensor of one entry; it gets a hook if it requires a gradient.
        :param keep: whether to keep a copy of what it brings in any case; otherwise only if there
            are gradients of others when it begins.
        :param scaler: what may scale it on its way.
        """

        def hook(factor: Tensor) -> None:
            self._awaited = False
            self._check_factor(factor.detach(), scaler)
            self._begin_pass(keep, scaler)

        self._awaited = loss.requires_grad
        if loss.requires_grad:
            loss.register_hook(hook)

    def refuse_other_loss(self) -> None:
        """Refuse gradients that are not those of the loss.

        :raises CallOrderError: saying who is to be listed where.
        """
        if self._awaited and any(p.grad is not None for p in self._tracked.parameters.values()):
            raise CallOrderError(
                "The backward pass did not go through strategy.loss as SIPlugin found it: something "
                "replaced strategy.loss after SIPlugin's before_backward; list that plugin before "
                "SIPlugin."
            )

    @torch.no_grad()
    def _begin_pass(self, keep: bool, scaler: GradScaler | None) -> None:
        kept, there = self._at_the_step.kept, self._with_gradient()
        gradients = [p.grad for p in there.parameters]
        goes_on = share_tensors(self._seen, gradients) and (
            # Zeroed in place, they belong to a new step.
            same_marks(self._seen, gradients)
            or there.anywhere(formulas.any_nonzero(there.gradients))
        )
        if not goes_on:
            kept.clear()
        is_elsewhere = not goes_on and formulas.any_nonzero(there.gradients)
        if keep or is_elsewhere or kept:
            scale = scale_of(scaler, list(self._at_the_step.optimizers))
            if goes_on or is_elsewhere:
                self._add(there, -1.0, scale)
            at_end_of_backward(partial(self._end_pass, scale))

    @torch.no_grad()
    def _end_pass(self, scale: Tensor | None) -> None:
        there = self._with_gradient()
        self._add(there, 1.0, scale)
        self._seen = mark([p.grad for p in there.parameters])

    def _with_gradient(self) -> Lane:
        everything = self._tracked.parameters.values()
        return self._tracked.lane_of([p for p in everything if p.grad is not None])

    def _add(self, lane: Lane, sign: float, scale: Tensor | None) -> None:
        kept = self._at_the_step.kept
        columns = zip(lane.parameters, lane.gradients, lane.path_integral, strict=True)
        for parameter, gradient, path in columns:
            unscaled = gradient if scale is None else gradient / scale
            if parameter not in kept:
                kept[parameter] = torch.zeros_like(path)
            kept[parameter].add_(unscaled, alpha=sign)

    def _check_factor(self, factor: Tensor, scaler: GradScaler | None) -> None:
        """Note the largest factor that the loss has got on its way, and perhaps look at it."""
        scale = scale_of(scaler, [])
        excess = factor.max() if scale is None else factor.max() / scale.to(factor.device)
        self._excess = excess if self._excess is None else torch.maximum(self._excess, excess)
        # On the CPU there is nothing to wait for.
        if factor.device.type == "cpu" or not self._tracked.state.steps:
            if scale is not None and float(scale) >= _MANY and float(excess) * float(scale) <= 1.0:
                raise CallOrderError(
                    f"A GradScaler with the scale {float(scale):g} was found, but the loss went "
                    f"backward times {float(factor.max()):g}: it was not scaled. Scale it, or take "
                    "the scaler away."
                )
            self.check_factors()

    def check_factors(self) -> None:
        """Refuse a factor larger than what is known; smaller ones come of accumulation.

        :raises CallOrderError: saying how to make it known.
        """
        excess, self._excess = self._excess, None
        # An infinite one makes gradients that the optimiser's step or the consolidation refuses.
        if excess is not None and 1.001 < float(excess) < float("inf"):
            raise CallOrderError(
                f"The loss was multiplied by {float(excess):g} on its way backward, over and above "
                "what is known. Keep the GradScaler as an attribute of the strategy or of one of "
                "its plugins, and list a plugin that puts another factor into strategy.loss before "
                "SIPlugin."
            )

    @torch.no_grad()
    def begin(self) -> None:
        """Note the weights, because the loop may move them by itself."""
        parameters = list(self._tracked.parameters.values())
        self._steps, self._weights = self._tracked.state.steps, mark(parameters)
        # Not every movement is counted by PyTorch: in the beginning they are looked at.
        self._copies = [] if self._steps else [p.detach().clone() for p in parameters]

    def end(self) -> None:
        """Refuse an iteration in which weights moved, but not by an optimiser's step.

        :raises CallOrderError: saying whose steps are followed.
        """
        weights, copies = self._weights, self._copies
        self._weights, self._copies = mark([]), []
        if self._tracked.state.steps != self._steps:
            return
        moved = not same_marks(weights, weights.tensors)
        pairs = zip(copies, weights.tensors, strict=bool(copies))
        flags = [not torch.equal(local(old), local(new)) for old, new in pairs]
        if (moved and not copies) or any(anywhere(flags, copies)):
            raise CallOrderError(
                "Weights moved in an iteration in which no optimiser that is followed made a step. "
                "SIPlugin follows every torch.optim.Optimizer that steps a protected parameter: let "
                "these make the steps."
            )
