"""What Avalanche's strategies and streams bring, and what Synaptic Intelligence needs of them."""

from typing import Any

from avalanche.benchmarks import OnlineCLExperience
from avalanche.core import BaseSGDPlugin
from avalanche.training.templates import SupervisedMetaLearningTemplate, SupervisedTemplate
from torch.amp import GradScaler

from si_avalanche.errors import ConfigurationError


def check_has_task_gradients(strategy: SupervisedTemplate) -> None:
    """Refuse strategies whose steps follow no gradient of one task loss (meta-learning)."""
    kind = type(strategy).__name__
    if isinstance(strategy, SupervisedMetaLearningTemplate):
        raise ConfigurationError(
            f"{kind} is a meta-learning strategy: its inner and outer updates follow no gradient "
            "of one task loss, so there is no path to integrate, and SIPlugin can't protect "
            "anything beside it. Use it with a strategy derived from SupervisedTemplate."
        )
    if strategy.optimizer is None:
        raise ConfigurationError(
            f"{kind} trains without an optimiser: no loss goes backward and no weight follows its "
            "gradient, so there is nothing to protect. Leave SIPlugin out."
        )


def check_boundaries_are_known(experience: object) -> None:
    """Refuse a part of an online stream that does not tell where tasks end."""
    if isinstance(experience, OnlineCLExperience) and not experience.access_task_boundaries:
        raise ConfigurationError(
            "This online stream does not tell where tasks end (access_task_boundaries is False), "
            "so SIPlugin can't know when to consolidate. Pass consolidate_every=n to do so after "
            "every n optimiser steps, or make the stream with access_task_boundaries=True."
        )


def origin_of(experience: Any) -> object | None:  # noqa: ANN401
    """Return the experience that an online one is a part of; ``None`` for any other."""
    return experience.origin_experience if isinstance(experience, OnlineCLExperience) else None


def is_last_part(experience: Any, parts: int) -> bool | None:  # noqa: ANN401
    """Whether a task ends with this experience, so many of whose parts were trained on.

    Avalanche marks the last part of an online experience only if it is shorter than the others.
    ``None`` says that it can't be told.
    """
    if origin_of(experience) is None or experience.is_last_subexp:
        return True
    length = experience.sub_stream_length
    return None if not length else parts >= length


_BETWEEN = ("before_forward", "after_forward", "before_backward", "after_backward", "before_update")
"""The hooks in which gradients can be left behind, or changed before the optimiser finds them."""


def others_act(strategy: SupervisedTemplate, but: object) -> bool:
    """Whether another plugin acts between clearing the gradients and the optimiser's step."""
    bystanders = (but, strategy.evaluator, strategy.clock)
    others = [p for p in strategy.plugins if not any(p is bystander for bystander in bystanders)]
    calls = [(getattr(other, hook, None), hook) for other in others for hook in _BETWEEN]
    return any(
        call is not None and getattr(call, "__func__", call) is not getattr(BaseSGDPlugin, hook)
        for call, hook in calls
    )


def has_own(strategy: SupervisedTemplate, *methods: str) -> bool:
    """Whether a strategy has one of these methods of its own, in place of Avalanche's."""
    return any(
        method in vars(strategy)
        or getattr(type(strategy), method) is not getattr(SupervisedTemplate, method)
        for method in methods
    )


def scaler_of(strategy: SupervisedTemplate) -> GradScaler | None:
    """Return the enabled ``GradScaler`` among the attributes of the strategy and its plugins."""
    owners = (strategy, *strategy.plugins)
    held = [v for owner in owners for place in (owner, type(owner)) for v in vars(place).values()]
    scalers = {id(v): v for v in held if isinstance(v, GradScaler) and v.is_enabled()}
    if len(scalers) > 1:
        raise ConfigurationError(
            f"The strategy and its plugins hold {len(scalers)} enabled GradScalers; SIPlugin can't "
            "tell which one scales strategy.loss. Keep one."
        )
    return next(iter(scalers.values()), None)
