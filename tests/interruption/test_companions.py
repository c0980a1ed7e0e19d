"""What is trained beside Synaptic Intelligence goes on as if nothing had happened."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from avalanche.training import Naive
from avalanche.training.plugins import (
    EarlyStoppingPlugin,
    EvaluationPlugin,
    EWCPlugin,
    GEMPlugin,
    LRSchedulerPlugin,
    MASPlugin,
    RWalkPlugin,
    SynapticIntelligencePlugin,
)
from torch import Tensor
from torch.optim import SGD
from torch.optim.lr_scheduler import ExponentialLR, OneCycleLR, ReduceLROnPlateau

from si_avalanche import SIPlugin, resume_training, save_training
from tests.digits import Network, naive
from tests.interruption.portraits import portrait
from tests.interruption.trainings import (
    TRAININGS,
    Build,
    Growing,
    evaluator,
    goes_on,
    streams_of,
)

BASE = TRAININGS["one head, momentum"][0]


def scheduled(make: Callable[[Any], Any], **options: Any) -> Build:
    def build() -> Naive:
        torch.manual_seed(0)
        model = Network()
        optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
        scheduler = LRSchedulerPlugin(make(optimizer), **options)
        return naive(model, [SIPlugin(), scheduler], optimizer=optimizer, evaluator=evaluator)

    return build


class UnsolvedGEM(GEMPlugin):
    """GEM with its memory, without the solver that is not installed everywhere."""

    def solve_quadprog(self, gradient: Tensor) -> Tensor:
        return gradient


def growing_groups() -> Naive:
    torch.manual_seed(0)
    model = Growing()
    parts = (model.classifier, model.features)
    groups = [
        {"params": part.parameters(), "lr": lr}
        for part, lr in zip(parts, (0.05, 0.01), strict=True)
    ]
    return naive(model, [SIPlugin()], optimizer=SGD(groups, momentum=0.9), evaluator=evaluator)


COMPANIONS: dict[str, Build] = {
    "EWC": lambda: BASE([EWCPlugin(1.0)]),
    "online EWC": lambda: BASE([], [EWCPlugin(1.0, mode="online", decay_factor=0.5)]),
    "MAS": lambda: BASE([MASPlugin(0.01)]),
    "random walk": lambda: BASE([RWalkPlugin()]),
    "GEM": lambda: BASE([UnsolvedGEM(20, 0.5)]),
    "Avalanche's own SI": lambda: BASE([SynapticIntelligencePlugin(1.0)]),
    "a schedule": scheduled(lambda o: ExponentialLR(o, 0.9), reset_lr=False, reset_scheduler=False),
    "a schedule by iteration": scheduled(
        lambda o: OneCycleLR(o, 0.2, total_steps=1000),
        reset_lr=False,
        reset_scheduler=False,
        step_granularity="iteration",
    ),
    "a schedule by loss": scheduled(
        lambda o: ReduceLROnPlateau(o, patience=0),
        reset_lr=False,
        reset_scheduler=False,
        metric="train_loss",
    ),
    "early stopping": lambda: BASE(
        [EarlyStoppingPlugin(1, "train_stream")], eval_every=1, train_epochs=3
    ),
    "groups of growing layers": growing_groups,
    "no epochs": lambda: BASE(train_epochs=0),
    "one batch": lambda: BASE(train_mb_size=1000),
}


# Avalanche turns the loss into a number without detaching it.
@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad:UserWarning")
# Early stopping says at its first epoch that it has nothing to compare with.
@pytest.mark.filterwarnings("ignore:Metric Top1_Acc_Stream used by the EarlyStopping:UserWarning")
@pytest.mark.parametrize("build", COMPANIONS.values(), ids=COMPANIONS.keys())
def test_other_plugins_go_on_bit_for_bit(build: Build, tmp_path: Path) -> None:
    whole, resumed = goes_on(build, tmp_path / "run.checkpoint")
    for plugin, again in zip(whole.plugins, resumed.plugins, strict=True):
        if not isinstance(plugin, SIPlugin | EvaluationPlugin | LRSchedulerPlugin):
            assert nameless(portrait(plugin)) == nameless(portrait(again)), plugin


@pytest.mark.parametrize("name", TRAININGS)
@pytest.mark.parametrize("trained", [0, 1, 3])
def test_a_resumed_training_saves_the_very_same_file(
    name: str, trained: int, tmp_path: Path
) -> None:
    build, _ = TRAININGS[name]
    stream, evaluated = streams_of(name)
    strategy = build()
    for experience in stream[:trained]:
        strategy.train(experience)
        strategy.eval(evaluated)
    save_training(tmp_path / "first", strategy)
    resumed = build()
    assert resume_training(tmp_path / "first", resumed, stream, evaluated) == trained
    save_training(tmp_path / "second", resumed)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def nameless(picture: Any) -> Any:
    """A portrait without identities."""
    if isinstance(picture, tuple) and len(picture) == 3 and isinstance(picture[1], int):
        return picture[0], nameless(picture[2])
    return tuple(map(nameless, picture)) if isinstance(picture, tuple) else picture
