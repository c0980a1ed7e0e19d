"""Avalanche strategies on digits, as one process or as one rank of several runs them."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from avalanche.distributed import DistributedHelper
from avalanche.training import Naive
from avalanche.training.plugins import SupervisedPlugin
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.optim import Adam

from si_avalanche import SIPlugin
from tests.digits import Network, digits_benchmark, parts
from tests.processes.loops import Snapshots, snapshot

BATCH = 32


class Wrapping(Naive):
    """Wraps the model whenever it was adapted, as adapted models may have new parameters."""

    def model_adaptation(self, model: nn.Module | None = None) -> nn.Module:
        model = self.model if model is None else model
        adapted = super().model_adaptation(DistributedHelper.unwrap_model(model))
        return DistributedHelper.wrap_model(adapted)


class Noting(SIPlugin, supports_distributed=True):  # type: ignore[call-arg]
    """Notes the state before and after the end of every task."""

    def __init__(self, c: float = 1.0) -> None:
        super().__init__(c)
        self.snapshots: Snapshots = []

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self._note(strategy)
        super().after_training_exp(strategy)
        self._note(strategy)

    def _note(self, strategy: Any) -> None:
        model = DistributedHelper.unwrap_model(strategy.model)
        self.snapshots.append(snapshot(self.si, model))


class Clipping(SupervisedPlugin, supports_distributed=True):  # type: ignore[call-arg]
    """Clips the gradients; the raw ones are to be integrated."""

    def before_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        nn.utils.clip_grad_norm_(strategy.model.parameters(), 0.05)


@dataclass(frozen=True)
class Digits:
    """A network, how the strategy treats it, and where in the stream it begins and ends."""

    network: Callable[[], nn.Module]
    strategy: type[Naive] = Naive
    task_labels: bool = False
    adam: bool = False
    sharded: bool = False
    clips: bool = False
    evaluates: bool = False
    begin: int = 0
    end: int = 3

    def __str__(self) -> str:
        switches = ("adam", "sharded", "clips", "evaluates")
        extra = [name for name in switches if getattr(self, name)]
        return ", ".join([self.network.__name__, *extra])


def train(
    rank: int, ranks: int, digits: Digits, saved: dict[str, Any] | None = None
) -> tuple[Snapshots, dict[str, Any]]:
    """Train on a stream; return what was noted, and what a user would save at its end."""
    with in_float64():
        return _train(rank, ranks, digits, saved)


@contextmanager
def in_float64() -> Iterator[None]:
    """Make new layers in float64, heads that a strategy adds included."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _train(
    rank: int, ranks: int, digits: Digits, saved: dict[str, Any] | None
) -> tuple[Snapshots, dict[str, Any]]:
    torch.manual_seed(0 if digits.sharded else rank)
    network = digits.network()
    network.register_forward_pre_hook(lambda _, inputs: (inputs[0].double(), *inputs[1:]))
    plugin = Noting()
    if saved is not None:
        network.load_state_dict(saved["model"])
        plugin.load_state_dict(saved["plugin"])
    strategy = _strategy(digits, network, plugin, ranks)
    stream = digits_benchmark(task_labels=digits.task_labels).train_stream
    for experience in stream[digits.begin : digits.end]:
        strategy.train(experience, shuffle=False, drop_last=True, reset_optimizer_state=True)
        if digits.evaluates:
            strategy.eval(stream[:1])
    return plugin.snapshots, {"plugin": plugin.state_dict(), "model": network.state_dict()}


def _strategy(digits: Digits, network: nn.Module, plugin: SIPlugin, ranks: int) -> Naive:
    if digits.sharded and ranks > 1:
        fully_shard(network, mesh=init_device_mesh("cpu", (ranks,)))
    model = network if digits.sharded else DistributedHelper.wrap_model(network)
    optimizer = Adam(model.parameters(), lr=0.01, eps=1e-3) if digits.adam else None
    plugins = [plugin, *([Clipping()] if digits.clips else [])]
    share = {"train_mb_size": BATCH // ranks, "train_epochs": 1}
    return digits.strategy(**parts(model, optimizer, plugins=plugins, **share))


def warnings_about(rank: int, ranks: int, kind: type[SIPlugin]) -> list[str]:
    """What Avalanche warns of when a plugin is used in a group of processes."""
    model = DistributedHelper.wrap_model(Network())
    strategy = Naive(**parts(model, plugins=[kind()], train_epochs=1))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        strategy.train(digits_benchmark().train_stream[0])
    return [str(warning.message) for warning in caught]
