"""Copies of the object, and of what it shows."""

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, Optimizer

from si_avalanche import SynapticIntelligence
from tests.exactness.steps import consolidated, go, loss_of, snapshot
from tests.saving import through_file

Training = tuple[nn.Module, SynapticIntelligence, Optimizer]


def by_torch_save(thing: Any) -> Any:
    file = io.BytesIO()
    torch.save(thing, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def by_pickle(thing: Any) -> Any:
    return pickle.loads(pickle.dumps(thing))


WAYS: list[Callable[[Any], Any]] = [copy.deepcopy, by_pickle, by_torch_save]
each_way = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)


def training(fused: bool = False, **options: Any) -> Training:
    """In the middle of the second task."""
    torch.manual_seed(0)
    network = nn.Linear(3, 2).double()
    si = consolidated(network, **options)
    optimizer = Adam(network.parameters(), lr=0.01)
    si.attach(optimizer, fused=fused)
    go(network, optimizer)
    return network, si, optimizer


@pytest.mark.parametrize("fused", [False, True])
@each_way
def test_a_copied_training_goes_on_by_itself(way: Callable[[Any], Any], fused: bool) -> None:
    network, si, optimizer = training(fused)
    twin, twin_si, twin_optimizer = way((network, si, optimizer))
    before = snapshot(si)
    go(twin, twin_optimizer)
    assert twin_si.steps == si.steps + 3
    assert all(map(torch.equal, snapshot(si), before))
    go(network, optimizer)
    assert all(map(torch.equal, snapshot(si), snapshot(twin_si)))
    assert not all(map(torch.equal, snapshot(si), before))
    twin_si.update_omega()
    assert (si.tasks, twin_si.tasks) == (1, 2)


@each_way
def test_a_copy_can_be_attached_to_an_optimiser_of_its_own(way: Callable[[Any], Any]) -> None:
    network, si, _ = training()
    si.detach()
    twin, twin_si = way((network, si))
    optimizers = [SGD(m.parameters(), lr=0.1) for m in (network, twin)]
    for m, each, optimizer in zip((network, twin), (si, twin_si), optimizers, strict=True):
        each.attach(optimizer)
        go(m, optimizer)
    assert all(map(torch.equal, snapshot(si), snapshot(twin_si)))


@each_way
def test_a_gradient_that_was_kept_is_copied_too(way: Callable[[Any], Any]) -> None:
    network, si, optimizer = training()
    optimizer.zero_grad()
    loss_of(network).backward()
    si.keep_gradient()
    nn.utils.clip_grad_norm_(network.parameters(), 1e-3)
    twin, twin_si, twin_optimizer = way((network, si, optimizer))
    for parameter, other in zip(network.parameters(), twin.parameters(), strict=True):
        assert parameter.grad is not None
        other.grad = parameter.grad.clone()
    optimizer.step()
    twin_optimizer.step()
    assert all(map(torch.equal, snapshot(si), snapshot(twin_si)))


@pytest.mark.parametrize("shown", ["omega", "running_sum", "prev_params", "importance"])
def test_what_is_shown_saves_copies_and_prints_as_a_dictionary_of_tensors(shown: str) -> None:
    _, si, _ = training()
    tensors = getattr(si, shown)
    assert type(tensors) is dict
    assert list(tensors) == ["weight", "bias"]
    for other in (
        through_file(tensors),
        copy.deepcopy(tensors),
        pickle.loads(pickle.dumps(tensors)),
    ):
        for name, tensor in tensors.items():
            assert torch.equal(other[name], tensor)
            assert other[name].data_ptr() != tensor.data_ptr()
    assert "tensor(" in str(tensors)
    assert "weight" in str(tensors)


def test_what_is_shown_are_the_kept_tensors_themselves() -> None:
    network, si, optimizer = training()
    path = si.path_integral["weight"]
    before = path.clone()
    go(network, optimizer)
    assert not torch.equal(path, before)
    si.omega["weight"].fill_(2.0)
    assert bool((si.importance["weight"] == 2.0).all())
    si.omega.clear()
    assert set(si.omega) == {"weight", "bias"}
