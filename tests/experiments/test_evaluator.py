"""The evaluator that sleeps while a strategy trains tells what Avalanche's own tells."""

from typing import Any

import pytest
import torch
from avalanche.evaluation.metrics import accuracy_metrics, bwt_metrics, forgetting_metrics
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.supervised import Naive
from torch import nn

from experiments.evaluator import AccuracyEvaluator
from experiments.models import make_model
from experiments.quiet import quiet
from experiments.records import Network
from experiments.streams.samples import Samples, benchmark_of


def avalanches() -> EvaluationPlugin:
    return EvaluationPlugin(
        accuracy_metrics(experience=True),
        forgetting_metrics(stream=True),
        bwt_metrics(stream=True),
    )


def told(evaluator: EvaluationPlugin, scenario: str) -> dict[str, tuple[list[int], list[Any]]]:
    noise = torch.Generator().manual_seed(0)
    parts = {
        part: [
            Samples(torch.rand(20, 3, generator=noise), torch.arange(20) % 2 + 2 * number)
            for number in range(3)
        ]
        for part in ("train", "test")
    }
    streams = benchmark_of(parts, scenario, own_classes=True, global_labels=False)
    torch.manual_seed(0)
    head = "multi" if scenario == "task" else "single"
    model = make_model(Network(hidden=(4,), head=head), (3,), streams.train_stream)
    strategy = Naive(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.5),
        criterion=nn.CrossEntropyLoss(),
        train_mb_size=4,
        eval_mb_size=6,
        evaluator=evaluator,
    )
    for experience in streams.train_stream:
        strategy.train(experience, eval_streams=[])
        last = strategy.eval(streams.test_stream)
    metrics: dict[str, tuple[list[int], list[Any]]] = evaluator.get_all_metrics()
    assert last == {name: values[-1] for name, (_, values) in metrics.items()}
    return metrics


@pytest.mark.parametrize("scenario", ["task", "domain", "class"])
def test_every_value_is_the_one_that_avalanches_evaluator_gives(scenario: str) -> None:
    with quiet():
        ours, theirs = told(AccuracyEvaluator(), scenario), told(avalanches(), scenario)
    assert ours == theirs
    kinds = {name.split("/")[0] for name in ours}
    assert kinds == {"Top1_Acc_Exp", "StreamForgetting", "StreamBWT"}


def test_it_has_no_hook_of_a_training_iteration() -> None:
    with quiet():
        hooks = {name for name in dir(AccuracyEvaluator()) if name.startswith(("before", "after"))}
        assert hasattr(avalanches(), "after_training_iteration")
    assert "before_training_exp" in hooks
    assert all("eval" in name for name in hooks - {"before_training_exp"})
