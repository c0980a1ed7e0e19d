"""What Avalanche's strategies and streams bring, and what Synaptic Intelligence needs of them."""

from avalanche.benchmarks import OnlineCLExperience
from avalanche.core import BaseSGDPlugin
from avalanche.training.templates import SupervisedMetaLearningTemplate, SupervisedTemplate
from avalanche.training.utils import _at_task_boundary
from torch.amp import GradScaler
from torch.amp.grad_scaler import OptState

from si_avalanche.errors import ConfigurationError

_BEFORE_STEP = ("after_backward", "before_update")


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


def is_end_of_task(experience: object) -> bool:
    """Whether a task ends with this experience, which may be part of an online one.

    :param experience: what the strategy has trained on.
    """
    return bool(_at_task_boundary(experience, before=False))


def may_change_gradients(strategy: SupervisedTemplate, but: object) -> bool:
    """Whether something between the backward pass and the optimiser's step may change gradients.

    Another plugin that acts there, perhaps in some steps only as GEM and AGEM do, which project
    what would harm; or a strategy with a training loop, backward pass or optimiser step of its
    own.

    :param strategy: the strategy that calls the plugins.
    :param but: a plugin that does not count.
    """
    bystanders = (but, strategy.evaluator, strategy.clock)
    others = [p for p in strategy.plugins if not any(p is bystander for bystander in bystanders)]
    acts = any(_acts_in(hook, other) for hook in _BEFORE_STEP for other in others)
    return acts or any(
        getattr(type(strategy), method) is not getattr(SupervisedTemplate, method)
        for method in ("training_epoch", "backward", "optimizer_step")
    )


def _acts_in(hook: str, plugin: object) -> bool:
    call = getattr(plugin, hook, None)
    nothing = getattr(BaseSGDPlugin, hook)
    return call is not None and getattr(call, "__func__", call) is not nothing


def scales_of_gradients(strategy: SupervisedTemplate) -> tuple[float | None, float | None]:
    """Return the factors that a ``GradScaler`` of the strategy has put into gradients and loss.

    It is found among the attributes of the strategy and of its plugins.

    :param strategy: the strategy that calls the plugin.
    :return: the factor that the gradients have now, which is 1 once they have been unscaled, and
        the one that the loss had; ``None`` without an enabled scaler that has scaled anything.
    :raises ConfigurationError: if there are several enabled ones.
    """
    owners = (strategy, *strategy.plugins)
    places = [names for owner in owners for names in (vars(owner), vars(type(owner)))]
    # Asked in every iteration, of hundreds of attributes: by their types alone at first.
    kinds = _with_subclasses(GradScaler)
    if all(kinds.isdisjoint(map(type, names.values())) for names in places):
        return None, None
    held = (value for names in places for value in names.values())
    scalers = {id(v): v for v in held if isinstance(v, GradScaler) and v.is_enabled()}
    if len(scalers) > 1:
        raise ConfigurationError(
            f"The strategy and its plugins hold {len(scalers)} enabled GradScalers; SIPlugin can't "
            "tell which one scales strategy.loss. Keep one."
        )
    used = [scaler for scaler in scalers.values() if scaler._scale is not None]
    if not used:
        return None, None
    scale = used[0].get_scale()
    # There is no public way to ask whether gradients have been unscaled.
    stage = used[0]._per_optimizer_states.get(id(strategy.optimizer), {}).get("stage")
    return (1.0 if stage is OptState.UNSCALED else scale), scale


def _with_subclasses(kind: type) -> set[type]:
    return {kind}.union(*map(_with_subclasses, kind.__subclasses__()))
