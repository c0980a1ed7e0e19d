"""What Avalanche's strategies and streams bring, and what Synaptic Intelligence needs of them."""

from typing import Any

from avalanche.benchmarks import OnlineCLExperience
from avalanche.core import BaseSGDPlugin
from avalanche.training.templates import SupervisedMetaLearningTemplate, SupervisedTemplate
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


def origin_of(experience: Any) -> object | None:
    """Return the experience that an online one is a part of; ``None`` for any other."""
    return experience.origin_experience if isinstance(experience, OnlineCLExperience) else None


def is_last_part(experience: Any, parts: int) -> bool | None:
    """Whether a task ends with this experience.

    Avalanche marks the last part of an online experience only if it is shorter than the others.

    :param experience: what the strategy has trained on.
    :param parts: how many parts of its origin were trained on, this one included.
    :return: ``None`` if it can't be told.
    """
    if not isinstance(experience, OnlineCLExperience) or experience.is_last_subexp:
        return True
    length = experience.sub_stream_length
    return None if not length else parts >= length


def acts_in(strategy: SupervisedTemplate, hooks: tuple[str, ...], but: object) -> bool:
    """Whether another plugin acts in one of the hooks.

    :param strategy: the strategy that calls the plugins.
    :param hooks: their names.
    :param but: a plugin that does not count.
    """
    bystanders = (but, strategy.evaluator, strategy.clock)
    others = [p for p in strategy.plugins if not any(p is bystander for bystander in bystanders)]
    return any(_acts(other, hook) for hook in hooks for other in others)


def has_own(strategy: SupervisedTemplate, *methods: str) -> bool:
    """Whether a strategy has a method of its own, in place of Avalanche's."""
    return any(
        method in vars(strategy)
        or getattr(type(strategy), method) is not getattr(SupervisedTemplate, method)
        for method in methods
    )


def _acts(plugin: object, hook: str) -> bool:
    call = getattr(plugin, hook, None)
    nothing = getattr(BaseSGDPlugin, hook)
    return call is not None and getattr(call, "__func__", call) is not nothing


def scaler_of(strategy: SupervisedTemplate) -> GradScaler | None:
    """Return the ``GradScaler`` among the attributes of the strategy and of its plugins.

    :param strategy: the strategy that calls the plugin.
    :raises ConfigurationError: if there are several enabled ones.
    """
    owners = (strategy, *strategy.plugins)
    held = [v for owner in owners for place in (owner, type(owner)) for v in vars(place).values()]
    scalers = {id(v): v for v in held if isinstance(v, GradScaler) and v.is_enabled()}
    if len(scalers) > 1:
        raise ConfigurationError(
            f"The strategy and its plugins hold {len(scalers)} enabled GradScalers; SIPlugin can't "
            "tell which one scales strategy.loss. Keep one."
        )
    return next(iter(scalers.values()), None)
