"""Classifiers that grow, and several heads: importance stays with the units it belongs to."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from avalanche.models import IncrementalClassifier, MultiHeadClassifier, MultiTaskModule
from avalanche.models import as_multitask as make_multitask
from torch import Tensor, nn
from torch.optim import SGD, Adam

from si_avalanche import SIPlugin
from tests.digits import Network, digits_benchmark, network, train, weights, with_si


class Incremental(nn.Module):
    """A trunk and Avalanche's growing classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Linear(64, 20)
        self.classifier = IncrementalClassifier(20, initial_out_features=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.relu(self.features(x)))


class MultiHead(MultiTaskModule):
    """A trunk and Avalanche's classifier with one head per task."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Linear(64, 20)
        self.classifier = MultiHeadClassifier(20, initial_out_features=2)

    def forward(self, x: Tensor, task_labels: Tensor) -> Tensor:
        return self.classifier(torch.relu(self.features(x)), task_labels)


def test_units_that_a_classifier_grows_start_unprotected_and_the_old_ones_keep_their_state() -> (
    None
):
    torch.manual_seed(0)
    model = Incremental()
    seen: list[dict[str, Any]] = []

    class Watch(SIPlugin):
        """Notes importance and anchor of the classifier when a task begins."""

        def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
            super().before_training_exp(strategy)
            name = "classifier.classifier.weight"
            seen.append(
                {
                    "omega": self.si.omega[name].clone(),
                    "anchor": self.si.prev_params[name].clone(),
                    "weights": model.classifier.classifier.weight.detach().clone(),
                }
            )

        def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
            super().after_training_exp(strategy)
            seen[-1]["after"] = self.si.omega["classifier.classifier.weight"].clone()

    train(with_si(model, Watch()), digits_benchmark().train_stream)
    assert [len(s["omega"]) for s in seen] == [2, 4, 6, 8, 10]
    for earlier, later in pairwise(seen):
        n = len(earlier["after"])
        assert torch.equal(later["omega"][:n], earlier["after"])
        assert not later["omega"][n:].any()
        assert torch.equal(later["anchor"], later["weights"])
        assert later["after"][n:].any()


def multi_head() -> nn.Module:
    torch.manual_seed(0)
    return MultiHead()


def as_multitask() -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = make_multitask(Network(), "classifier")
    return model


@pytest.mark.parametrize("model_of", [multi_head, as_multitask])
@pytest.mark.parametrize(
    "optimizer_of",
    [
        lambda p: SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01),
        lambda p: Adam(p, lr=0.01, weight_decay=0.01),
    ],
    ids=["sgd", "adam"],
)
def test_heads_that_are_not_in_use_do_not_move(model_of: Any, optimizer_of: Any) -> None:
    model = model_of()
    plugin = SIPlugin(c=1.0)
    strategy = with_si(model, plugin, optimizer=optimizer_of(model.parameters()))
    stream = digits_benchmark(task_labels=True).train_stream
    trained: dict[str, Tensor] = {}
    for task, experience in enumerate(stream):
        train(strategy, [experience])
        now = weights(model)
        for name, before in trained.items():
            if f".{task}." not in name and ".classifiers." in name:
                assert torch.equal(now[name], before), name
        trained = now
    heads = [name for name in plugin.si.omega if ".classifiers." in name]
    assert len(heads) == 10
    assert all(plugin.si.omega[name].any() for name in heads)


def test_a_head_added_by_evaluation_before_its_task_is_no_obstacle() -> None:
    benchmark = digits_benchmark(task_labels=True)
    model = multi_head()
    plugin = SIPlugin()
    strategy = with_si(model, plugin)
    known = []
    for experience in benchmark.train_stream[:2]:
        train(strategy, [experience])
        known.append(len([name for name in plugin.si.omega if ".classifiers." in name]))
        strategy.eval(benchmark.test_stream)
    assert known == [2, 10]


def test_evaluation_within_training_that_grows_the_classifier_is_followed() -> None:
    benchmark = digits_benchmark()
    torch.manual_seed(0)
    model = Incremental()
    plugin = SIPlugin()
    strategy = with_si(model, plugin, eval_every=1)
    torch.manual_seed(1)
    strategy.train(benchmark.train_stream[0], eval_streams=[benchmark.test_stream])
    assert plugin.si.omega["classifier.classifier.weight"].shape == (10, 20)
    strategy.train(benchmark.train_stream[1], eval_streams=[benchmark.test_stream])
    assert plugin.si.omega["classifier.classifier.weight"][:4].any(dim=1).all()


def test_importance_is_where_the_strategys_device_is() -> None:
    plugin = SIPlugin()
    train(with_si(network(), plugin, device="cpu"), digits_benchmark().train_stream[:1])
    assert {omega.device.type for omega in plugin.si.omega.values()} == {"cpu"}


@pytest.mark.gpu
def test_on_a_gpu_importance_stays_there_and_equals_that_of_the_cpu() -> None:
    found = {}
    for device in ("cpu", "cuda"):
        plugin = SIPlugin()
        train(with_si(network(), plugin, device=device), digits_benchmark().train_stream[:3])
        assert {omega.device.type for omega in plugin.si.omega.values()} == {device}
        found[device] = {name: omega.cpu() for name, omega in plugin.si.omega.items()}
    for name, omega in found["cpu"].items():
        torch.testing.assert_close(found["cuda"][name], omega, rtol=1e-2, atol=1e-3)
