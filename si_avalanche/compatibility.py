"""What Avalanche's strategies and streams bring, and what Synaptic Intelligence needs of them."""

from avalanche.benchmarks import OnlineCLExperience
from avalanche.core import BaseSGDPlugin
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.templates import SupervisedMetaLearningTemplate, SupervisedTemplate
from avalanche.training.utils import _at_task_boundary
from torch.amp import GradScaler

from si_avalanche.errors import ConfigurationError


def check_has_task_gradients(strategy: SupervisedTemplate) -> None:
    """Refuse strategies whose steps follow no gradient of one task loss.

    Meta-learning ones do not, and those that train without an optimiser, such as StreamingLDA.

    :param strategy: the strategy that calls the plugin.
    :raises ConfigurationError: naming the strategy.
    """
    if isinstance(strategy, SupervisedMetaLearningTemplate):
        raise ConfigurationError(
            f"{type(strategy).__name__} is a meta-learning strategy: its inner and outer updates "
            "follow no gradient of one task loss, so there is no path to integrate, and SIPlugin "
            "can't protect anything beside it. Use it with a strategy derived from "
            "SupervisedTemplate."
        )
    if strategy.optimizer is None:
        raise ConfigurationError(
            f"{type(strategy).__name__} trains without an optimiser: no loss goes backward and no "
            "weight follows its gradient, so there is no path to integrate and nothing to protect. "
            "Leave SIPlugin out."
        )


def others_may_change_gradients(strategy: SupervisedTemplate, plugin: BaseSGDPlugin) -> bool:
    """Whether another plugin acts between the backward pass and the optimiser's step.

    Then gradients may be changed in any step, and need not be in the first: AGEM's and GEM's
    project only those that would harm.

    :param strategy: the strategy that calls the plugins.
    :param plugin: the one that asks.
    """
    others = (p for p in strategy.plugins if not (p is plugin or isinstance(p, EvaluationPlugin)))
    return any(
        getattr(hook, "__func__", hook) is not nothing
        for other in others
        for hook, nothing in (
            (getattr(other, "after_backward", None), BaseSGDPlugin.after_backward),
            (getattr(other, "before_update", None), BaseSGDPlugin.before_update),
        )
        if hook is not None
    )


def check_boundaries_are_known(experience: object) -> None:
    """Refuse a part of an online stream that does not tell where tasks end.

    :param experience: what the strategy is about to train on.
    :raises ConfigurationError: saying how to consolidate without boundaries.
    """
    if isinstance(experience, OnlineCLExperience) and not experience.access_task_boundaries:
        raise ConfigurationError(
            "This online stream does not tell where tasks end (access_task_boundaries is False), "
            "so SIPlugin can't know when to consolidate. Pass consolidate_every=n to do so after "
            "every n optimiser steps, or make the stream with access_task_boundaries=True."
        )


def is_end_of_task(experience: object) -> bool:
    """Whether a task ends with this experience, which may be part of an online one.

    :param experience: what the strategy has trained on.
    """
    return bool(_at_task_boundary(experience, before=False))


def scale_of_gradients(strategy: SupervisedTemplate) -> float | None:
    """Return the factor by which a ``GradScaler`` of the strategy scales gradients.

    It is found among the attributes of the strategy and of its plugins.

    :param strategy: the strategy that calls the plugin.
    :return: the factor, or ``None`` without an enabled scaler.
    :raises ConfigurationError: if there are several enabled ones.
    """
    owners = (strategy, *strategy.plugins)
    held = (value for owner in owners for value in vars(owner).values())
    scalers = {id(v): v for v in held if isinstance(v, GradScaler) and v.is_enabled()}
    if len(scalers) > 1:
        raise ConfigurationError(
            f"The strategy and its plugins hold {len(scalers)} enabled GradScalers; SIPlugin can't "
            "tell which one scales strategy.loss. Keep one."
        )
    return next((scaler.get_scale() for scaler in scalers.values()), None)
