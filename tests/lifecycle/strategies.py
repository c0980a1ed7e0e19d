"""Avalanche's strategies on digits, each built around a list of plugins."""

import random
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
from avalanche.benchmarks import nc_benchmark
from avalanche.core import BasePlugin
from avalanche.models import BaseModel, IncrementalClassifier, MlpVAE, SCRModel, VAE_loss
from avalanche.models import mobilenetv1 as avalanche_mobilenet
from avalanche.models.packnet import PackNetPlugin, packnet_simple_mlp
from avalanche.models.pnn import PNN
from avalanche.training import plugins as companions
from avalanche.training import supervised
from avalanche.training.losses import MaskedCrossEntropy
from avalanche.training.templates import SupervisedTemplate
from pytorchcv.models.mobilenet import mobilenet_w1
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.optim import SGD

from tests.digits import LabelledTensors, Network, digits_benchmark, parts, silent_evaluator

Plugins: TypeAlias = Sequence[BasePlugin]
Build: TypeAlias = Callable[[Plugins], SupervisedTemplate]


class Growing(Network):
    """A trunk and Avalanche's growing classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = IncrementalClassifier(20, initial_out_features=2)


class WithFeatures(Network, BaseModel):
    """Shows its hidden layer, and takes images."""

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.get_features(x.flatten(1)))

    def get_features(self, x: Tensor) -> Tensor:
        return torch.relu(self.features(x))


class WithHidden(nn.Module):
    """Keeps what its hidden layer gave as ``features``."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.classifier = nn.Linear(64, 20), nn.Linear(20, 10)
        self.features: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.features = torch.relu(self.hidden(x))
        return self.classifier(self.features)


def trunk() -> nn.Sequential:
    return nn.Sequential(nn.Linear(64, 20), nn.ReLU())


def common(plugins: Plugins, model: nn.Module | None = None, **more: Any) -> dict[str, Any]:
    return parts(model or Network(), plugins=list(plugins), **{"train_epochs": 1, **more})


def wrapper(strategy: Any, **options: Any) -> Build:
    """A strategy that is told its options by name; its own plugin stands behind those given."""
    model = options.pop("model", Network)
    return lambda plugins: strategy(**common(plugins, model(), **options))


def without_criterion(strategy: Any, model: Any = Network, **options: Any) -> Build:
    """A strategy that brings its own loss, which is part of it."""

    def build(plugins: Plugins) -> SupervisedTemplate:
        arguments = common(plugins, model(), **options)
        del arguments["criterion"]
        return strategy(**arguments)

    return build


def before(plugin: Callable[[nn.Module], BasePlugin], model: Any = Network, **more: Any) -> Build:
    """Naive with another plugin that stands before those given."""

    def build(plugins: Plugins) -> SupervisedTemplate:
        network = model()
        return supervised.Naive(**common([plugin(network), *plugins], network, **more))

    return build


def er_aml(plugins: Plugins) -> SupervisedTemplate:
    model = Network()
    # Its loaders drop incomplete batches: a class with fewer samples than a batch never ends.
    options = common(plugins, model, train_mb_size=16)
    return supervised.ER_AML(
        feature_extractor=model.features, mem_size=200, batch_size_mem=10, **options
    )


def icarl(plugins: Plugins) -> SupervisedTemplate:
    features, classifier = trunk(), nn.Linear(20, 10)
    return supervised.ICaRL(
        feature_extractor=features,
        classifier=classifier,
        optimizer=SGD([*features.parameters(), *classifier.parameters()], lr=0.05, momentum=0.9),
        memory_size=60,
        buffer_transform=None,
        fixed_memory=True,
        train_mb_size=32,
        eval_mb_size=32,
        plugins=list(plugins),
        evaluator=silent_evaluator,
    )


def ar1(plugins: Plugins) -> SupervisedTemplate:
    """Avalanche's own AR1 and its own network, with random weights: the others are a download."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(avalanche_mobilenet, "mobilenet_w1", lambda pretrained: mobilenet_w1())
        return supervised.AR1(
            train_epochs=1,
            train_mb_size=16,
            eval_mb_size=16,
            rm_sz=16,
            plugins=list(plugins),
            evaluator=silent_evaluator,
        )


def generative_replay(plugins: Plugins) -> SupervisedTemplate:
    vae = MlpVAE((1, 8, 8), nhid=2)
    generator = vae_training([companions.GenerativeReplayPlugin()], vae)
    return supervised.GenerativeReplay(
        generator_strategy=generator, **common(plugins, WithFeatures())
    )


def vae_training(plugins: Plugins, vae: nn.Module | None = None) -> SupervisedTemplate:
    model = vae or MlpVAE((1, 8, 8), nhid=2)
    options = common(plugins, model, optimizer=SGD(model.parameters(), lr=1e-3))
    return supervised.VAETraining(**{**options, "criterion": VAE_loss})


def packnet() -> nn.Module:
    return packnet_simple_mlp(num_classes=10, input_size=64, hidden_size=20, drop_rate=0)


def scr_model() -> nn.Module:
    return SCRModel(trunk(), projection=nn.Linear(20, 10))


def pnn() -> nn.Module:
    return PNN(num_layers=1, in_features=64, hidden_features_per_column=20)


MIR_OPTIONS = {"mem_size": 60, "subsample": 40, "batch_size_mem": 10}
RAR_OPTIONS = {"mem_size": 60, "batch_size_mem": 10, "iter_fgsm": 1, "name_ext_layer": "features"}
GSS_OPTIONS = {"mem_size": 150, "mem_strength": 2, "input_size": [64]}

WORKING: dict[str, Build] = {
    "Naive": wrapper(supervised.Naive),
    "Replay": wrapper(supervised.Replay, mem_size=60),
    "LwF": wrapper(supervised.LwF, alpha=1.0, temperature=2.0),
    "EWC": wrapper(supervised.EWC, ewc_lambda=1.0),
    "EWC, online": wrapper(supervised.EWC, ewc_lambda=1.0, mode="online", decay_factor=0.9),
    "MAS": wrapper(supervised.MAS, lambda_reg=1.0, alpha=0.5),
    # A checkpoint every fifth step: without one in each experience RWalk divides by zero.
    "RWalk": before(lambda _: companions.RWalkPlugin(delta_t=5)),
    "AGEM": wrapper(supervised.AGEM, patterns_per_exp=20, sample_size=20),
    # Nothing to project in the first step of an experience, only now and then later on.
    "AGEM, same experience again": wrapper(supervised.AGEM, patterns_per_exp=20, sample_size=20),
    "AGEM, before": before(lambda _: companions.AGEMPlugin(20, 20)),
    "ER_ACE": wrapper(supervised.ER_ACE, mem_size=60, batch_size_mem=10),
    "ER_AML": er_aml,
    "DER": wrapper(supervised.DER, mem_size=60, batch_size_mem=10),
    "Cumulative": wrapper(supervised.Cumulative),
    "JointTraining": wrapper(supervised.JointTraining),
    "CWRStar": wrapper(supervised.CWRStar, cwr_layer_name="classifier"),
    "CWRStar, before": before(lambda model: companions.CWRStarPlugin(model, "classifier")),
    "AR1": ar1,
    "ICaRL": icarl,
    "MIR": wrapper(supervised.MIR, **MIR_OPTIONS),
    "MIR, before": before(lambda _: companions.MIRPlugin(**MIR_OPTIONS)),
    "GSS_greedy": wrapper(supervised.GSS_greedy, **GSS_OPTIONS),
    "GSS_greedy, before": before(lambda _: companions.GSS_greedyPlugin(**GSS_OPTIONS)),
    "CoPE": before(lambda _: companions.CoPEPlugin(60, p_size=10, max_it_cnt=4)),
    "PNN": wrapper(supervised.PNNStrategy, model=pnn),
    "GDumb": wrapper(supervised.GDumb, mem_size=60),
    "GDumb, growing": wrapper(supervised.GDumb, mem_size=60, model=Growing),
    "FromScratch": wrapper(supervised.FromScratchTraining),
    "FromScratch, before": before(lambda _: companions.FromScratchTrainingPlugin()),
    "FromScratch, growing": wrapper(supervised.FromScratchTraining, model=Growing),
    "SCR": without_criterion(supervised.SCR, scr_model, mem_size=60, batch_size_mem=10),
    "LFL": wrapper(supervised.LFL, lambda_e=0.1, model=WithFeatures),
    "FeatureDistillation": before(lambda _: companions.FeatureDistillationPlugin(), WithHidden),
    "FeatureReplay": lambda plugins: supervised.FeatureReplay(
        # Its default loss is one object that carries classes over from strategy to strategy.
        mem_size=60,
        batch_size_mem=10,
        **common(plugins, criterion=MaskedCrossEntropy()),
    ),
    "RAR": before(lambda _: companions.RARPlugin(**RAR_OPTIONS)),
    "GenerativeReplay": generative_replay,
    "VAETraining": vae_training,
    "PackNet's plugin": before(lambda _: PackNetPlugin(1, 0.5), packnet, train_epochs=2),
    "OnlineNaive": lambda plugins: supervised.OnlineNaive(
        **{k: v for k, v in common(plugins).items() if k != "train_epochs"}
    ),
    "Avalanche's SI": wrapper(supervised.SynapticIntelligence, si_lambda=1.0),
}

# What is learnt in one experience, or in layers that are frozen afterwards, needs no protection.
NOTHING_TO_PULL_BACK = ("JointTraining", "PNN")


@cache
def stream_of(name: str) -> Any:
    """Three experiences in the form that the strategy needs."""
    if name == "AR1":
        return images(60, side=128, channels=3)
    if name.endswith("same experience again"):
        return [digits_benchmark().train_stream[0]] * 3
    if name in ("GenerativeReplay", "VAETraining"):
        return images(500, side=8, channels=1)
    return digits_benchmark(task_labels=name.startswith(("PNN", "PackNet"))).train_stream[:3]


def images(count: int, side: int, channels: int) -> Any:
    pixels, labels = load_digits(return_X_y=True)
    small = torch.tensor(pixels[:count] / 16, dtype=torch.float32).view(-1, 1, 8, 8)
    large = small.repeat_interleave(side // 8, 2).repeat_interleave(side // 8, 3)
    data = LabelledTensors(large.expand(-1, channels, -1, -1), torch.tensor(labels[:count]))
    benchmark = nc_benchmark(data, data, 5, False, fixed_class_order=list(range(10)))
    return benchmark.train_stream[:3]


def seed(value: int) -> None:
    torch.manual_seed(value)
    np.random.seed(value)
    random.seed(value)


def run(name: str, build: Build, plugins: Plugins = (), experiences: int = 3) -> SupervisedTemplate:
    """Build and train with the same random numbers each time."""
    seed(0)
    strategy = build(plugins)
    seed(1)
    stream = stream_of(name)[:experiences]
    for experience in [stream] if name == "JointTraining" else stream:
        strategy.train(experience)
    return strategy


def everything(model: nn.Module) -> dict[str, Tensor]:
    """Weights and buffers."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}
