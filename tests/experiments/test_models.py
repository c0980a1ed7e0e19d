from pathlib import Path

import pytest
import torch
from torch import nn

from experiments.models import make_model
from experiments.records import Data, Network
from experiments.streams import make_benchmark
from experiments.untyped import Experiences


def stream(scenario: str, *, global_labels: bool = False) -> Experiences:
    data = Data("digits", scenario)
    return make_benchmark(data, 0, Path("nowhere"), global_labels=global_labels).train_stream


def gradients(model: nn.Module, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    nn.functional.cross_entropy(logits, labels).backward()
    head = model.get_submodule("head")
    assert isinstance(head, nn.Linear)
    assert head.weight.grad is not None
    return head.weight.grad.abs().sum(dim=1)


def test_a_multi_head_network_has_all_heads_and_has_seen_no_task() -> None:
    model = make_model(Network(hidden=(8,), head="multi"), (64,), stream("task"))
    assert model.training
    heads = {name.split(".")[2] for name in model.state_dict() if "classifiers" in name}
    assert heads == {"0", "1", "2", "3", "4"}
    inputs = torch.rand(3, 64)
    assert model(inputs, None) == {}
    for task in range(5):
        assert model(inputs, torch.full((3,), task)).shape == (3, 2)


def test_a_batch_of_one_task_gets_the_logits_and_gradients_that_avalanches_heads_give() -> None:
    model = make_model(Network(hidden=(8,), head="multi"), (64,), stream("task"))
    inputs, tasks = torch.rand(5, 64), torch.full((5,), 3)
    parameters = list(model.parameters())
    trunk, head = model.get_submodule("trunk"), model.get_submodule("head")
    found = []
    for logits in (model(inputs, tasks), head(trunk(inputs), tasks)):
        given = torch.autograd.grad(logits.square().sum(), parameters, allow_unused=True)
        found.append([logits, *(each for each in given if each is not None)])
    assert len(found[0]) == 1 + 4
    for own, avalanches in zip(*found, strict=True):
        assert torch.equal(own, avalanches)
    mixed = torch.tensor([3, 0, 3, 3, 1])
    rows = zip(inputs, mixed, strict=True)
    alone = torch.cat([model(row[None], task[None]) for row, task in rows])
    assert torch.allclose(model(inputs, mixed), alone)


@pytest.mark.parametrize(("scenario", "outputs"), [("domain", 2), ("class", 10), ("online", 10)])
def test_a_single_head_network_has_one_head_for_everything(scenario: str, outputs: int) -> None:
    model = make_model(Network(hidden=(8,)), (64,), stream(scenario))
    assert model(torch.rand(3, 64)).shape == (3, outputs)


def test_a_task_head_is_a_softmax_over_the_classes_of_each_samples_task() -> None:
    model = make_model(Network(hidden=(8,), head="task"), (64,), stream("task", global_labels=True))
    inputs, tasks = torch.rand(3, 64), torch.tensor([0, 3, 3])
    logits = model(inputs, tasks)
    chances = logits.softmax(dim=1)
    for row, task in zip(chances, tasks.tolist(), strict=True):
        inside = row[2 * task : 2 * task + 2]
        assert (inside > 0).all()
        assert inside.sum().item() == pytest.approx(1)
        assert (row > 0).sum() == 2
    found = gradients(model, logits, torch.tensor([0, 6, 7]))
    assert (found > 0).tolist() == [True, True, *[False] * 4, True, True, False, False]


def test_a_task_head_tells_the_logits_of_every_task() -> None:
    model = make_model(Network(hidden=(8,), head="task"), (64,), stream("task", global_labels=True))
    inputs = torch.rand(3, 64)
    by_task = model(inputs, None)
    assert set(by_task) == set(range(5))
    for task, logits in by_task.items():
        assert torch.equal(logits, model(inputs, torch.full((3,), task)))


def test_a_seen_head_is_a_softmax_over_the_classes_trained_on_so_far() -> None:
    experiences = stream("class")
    model = make_model(Network(hidden=(8,), head="seen"), (64,), experiences)
    inputs = torch.rand(3, 64)
    for number, experience in enumerate(experiences, start=1):
        model.get_submodule("").adaptation(experience)  # type: ignore[operator]
        chances = model(inputs).softmax(dim=1)
        assert (chances > 0).sum(dim=1).tolist() == [2 * number] * 3
        if number == 2:
            found = gradients(model, model(inputs), torch.tensor([0, 1, 2]))
            assert (found > 0).tolist() == [True] * 4 + [False] * 6


def test_a_seen_head_learns_no_class_from_an_evaluation() -> None:
    experiences = stream("class")
    model = make_model(Network(hidden=(8,), head="seen"), (64,), experiences)
    model.get_submodule("").adaptation(experiences[0])  # type: ignore[operator]
    model.eval()
    model.get_submodule("").adaptation(experiences[1])  # type: ignore[operator]
    assert (model(torch.rand(1, 64)).softmax(dim=1) > 0).sum() == 2


def layers(model: nn.Module, kind: type[nn.Module]) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, kind)]


def test_hidden_layers_have_the_widths_asked_for_and_perhaps_normalisation() -> None:
    plain = make_model(Network(hidden=(8, 6)), (64,), stream("class"))
    shapes = [tuple(parameter.shape) for parameter in plain.parameters()]
    assert shapes == [(8, 64), (8,), (6, 8), (6,), (10, 6), (10,)]
    assert not layers(plain, nn.BatchNorm1d)
    normalised = make_model(Network(hidden=(8, 6), normalised=True), (64,), stream("class"))
    assert [each.num_features for each in layers(normalised, nn.BatchNorm1d)] == [8, 6]


def test_glorot_weights_are_uniform_within_keras_bounds_and_biases_are_zero() -> None:
    model = make_model(Network(hidden=(400,), initial="glorot"), (64,), stream("class"))
    first = layers(model, nn.Linear)[0]
    assert isinstance(first, nn.Linear)
    bound = (6 / (64 + 400)) ** 0.5
    assert first.weight.abs().max() <= bound
    assert first.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)
    for layer in layers(model, nn.Linear):
        assert (layer.bias == 0).all()  # type: ignore[union-attr]


@pytest.mark.parametrize("head", ["single", "multi"])
def test_a_head_that_starts_at_zero_gives_every_class_the_same_chance(head: str) -> None:
    scenario = "task" if head == "multi" else "class"
    model = make_model(Network(hidden=(8,), head=head, zero_head=True), (64,), stream(scenario))
    inputs = torch.rand(3, 64)
    logits = model(inputs, torch.zeros(3, dtype=torch.long)) if head == "multi" else model(inputs)
    assert (logits == 0).all()
    assert (layers(model, nn.Linear)[0].weight != 0).any()  # type: ignore[union-attr]


def test_the_convolutional_network_is_zenkes() -> None:
    model = make_model(Network("cnn", (512,)), (3, 32, 32), stream("class"))
    shapes = [
        tuple(each.weight.shape)
        for each in model.modules()
        if isinstance(each, (nn.Conv2d, nn.Linear))
    ]
    # 32 pixels, 30 without a border, 15 pooled, 13 without a border, 6 pooled.
    assert shapes == [
        (32, 3, 3, 3),
        (32, 32, 3, 3),
        (64, 32, 3, 3),
        (64, 64, 3, 3),
        (512, 64 * 6 * 6),
        (10, 512),
    ]
    assert [each.p for each in layers(model, nn.Dropout)] == [0.25, 0.25, 0.5]
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 10)
