"""Real handwritten digits as Avalanche streams, and strategies on them."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from avalanche.benchmarks import nc_benchmark
from avalanche.core import BasePlugin
from avalanche.training import Naive
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.templates import SupervisedTemplate
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.utils.data import TensorDataset

from si_avalanche import SIPlugin


class LabelledTensors(TensorDataset):
    """Samples with the list of targets that Avalanche splits streams by."""

    def __init__(self, inputs: Tensor, labels: Tensor) -> None:
        super().__init__(inputs, labels)
        self.targets = labels.tolist()


@cache
def digits_benchmark(*, task_labels: bool = False, experiences: int = 5) -> Any:
    """The digits in class order; with task labels, every experience has labels from 0."""
    pixels, labels = load_digits(return_X_y=True)
    inputs, targets = torch.tensor(pixels / 16, dtype=torch.float32), torch.tensor(labels)
    return nc_benchmark(
        LabelledTensors(inputs[:1000], targets[:1000]),
        LabelledTensors(inputs[1000:], targets[1000:]),
        n_experiences=experiences,
        task_labels=task_labels,
        fixed_class_order=list(range(10)),
        class_ids_from_zero_in_each_exp=task_labels,
    )


class Network(nn.Module):
    """One hidden layer and a ten-way output."""

    def __init__(self, outputs: int = 10) -> None:
        super().__init__()
        self.features = nn.Linear(64, 20)
        self.classifier = nn.Linear(20, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.relu(self.features(x)))


def network() -> Network:
    torch.manual_seed(0)
    return Network()


def parts(model: nn.Module, optimizer: Optimizer | None = None, **more: Any) -> dict[str, Any]:
    """The arguments that every strategy of these tests shares."""
    return {
        "model": model,
        "optimizer": optimizer or SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3),
        "criterion": nn.CrossEntropyLoss(),
        "train_mb_size": 32,
        "train_epochs": 2,
        "eval_mb_size": 256,
        "evaluator": silent_evaluator,
        **more,
    }


def silent_evaluator(*metrics: Any) -> EvaluationPlugin:
    return EvaluationPlugin(*metrics, loggers=[_Silent()])


class _Silent:
    """A logger that keeps nothing: an evaluator without any warns."""

    def log_metrics(self, metric_values: object) -> None:
        """Take the values and drop them."""


def naive(model: nn.Module, plugins: Sequence[BasePlugin] = (), **more: Any) -> Naive:
    return Naive(**parts(model, plugins=list(plugins), **more))


def with_si(model: nn.Module, plugin: SIPlugin | None = None, **more: Any) -> Naive:
    return naive(model, [plugin or SIPlugin()], **more)


def train(strategy: SupervisedTemplate, experiences: Sequence[Any], seed: int = 1) -> None:
    """Train with a random state of its own, so that equal strategies see equal batches."""
    torch.manual_seed(seed)
    for experience in experiences:
        strategy.train(experience)


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)
