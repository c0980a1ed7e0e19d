"""Synaptic Intelligence as an Avalanche strategy."""

from collections.abc import Callable, Sequence

import torch
from avalanche.core import BasePlugin
from avalanche.training.plugins.evaluation import EvaluationPlugin, default_evaluator
from avalanche.training.templates import SupervisedTemplate
from avalanche.training.templates.strategy_mixin_protocol import CriterionType
from torch import nn
from torch.optim import Optimizer

from si_avalanche.plugin import SIPlugin
from si_avalanche.schedule import Strength
from si_avalanche.settings import (
    Clamp,
    FirstAnchor,
    Gradient,
    KernelChoice,
    Normalisation,
    Replaced,
)


class SI(SupervisedTemplate):
    """Fine-tuning with Synaptic Intelligence: Naive plus :class:`~si_avalanche.plugin.SIPlugin`.

    Uses no task identities. Helps in task- and domain-incremental streams; like every method that
    only protects weights, it hardly helps in class-incremental ones.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        optimizer: Optimizer,
        criterion: CriterionType | None = None,
        c: Strength = 1.0,
        xi: float = 0.1,
        clamp: Clamp = "accumulated",
        decay: float | None = None,
        gradient: Gradient = "task",
        include: Sequence[str] | None = None,
        exclude: Sequence[str] = (),
        first_anchor: FirstAnchor = "initial",
        normalisation: Normalisation = "protect",
        replaced: Replaced = "error",
        keep_gradient: bool = False,
        kernel: KernelChoice = "auto",
        consolidate_every: int | None = None,
        train_mb_size: int = 1,
        train_epochs: int = 1,
        eval_mb_size: int | None = None,
        device: str | torch.device = "cpu",
        plugins: Sequence[BasePlugin] | None = None,
        evaluator: EvaluationPlugin | Callable[[], EvaluationPlugin] | None = default_evaluator,
        eval_every: int = -1,
        **base_kwargs: object,
    ) -> None:
        """Create the strategy; every argument is by keyword.

        :param model: the model.
        :param optimizer: its optimiser.
        :param criterion: the loss of the task; ``None`` means cross-entropy.
        :param c: the strength; this and the options up to ``consolidate_every`` are those of
            :class:`~si_avalanche.plugin.SIPlugin`.
        :param xi: the damping of eq. 5.
        :param clamp: where negative importance is set to zero.
        :param decay: how the importance of tasks adds up.
        :param gradient: whose gradient the path integral takes.
        :param include: patterns of parameters to protect.
        :param exclude: patterns of parameters to leave out.
        :param first_anchor: where the displacement of the first task starts.
        :param normalisation: what happens to normalisation layers.
        :param replaced: what happens to the state of a layer that was replaced or shrunk.
        :param keep_gradient: keep a copy of the task gradient in every step.
        :param kernel: in which form a step is computed.
        :param consolidate_every: consolidate every so many steps, not at the end of each task.
        :param train_mb_size: mini-batch size for training.
        :param train_epochs: number of training epochs per experience.
        :param eval_mb_size: mini-batch size for evaluation; ``None`` means ``train_mb_size``.
        :param device: where the model is trained.
        :param plugins: further plugins; the list is copied.
        :param evaluator: an evaluation plugin, a function that makes one, or ``None``.
        :param eval_every: how often ``eval`` is called while training, as in Avalanche.
        :param base_kwargs: further arguments of Avalanche's ``SupervisedTemplate``.
        :raises ConfigurationError: if an option of Synaptic Intelligence is not allowed.
        """
        si = SIPlugin(
            c,
            xi,
            clamp=clamp,
            decay=decay,
            gradient=gradient,
            include=include,
            exclude=exclude,
            first_anchor=first_anchor,
            normalisation=normalisation,
            replaced=replaced,
            keep_gradient=keep_gradient,
            kernel=kernel,
            consolidate_every=consolidate_every,
        )
        super().__init__(
            model=model,
            optimizer=optimizer,
            criterion=nn.CrossEntropyLoss() if criterion is None else criterion,
            train_mb_size=train_mb_size,
            train_epochs=train_epochs,
            eval_mb_size=eval_mb_size,
            device=device,
            plugins=[*(plugins or ()), si],
            evaluator=evaluator,
            eval_every=eval_every,
            **base_kwargs,
        )
