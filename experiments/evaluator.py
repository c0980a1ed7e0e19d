"""Avalanche's evaluator for accuracies that are taken in evaluation alone."""

from __future__ import annotations

from avalanche.evaluation.metrics import accuracy_metrics, bwt_metrics, forgetting_metrics
from avalanche.training.plugins import EvaluationPlugin

_HOOKS = (
    "before_training_exp",
    "before_eval",
    "before_eval_exp",
    "after_eval_iteration",
    "after_eval_exp",
    "after_eval",
)


class AccuracyEvaluator(EvaluationPlugin):
    """Takes the accuracy on each experience, forgetting and backward transfer, without loggers.

    Avalanche's own evaluator copies the experience and asks every metric at every hook of every
    iteration, and these metrics have something to do at six of them alone. This one has no others.
    """

    def __init__(self) -> None:
        super().__init__(
            accuracy_metrics(experience=True),
            forgetting_metrics(stream=True),
            bwt_metrics(stream=True),
        )
        for hook in _HOOKS:
            setattr(self, hook, EvaluationPlugin.__getattribute__(self, hook))

    # Avalanche's gives an answer to every name that begins like a hook's.
    __getattribute__ = object.__getattribute__
