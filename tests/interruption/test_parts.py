"""Further parts of a strategy go on as if nothing had happened."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.benchmarks import split_online_stream
from avalanche.evaluation.metrics import StreamConfusionMatrix, class_accuracy_metrics
from avalanche.training import Naive
from avalanche.training.plugins import (
    EvaluationPlugin,
    SupervisedPlugin,
)
from torch import Tensor, nn
from torch.optim import Adam

from si_avalanche import SIPlugin, resume_training, save_training
from tests.digits import Network
from tests.interruption.trainings import (
    TRAININGS,
    Quiet,
    equal,
    evaluator,
    goes_on,
    small_benchmark,
    streams_of,
)

BASE = TRAININGS["one head, momentum"][0]


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
    temperatures = [s._criterion.temperature.item() for s in (whole, resumed)]
    assert temperatures[0] == temperatures[1] != 1.0
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
