"""Avalanche metrics that show what Synaptic Intelligence does."""

from typing import Literal, TypeAlias

import torch
from avalanche.evaluation import GenericPluginMetric, PluginMetric
from avalanche.evaluation.metric_results import MetricResult
from avalanche.evaluation.metrics import Mean
from avalanche.training.templates import SupervisedTemplate

from si_avalanche.errors import ConfigurationError
from si_avalanche.plugin import SIPlugin
from si_avalanche.synaptic_intelligence import SynapticIntelligence

Span: TypeAlias = Literal["iteration", "epoch", "experience"]

_SUFFIX: dict[Span, str] = {"iteration": "MB", "epoch": "Epoch", "experience": "Exp"}


class SIPenalty(GenericPluginMetric[float, Mean]):
    """The penalty by itself, eq. 4: ``c * sum_k Omega_k * (theta_k - theta*_k)**2``.

    Taken before each backward pass, at the same weights as the task loss, and averaged over the
    span; the task loss of Avalanche's ``loss_metrics`` and this add up to the surrogate loss of
    the paper. Reading it costs one pass over the weights and a wait for the device per iteration.

    :param span: how many iterations one value covers: ``"iteration"``, ``"epoch"`` or
        ``"experience"``.
    """

    def __init__(self, span: Span) -> None:
        self._span = span
        super().__init__(Mean(), reset_at=span, emit_at=span, mode="train")

    def before_backward(self, strategy: SupervisedTemplate) -> None:
        """Take the penalty at the weights of this iteration."""
        with torch.no_grad():
            self._metric.update(float(_find_si(strategy).penalty()))

    def __str__(self) -> str:
        """Return the name of the curve."""
        return f"SI_Penalty_{_SUFFIX[self._span]}"


class SITotalImportance(GenericPluginMetric[float, Mean]):
    """The sum of Omega over all parameters, after the consolidation of each experience."""

    def __init__(self) -> None:
        super().__init__(Mean(), reset_at="experience", emit_at="experience", mode="train")

    def after_training_exp(self, strategy: SupervisedTemplate) -> MetricResult:
        """Emit the total; the plugin has consolidated by now."""
        self._metric.update(float(_find_si(strategy).total_importance()))
        return super().after_training_exp(strategy)

    def __str__(self) -> str:
        """Return the name of the curve."""
        return "SI_TotalImportance_Exp"


def si_metrics(
    *, minibatch: bool = False, epoch: bool = True, experience: bool = True
) -> list[PluginMetric[float]]:
    """Return the metrics of Synaptic Intelligence, for Avalanche's ``EvaluationPlugin``.

    Values are plain floats and reach every logger; Avalanche's ``CSVLogger`` writes a fixed set of
    columns and drops them, as it drops all but accuracy, loss and forgetting. The strategy must
    have an ``SIPlugin``.

    :param minibatch: the penalty of each training iteration.
    :param epoch: its mean over each training epoch.
    :param experience: its mean over each training experience, and the total importance after it.
    :return: the metrics that were asked for.
    """
    metrics: list[PluginMetric[float]] = []
    if minibatch:
        metrics.append(SIPenalty("iteration"))
    if epoch:
        metrics.append(SIPenalty("epoch"))
    if experience:
        metrics += [SIPenalty("experience"), SITotalImportance()]
    return metrics


def _find_si(strategy: SupervisedTemplate) -> SynapticIntelligence:
    for plugin in strategy.plugins:
        if isinstance(plugin, SIPlugin):
            return plugin.si
    raise ConfigurationError(
        "si_metrics() found no SIPlugin among the strategy's plugins. Add one, or use the SI "
        "strategy."
    )
