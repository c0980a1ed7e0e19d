"""What a method can do around a training step."""

from __future__ import annotations

from torch import Tensor, nn
from torch.optim import Optimizer


class Method:
    """Training without Synaptic Intelligence, and what any method can do around a step.

    :param model: what is trained.
    :param optimizer: what trains it.
    :param c: the strength of the penalty.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer, c: float) -> None:
        self._model = model
        self._optimizer = optimizer
        self._c = c

    def before_step(self) -> None:
        """Act before the forward pass."""

    def penalised(self, loss: Tensor) -> Tensor:
        """Add what belongs into the loss.

        :param loss: the task loss, a scalar.
        :return: what goes backward.
        """
        return loss

    def after_backward(self) -> None:
        """Act between the backward pass and the optimiser's step."""

    def after_step(self) -> None:
        """Act after the optimiser's step, before gradients are zeroed."""

    def end_task(self) -> None:
        """Consolidate."""
