"""Synaptic Intelligence as an Avalanche strategy."""

from collections.abc import Callable, Sequence
from typing import Unpack

import torch
from avalanche.core import BasePlugin
from avalanche.training.plugins.evaluation import EvaluationPlugin, default_evaluator
from avalanche.training.templates import SupervisedTemplate
from avalanche.training.templates.strategy_mixin_protocol import CriterionType
from torch import nn
from torch.optim import Optimizer

from si_avalanche.plugin import SIPlugin
from si_avalanche.schedule import Strength
from si_avalanche.settings import Options, shows_options


@shows_options
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
        consolidate_every: int | None = None,
        fused: bool = False,
        train_mb_size: int = 1,
        train_epochs: int = 1,
        eval_mb_size: int | None = None,
        device: str | torch.device = "cpu",
        plugins: Sequence[BasePlugin] | None = None,
        evaluator: EvaluationPlugin | Callable[[], EvaluationPlugin] | None = default_evaluator,
        eval_every: int = -1,
        peval_mode: str = "epoch",
        **options: Unpack[Options],
    ) -> None:
        """Create the strategy; every argument is by keyword.

        :param model: the model.
        :param optimizer: its optimiser.
        :param criterion: the loss of the task; ``None`` means cross-entropy.
        :param c: the strength; this and the next three as for
            :class:`~si_avalanche.plugin.SIPlugin`.
        :param xi: the damping of eq. 5.
        :param consolidate_every: consolidate every so many steps, not at the end of each task.
        :param fused: make update, penalty and path integral one compiled pass.
        :param train_mb_size: mini-batch size for training.
        :param train_epochs: number of training epochs per experience.
        :param eval_mb_size: mini-batch size for evaluation; ``None`` means ``train_mb_size``.
        :param device: where the model is trained.
        :param plugins: further plugins; the list is copied.
        :param evaluator: an evaluation plugin, a function that makes one, or ``None``.
        :param eval_every: how often ``eval`` is called while training, as in Avalanche.
        :param peval_mode: whether that counts epochs or iterations, as in Avalanche.
        :param options: those of :class:`~si_avalanche.settings.Options`.
        :raises ConfigurationError: if an option of Synaptic Intelligence is not allowed.
        """
        si = SIPlugin(c, xi, consolidate_every=consolidate_every, fused=fused, **options)
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
            peval_mode=peval_mode,
        )
