"""Small trainings that can be built again as they were, and what they come to."""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from avalanche.benchmarks import nc_benchmark
from avalanche.core import BasePlugin
from avalanche.evaluation.metrics import (
    accuracy_metrics,
    amca_metrics,
    bwt_metrics,
    class_accuracy_metrics,
    forgetting_metrics,
    loss_metrics,
)
from avalanche.models import IncrementalClassifier, MultiHeadClassifier, MultiTaskModule
from avalanche.training import Naive
from avalanche.training.plugins import EvaluationPlugin
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW

from si_avalanche import SIPlugin, resume_training, save_training, si_metrics
from tests.digits import LabelledTensors, Network, naive

Training = Callable[..., Naive]
Build = Callable[[], Any]


@cache
def small_benchmark(*, task_labels: bool = False) -> Any:
    """Two digits per experience, few samples, always the same."""
    pixels, labels = load_digits(return_X_y=True)
    inputs, targets = torch.tensor(pixels / 16, dtype=torch.float32), torch.tensor(labels)
    return nc_benchmark(
        LabelledTensors(inputs[:400], targets[:400]),
        LabelledTensors(inputs[400:600], targets[400:600]),
        n_experiences=5,
        task_labels=task_labels,
        fixed_class_order=list(range(10)),
        class_ids_from_zero_in_each_exp=task_labels,
    )


class Growing(nn.Module):
    """A classifier that grows with the classes it meets, behind batch normalisation and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Linear(64, 20), nn.BatchNorm1d(20), nn.ReLU(), nn.Dropout(0.2)
        )
        self.classifier = IncrementalClassifier(20, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))


class ManyHeads(MultiTaskModule):
    """One head per task."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Linear(64, 20)
        self.heads = MultiHeadClassifier(20, 2)

    def forward(self, x: Tensor, task_labels: Tensor) -> Tensor:
        return self.heads(torch.relu(self.features(x)), task_labels)


def evaluator() -> EvaluationPlugin:
    return EvaluationPlugin(
        accuracy_metrics(minibatch=True, epoch=True, experience=True, stream=True),
        loss_metrics(epoch=True, experience=True),
        forgetting_metrics(experience=True, stream=True),
        bwt_metrics(experience=True, stream=True),
        class_accuracy_metrics(stream=True),
        amca_metrics(),
        si_metrics(),
        loggers=[Quiet()],
    )


class Quiet:
    """A logger that keeps nothing."""

    def log_metrics(self, metric_values: object) -> None:
        """Take the values and drop them."""


def _training(model: Callable[[], nn.Module], optimizer: Callable[[Any], Any]) -> Training:
    def build(
        before: Sequence[BasePlugin] = (), after: Sequence[BasePlugin] = (), **more: Any
    ) -> Naive:
        torch.manual_seed(0)
        network = model()
        plugins = [*before, SIPlugin(2.0), *after]
        more = {"evaluator": evaluator, "train_mb_size": 16, **more}
        return naive(network, plugins, optimizer=optimizer(network.parameters()), **more)

    return build


def _momentum(parameters: Any) -> SGD:
    return SGD(parameters, lr=0.05, momentum=0.9, weight_decay=1e-3)


TRAININGS: dict[str, tuple[Training, bool]] = {
    "one head, momentum": (_training(Network, _momentum), False),
    "many heads, Adam": (_training(ManyHeads, lambda p: Adam(p, lr=0.01)), True),
    "growing, momentum": (_training(Growing, _momentum), False),
    "growing, AdamW": (_training(Growing, lambda p: AdamW(p, lr=0.01)), False),
}
"""Each training by name, and whether its stream has task labels."""


def streams_of(name: str) -> tuple[Any, Any]:
    benchmark = small_benchmark(task_labels=TRAININGS[name][1])
    return benchmark.train_stream[:3], benchmark.test_stream


def outcome(strategy: Naive) -> dict[str, Any]:
    """All that two equal trainings must agree on, copied."""
    names = {parameter: name for name, parameter in strategy.model.named_parameters()}
    parts = [plugin.si for plugin in strategy.plugins if isinstance(plugin, SIPlugin)]
    return {
        "model": {n: t.clone() for n, t in strategy.model.state_dict().items()},
        "importance": {n: t.clone() for n, t in parts[0].omega.items()},
        "si": strategy.plugins[index_of_si(strategy)].state_dict(),
        "optimizer": {
            names[parameter]: dict(state)
            for parameter, state in strategy.optimizer.state.items()
            if parameter in names
        },
        "metrics": {n: tuple(curve) for n, curve in strategy.evaluator.all_metric_results.items()},
        "last metrics": dict(strategy.evaluator.last_metric_results),
        "clock": dict(vars(strategy.clock)),
        "random": torch.get_rng_state(),
    }


def index_of_si(strategy: Naive) -> int:
    return next(i for i, plugin in enumerate(strategy.plugins) if isinstance(plugin, SIPlugin))


def equal(one: Any, other: Any) -> bool:
    """Bit for bit, all through."""
    if type(one) is not type(other):
        return False
    if isinstance(one, Tensor):
        same_kind = one.dtype == other.dtype and one.shape == other.shape
        return same_kind and torch.equal(bits(one), bits(other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(equal(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


def bits(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)


def train(build: Build, path: Path, stream: Any, evaluated: Any, *, stop: int | None = None) -> Any:
    """Train to the end, with a break and a new strategy after some experiences if asked."""
    strategy = build()
    torch.manual_seed(1)
    np.random.seed(1)
    done = 0
    while done < len(stream):
        if done == stop:
            save_training(path, strategy)
            strategy = build()
            torch.manual_seed(99)
            np.random.seed(99)
            assert resume_training(path, strategy, stream, evaluated) == done
        elif stop is not None and done == 0:
            assert resume_training(path, strategy, stream, evaluated) == 0
        strategy.train(stream[done])
        strategy.eval(evaluated)
        done += 1
    return strategy


def goes_on(build: Build, path: Path, stream: Any = None, stop: int = 2) -> tuple[Any, Any]:
    """Compare an interrupted training with one that was not."""
    usual, evaluated = streams_of("one head, momentum")
    stream = usual if stream is None else stream
    whole = train(build, path, stream, evaluated)
    resumed = train(build, path, stream, evaluated, stop=stop)
    for part, expected in outcome(whole).items():
        assert equal(expected, outcome(resumed)[part]), part
    groups = [{k: v for k, v in g.items() if k != "params"} for g in whole.optimizer.param_groups]
    again = [{k: v for k, v in g.items() if k != "params"} for g in resumed.optimizer.param_groups]
    assert equal(groups, again)
    return whole, resumed
