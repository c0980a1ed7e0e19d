"""A baseline that Avalanche has not: L2 towards the weights of the previous task."""

from __future__ import annotations

import torch
from avalanche.training.plugins import SupervisedPlugin

from experiments.untyped import AvalancheStrategy


class L2Plugin(SupervisedPlugin, supports_distributed=False):  # type: ignore[call-arg]
    r"""Draws every weight to its value after the previous task, all with the same strength.

    The penalty :math:`\lambda \sum_k (\theta_k - \theta^*_k)^2` is added to the loss from the
    second experience on (the "L2" of Hsu et al., 2018).

    :param strength: lambda.
    """

    def __init__(self, strength: float) -> None:
        super().__init__()
        self._strength = strength
        self._anchor: dict[str, torch.Tensor] = {}

    def before_backward(self, strategy: AvalancheStrategy, **_kwargs: object) -> None:
        """Add the penalty to the loss."""
        for name, parameter in strategy.model.named_parameters():
            if name in self._anchor:
                distance = (parameter - self._anchor[name]).pow(2).sum()
                strategy.loss = strategy.loss + self._strength * distance

    def after_training_exp(self, strategy: AvalancheStrategy, **_kwargs: object) -> None:
        """Keep a copy of the weights."""
        self._anchor = {
            name: parameter.detach().clone()
            for name, parameter in strategy.model.named_parameters()
        }
