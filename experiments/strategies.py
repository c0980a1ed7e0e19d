"""The strategies: a name to a function that builds one. Adding a baseline is one function.

Avalanche is imported by the builders: the command line reads the names here, and has to answer
a typing error at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from experiments.errors import BadValueError
from experiments.untyped import AvalancheStrategy

Parts = dict[str, Any]


@dataclass(frozen=True)
class Strategy:
    """One method and how it is tuned.

    :param label: its name in tables and figures.
    :param build: makes the strategy from Avalanche's common arguments and the trial's settings.
    :param strength: the name of its strength, or None if it has none.
    :param search: the smallest and the largest strength that the search tries; zeros without one.
    :param trains_once: whether it trains a single time, on all experiences together.
    :param baseline: whether others are compared with it: not our SI, and not what keeps all data.
    """

    label: str
    build: Callable[[Parts, Settings], AvalancheStrategy]
    strength: str | None = None
    search: tuple[float, float] = (0.0, 0.0)
    trains_once: bool = False
    baseline: bool = True


@dataclass(frozen=True)
class Settings:
    """What a builder may read.

    :param strength: the method's strength; 0.0 for a method without one.
    :param memory: the number of samples that a replay buffer holds.
    :param options: further arguments of the method, by name.
    :param online: whether each mini-batch is an experience of its own to Avalanche.
    """

    strength: float
    memory: int
    options: Parts
    online: bool = False


def _naive(parts: Parts, _settings: Settings) -> AvalancheStrategy:
    from avalanche.training.supervised import Naive

    return Naive(**parts)


def _si(parts: Parts, settings: Settings) -> AvalancheStrategy:
    from si_avalanche import SI

    return SI(**parts, c=settings.strength, **settings.options)


def _si_avalanche(parts: Parts, settings: Settings) -> AvalancheStrategy:
    from avalanche.training.supervised import SynapticIntelligence

    return SynapticIntelligence(**parts, si_lambda=settings.strength)


def _ewc(parts: Parts, settings: Settings) -> AvalancheStrategy:
    from avalanche.training.supervised import EWC

    _refuse_online(settings, "keeps weights and importances of every mini-batch; use 'ewc-online'")
    return EWC(**parts, ewc_lambda=settings.strength)


def _ewc_online(parts: Parts, settings: Settings) -> AvalancheStrategy:
    from avalanche.training.supervised import EWC

    return EWC(**parts, ewc_lambda=settings.strength, mode="online", decay_factor=1.0)


def _mas(parts: Parts, settings: Settings) -> AvalancheStrategy:
    from avalanche.training.supervised import MAS

    return MAS(**parts, lambda_reg=settings.strength)


def _lwf(parts: Parts, settings: Settings) -> AvalancheStrategy:
    from avalanche.training.supervised import LwF

    return LwF(**parts, alpha=settings.strength, temperature=2.0)


def _rwalk(parts: Parts, settings: Settings) -> AvalancheStrategy:
    from avalanche.training.plugins import RWalkPlugin
    from avalanche.training.supervised import Naive

    plugin = RWalkPlugin(ewc_lambda=settings.strength)
    return Naive(**{**parts, "plugins": [*parts["plugins"], plugin]})


def _l2(parts: Parts, settings: Settings) -> AvalancheStrategy:
    from avalanche.training.supervised import Naive

    from experiments.baselines import L2Plugin

    return Naive(**{**parts, "plugins": [*parts["plugins"], L2Plugin(settings.strength)]})


def _scratch(parts: Parts, settings: Settings) -> AvalancheStrategy:
    from avalanche.training.supervised import FromScratchTraining

    _refuse_online(settings, "begins anew at every mini-batch; use 'joint'")
    return FromScratchTraining(**parts)


def _replay(parts: Parts, settings: Settings) -> AvalancheStrategy:
    from avalanche.training.plugins import ReplayPlugin
    from avalanche.training.storage_policy import ReservoirSamplingBuffer
    from avalanche.training.supervised import Naive, Replay

    if not settings.online:
        return Replay(**parts, mem_size=settings.memory)
    # Its own buffer gives each mini-batch the same share: a sample each to the first ones, and
    # nothing to any that comes once as many have been as the buffer has places.
    policy = ReservoirSamplingBuffer(settings.memory)
    plugin = ReplayPlugin(settings.memory, storage_policy=policy)
    return Naive(**{**parts, "plugins": [*parts["plugins"], plugin]})


def _cumulative(parts: Parts, settings: Settings) -> AvalancheStrategy:
    from avalanche.training.supervised import Cumulative

    _refuse_online(settings, "trains on everything so far at every mini-batch; use 'joint'")
    return Cumulative(**parts)


def _joint(parts: Parts, _settings: Settings) -> AvalancheStrategy:
    from avalanche.training.supervised import JointTraining

    return JointTraining(**parts)


def _refuse_online(settings: Settings, reason: str) -> None:
    if settings.online:
        raise BadValueError(f"not for an online stream: there, it {reason}")


STRATEGIES = {
    "naive": Strategy("Naive", _naive),
    "si": Strategy("SI (si-avalanche)", _si, "c", (1e-2, 1e6), baseline=False),
    "si-avalanche": Strategy("SI (Avalanche's)", _si_avalanche, "si_lambda", (1e0, 1e6)),
    "ewc": Strategy("EWC", _ewc, "ewc_lambda", (1e1, 1e8)),
    "ewc-online": Strategy("EWC online", _ewc_online, "ewc_lambda", (1e1, 1e8)),
    "mas": Strategy("MAS", _mas, "lambda_reg", (1e-3, 1e4)),
    "lwf": Strategy("LwF", _lwf, "alpha", (1e-2, 1e4)),
    "rwalk": Strategy("RWalk", _rwalk, "ewc_lambda", (1e-2, 1e5)),
    "l2": Strategy("L2", _l2, "lambda", (1e-3, 1e4)),
    "replay": Strategy("Replay", _replay),
    "scratch": Strategy("From scratch", _scratch, baseline=False),
    "cumulative": Strategy("Cumulative", _cumulative, baseline=False),
    "joint": Strategy("Joint", _joint, trains_once=True, baseline=False),
}

# Those of the published experiments alone are left out.
COMPARED = tuple(name for name in STRATEGIES if name not in ("l2", "scratch"))


def with_strength() -> list[str]:
    """List the strategies that have a strength.

    :return: their names, in the order of the registry.
    """
    return [name for name, strategy in STRATEGIES.items() if strategy.strength is not None]
