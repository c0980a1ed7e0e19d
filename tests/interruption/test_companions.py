"""What is trained beside Synaptic Intelligence goes on as if nothing had happened."""

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.benchmarks import split_online_stream
from avalanche.evaluation.metrics import StreamConfusionMatrix, class_accuracy_metrics
from avalanche.training import Naive
from avalanche.training.plugins import (
    EarlyStoppingPlugin,
    EvaluationPlugin,
    EWCPlugin,
    GEMPlugin,
    LRSchedulerPlugin,
    MASPlugin,
    RWalkPlugin,
    SupervisedPlugin,
    SynapticIntelligencePlugin,
)
from torch import Tensor, nn
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import ExponentialLR, OneCycleLR, ReduceLROnPlateau

from si_avalanche import SIPlugin, resume_training, save_training
from tests.digits import Network, naive
from tests.interruption.portraits import portrait
from tests.interruption.trainings import (
    TRAININGS,
    Growing,
    Quiet,
    equal,
    evaluator,
    outcome,
    small_benchmark,
    streams_of,
)

Build = Callable[[], Any]

BASE = TRAININGS["one head, momentum"][0]


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


class Scaled(Naive):
    """Trains with scaled losses, as automatic mixed precision does."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=3)
        self.batches_seen = 0
        self.own = np.random.default_rng(5)

    def backward(self) -> None:
        self.batches_seen += 1
        self.scaler.scale(self.loss * self.own.random()).backward()
        self.scaler.unscale_(self.optimizer)

    def optimizer_step(self) -> None:
        self.scaler.step(self.optimizer)
        self.scaler.update()


class LearntLoss(nn.Module):
    """A criterion with a weight that is trained and a buffer that counts."""

    calls: Tensor
    transient: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.tensor(1.0))
        self.register_buffer("calls", torch.tensor(0))
        self.register_buffer("transient", torch.tensor(0.0), persistent=False)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        self.calls += 1
        self.transient += 0.5
        return nn.functional.cross_entropy(output * self.temperature, target)


def with_everything() -> Naive:
    torch.manual_seed(0)
    model, criterion = Network(), LearntLoss()
    for parameter in model.features.parameters():
        parameter.requires_grad = False
    optimizer = Adam(
        [
            {"params": model.classifier.parameters(), "lr": 0.01},
            {"params": [*criterion.parameters(), *model.features.parameters()], "lr": 0.001},
        ]
    )
    return Scaled(
        model=model,
        optimizer=optimizer,
        criterion=criterion,
        train_mb_size=16,
        plugins=[Thaw(), SIPlugin()],
        evaluator=evaluator(),
    )


class Thaw(SupervisedPlugin):
    """Trains the features from the second experience on, and counts in strange places."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Any = defaultdict(int)
        self.seen: set[int] = set()

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.counts[strategy.clock.train_exp_counter, "exp"] += 1
        self.seen |= set(strategy.experience.classes_in_this_experience)
        self.late = (float("inf"), {1: torch.ones(2, dtype=torch.bfloat16)})
        if strategy.clock.train_exp_counter:
            for parameter in strategy.model.parameters():
                parameter.requires_grad = True


def test_scalers_generators_counters_criteria_groups_and_freezing_go_on(tmp_path: Path) -> None:
    whole, resumed = goes_on(with_everything, tmp_path / "run.checkpoint", stop=1)
    assert whole.scaler.state_dict() == resumed.scaler.state_dict()
    assert whole.scaler.get_scale() > 4.0
    assert whole.batches_seen == resumed.batches_seen > 0
    assert whole.own.random() == resumed.own.random()
    assert equal(dict(whole._criterion.named_buffers()), dict(resumed._criterion.named_buffers()))
    assert float(whole._criterion.temperature) == float(resumed._criterion.temperature) != 1.0
    assert whole.plugins[0].counts == resumed.plugins[0].counts
    assert whole.plugins[0].seen == resumed.plugins[0].seen
    assert resumed.plugins[0].late[0] == float("inf")


def test_what_was_frozen_is_frozen_again(tmp_path: Path) -> None:
    strategy = BASE()
    strategy.train(streams_of("one head, momentum")[0][0])
    strategy.model.features.weight.requires_grad = False
    strategy.model.features.eval()
    save_training(tmp_path / "c", strategy)
    resumed = BASE()
    weight = resumed.model.features.weight
    resume_training(tmp_path / "c", resumed, streams_of("one head, momentum")[0])
    assert resumed.model.features.weight is weight
    assert not weight.requires_grad
    assert resumed.model.features.bias.requires_grad
    assert not resumed.model.features.training
    assert resumed.model.classifier.training


class Diary(SupervisedPlugin):
    """Stores itself, and refers to everything around it."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.around: list[Any] = []

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.lines.append(str(strategy.clock.train_exp_counter))

    def state_dict(self) -> dict[str, Any]:
        return {"lines": self.lines}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.lines = state["lines"]


class Neighbour(SupervisedPlugin):
    """Holds what belongs to others."""

    def __init__(self, diary: Diary) -> None:
        super().__init__()
        self.diary = diary
        self.held: list[Any] = []

    def before_training(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.held = [strategy, strategy.model.features, strategy.optimizer, self, self.diary]
        self.held += [strategy.model.classifier.bias, strategy.evaluator]


def test_references_are_to_what_the_new_strategy_has(tmp_path: Path) -> None:
    def build() -> Naive:
        diary = Diary()
        return BASE([diary, Neighbour(diary)])

    stream, evaluated = streams_of("one head, momentum")
    strategy = build()
    strategy.train(stream[0])
    save_training(tmp_path / "c", strategy)
    resumed = build()
    resume_training(tmp_path / "c", resumed, stream, evaluated)
    diary, neighbour = resumed.plugins[:2]
    assert diary.lines == ["0"]
    assert neighbour.diary is diary
    expected = [resumed, resumed.model.features, resumed.optimizer, neighbour, diary]
    expected += [resumed.model.classifier.bias, resumed.evaluator]
    assert all(a is b for a, b in zip(neighbour.held, expected, strict=True))


def test_parts_of_an_online_stream_are_counted_and_resumed(tmp_path: Path) -> None:
    torch.manual_seed(3)
    stream = list(
        split_online_stream(
            small_benchmark().train_stream[:2],
            experience_size=40,
            access_task_boundaries=True,
        )
    )
    assert len(stream) > 3
    whole, resumed = goes_on(
        lambda: TRAININGS["growing, AdamW"][0](), tmp_path / "c", stream, stop=3
    )
    assert whole.plugins[0].experiences == resumed.plugins[0].experiences == 2


def test_values_that_are_no_numbers_are_left_out_with_a_warning(tmp_path: Path) -> None:
    def build() -> Naive:
        metrics = [*class_accuracy_metrics(stream=True), StreamConfusionMatrix(save_image=False)]
        return BASE(evaluator=EvaluationPlugin(metrics, loggers=[Quiet()]))

    stream, evaluated = streams_of("one head, momentum")
    strategy = build()
    strategy.train(stream[0])
    strategy.eval(evaluated)
    strategy.evaluator.all_metric_results["a figure"] = ([1], [object()])
    with pytest.warns(UserWarning, match="leaves out the values of a figure"):
        save_training(tmp_path / "c", strategy)
    resumed = build()
    resume_training(tmp_path / "c", resumed, stream, evaluated)
    results = strategy.evaluator.all_metric_results
    assert results.keys() - resumed.evaluator.all_metric_results.keys() == {"a figure"}
    assert any("ConfusionMatrix" in name for name in resumed.evaluator.all_metric_results)
