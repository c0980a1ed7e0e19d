"""Being told when a backward pass begins and when all its gradients have arrived."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.autograd import Variable

from si_avalanche.errors import CallOrderError

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


class LossWatch:
    """Whether a loss that was announced has gone backward, and times which factor."""

    def __init__(self) -> None:
        self._awaited = False
        self._factor: Tensor | None = None
        self._excess: Tensor | None = None

    def watch(self, loss: Tensor, begins: Callable[[], None]) -> None:
        """Await the backward pass of a loss.

        :param loss: any tensor of one entry that requires a gradient; it gets a hook.
        :param begins: called when its backward pass begins.
        """

        def hook(factor: Tensor) -> None:
            self._awaited, self._factor = False, factor.detach()
            begins()

        self._awaited = loss.requires_grad
        if loss.requires_grad:
            loss.register_hook(hook)

    def check(self, scale: float | None, look: bool) -> None:
        """Refuse a loss that did not go backward, or times a factor that nobody knows of.

        :param scale: the factor that is known, ``None`` for 1; smaller ones are welcome, as when
            gradients accumulate.
        :param look: whether to look at the factor, and so to wait for the device.
        :raises CallOrderError: saying which of the two it is.
        """
        if self._awaited:
            raise CallOrderError(
                "The backward pass did not go through the loss that watch() was given. In "
                "Avalanche: something replaced strategy.loss after SIPlugin's before_backward; "
                "list that plugin before SIPlugin."
            )
        factor, self._factor = self._factor, None
        if factor is None:
            return
        known = 1.0 if scale is None else scale
        # On the CPU there is nothing to wait for.
        if not (look or factor.device.type == "cpu"):
            excess = factor.max() / known
            old = excess if self._excess is None else self._excess
            self._excess = torch.maximum(old, excess)
            return
        largest = factor.max().item()
        if known >= _MANY and largest <= 1.0:
            raise CallOrderError(
                f"A GradScaler with the scale {known:g} was found, but the loss went backward "
                f"times {largest:g}: it was not scaled. Scale it, or take the scaler away."
            )
        _refuse_excess(largest / known)

    def check_all(self) -> None:
        """Refuse a factor that :meth:`check` has not looked at; waits for the device.

        :raises CallOrderError: if one was larger than what was known.
        """
        if self._excess is not None:
            _refuse_excess(self._excess.item())
            self._excess = None


def _refuse_excess(excess: float) -> None:
    # An infinite one makes gradients that the optimiser's step or the consolidation refuses.
    if 1.001 < excess < float("inf"):
        raise CallOrderError(
            f"The loss was multiplied by {excess:g} on its way backward, over and above "
            "what is known. Pass add_penalty_gradient(scale=...); in Avalanche, keep the "
            "GradScaler as an attribute of the strategy or of one of its plugins, and list a "
            "plugin that puts another factor into strategy.loss before SIPlugin."
        )
