"""Models that grow, freeze, move or are wrapped: state stays with the units it belongs to."""

import copy
import logging
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD

from si_avalanche import (
    ModelChangedError,
    SynapticIntelligence,
)
from tests.exactness.growing import Growing, train


def test_a_dtype_changed_between_two_steps_is_followed() -> None:
    model = nn.Linear(3, 2)
    si = SynapticIntelligence(model)
    for dtype in (torch.float32, torch.float64):
        model.to(dtype)
        model.zero_grad()
        model(torch.ones(1, 3, dtype=dtype)).sum().backward()
        optimizer = SGD(model.parameters(), lr=0.1)
        si.attach(optimizer)
        optimizer.step()
    assert si.running_sum["weight"].dtype == torch.float64


def test_a_model_converted_before_its_first_step_is_followed() -> None:
    model = nn.Linear(3, 2)
    si = SynapticIntelligence(model)
    model.double()
    optimizer = SGD(model.parameters(), lr=0.1)
    si.attach(optimizer)
    model(torch.ones(4, 3).double()).square().mean().backward()
    optimizer.step()
    assert si.running_sum["weight"].dtype == torch.float64
    assert si.running_sum["weight"].any()


@pytest.mark.parametrize("in_mid_task", [False, True])
def test_a_grown_layer_keeps_the_state_of_its_old_units_and_starts_new_ones_unprotected(
    in_mid_task: bool,
) -> None:
    torch.manual_seed(0)
    model = Growing(2)
    si = SynapticIntelligence(model)
    train(model, si)
    si.update_omega()
    if in_mid_task:
        train(model, si)
    omega, anchor = si.omega["head.weight"].clone(), si.prev_params["head.weight"].clone()
    path = si.running_sum["head.weight"].clone()
    model.grow(5)
    new = model.head.weight[2:].detach().clone()
    si.begin_task()
    assert torch.equal(si.omega["head.weight"][:2], omega)
    assert torch.equal(si.prev_params["head.weight"][:2], anchor)
    assert torch.equal(si.running_sum["head.weight"][:2], path)
    assert path.any() == in_mid_task
    assert not si.omega["head.weight"][2:].any()
    assert not si.running_sum["head.weight"][2:].any()
    assert torch.equal(si.prev_params["head.weight"][2:], new)
    train(model, si)
    si.update_omega()
    assert si.omega["head.weight"][2:].any()


def test_a_layer_that_grew_between_two_steps_is_followed_without_a_word() -> None:
    torch.manual_seed(0)
    model = Growing(2)
    si = SynapticIntelligence(model)
    train(model, si)
    si.penalty()
    model.grow(3)
    train(model, si, steps=1)
    assert si.running_sum["head.weight"].shape == (3, 3)
    assert si.running_sum["head.weight"][2].any()


def test_shrinking_or_removing_a_protected_layer_is_refused_and_changes_nothing() -> None:
    model = Growing(4)
    si = SynapticIntelligence(model)
    train(model, si)
    si.update_omega()
    before = {name: omega.clone() for name, omega in si.omega.items()}
    head = model.head
    for replacement, message in (
        (nn.Linear(3, 2), "may only grow"),
        (nn.ReLU(), "not in the model"),
    ):
        model.head = replacement  # type: ignore[assignment]
        model.other = nn.Linear(1, 1)
        with pytest.raises(ModelChangedError, match=message):
            si.begin_task()
    model.head = head
    assert si.omega.keys() == before.keys()
    assert all(torch.equal(si.omega[name], omega) for name, omega in before.items())


def compiled(module: nn.Module) -> Any:
    """The module as ``torch.compile`` wraps it, without the need for a compiler."""
    return torch.compile(module, backend="eager")


@pytest.mark.parametrize("wrapped", ["whole", "part"])
def test_compiling_between_tasks_changes_no_name(wrapped: str) -> None:
    torch.manual_seed(0)
    model = Growing(2)
    si = SynapticIntelligence(model)
    train(model, si)
    si.update_omega()
    omega = {name: importance.clone() for name, importance in si.omega.items()}
    whole: nn.Module = model
    if wrapped == "whole":
        whole = compiled(model)
    else:
        model.head = compiled(model.head)
    si.begin_task(whole)
    assert set(si.omega) == {"head.weight", "head.bias"}
    assert all(torch.equal(si.omega[name], omega[name]) for name in omega)
    train(model, si)
    assert si.running_sum["head.weight"].any()


def test_a_data_parallel_wrapper_leaves_no_trace_in_names() -> None:
    wrapped = compiled(nn.DataParallel(Growing(2)))
    assert set(SynapticIntelligence(wrapped, exclude=["head.bias"]).omega) == {"head.weight"}


def test_a_data_parallel_wrapper_around_a_part_leaves_no_trace_in_names() -> None:
    torch.manual_seed(0)
    model: Any = Growing(2)
    si = SynapticIntelligence(model)
    train(model, si)
    si.update_omega()
    omega = si.omega["head.weight"].clone()
    model.head = nn.DataParallel(model.head)
    si.begin_task()
    assert set(si.omega) == {"head.weight", "head.bias"}
    assert torch.equal(si.omega["head.weight"], omega)
    assert set(SynapticIntelligence(model).omega) == {"head.weight", "head.bias"}


@pytest.mark.parametrize("fused", [False, True])
def test_a_compiled_model_learns_as_the_plain_one(fused: bool) -> None:
    found = []
    for wrap in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
        runs = compiled(model) if wrap else model
        si = SynapticIntelligence(runs)
        optimizer = SGD(runs.parameters(), lr=0.1)
        si.attach(optimizer, fused=fused)
        for _ in range(2):
            for _ in range(3):
                optimizer.zero_grad()
                (runs(torch.ones(4, 3, dtype=torch.float64)) - 1).square().mean().backward()
                optimizer.step()
            si.update_omega()
        found.append(si.omega)
    assert found[0].keys() == found[1].keys()
    for name, omega in found[0].items():
        assert omega.any()
        torch.testing.assert_close(found[1][name], omega)


def test_a_model_moved_within_a_task_is_followed() -> None:
    torch.manual_seed(0)
    model = Growing(2)
    si = SynapticIntelligence(model)
    train(model, si)
    path = si.running_sum["head.weight"].clone()
    moved = copy.deepcopy(model).double()
    si.begin_task(moved)
    assert si.model is moved
    torch.testing.assert_close(si.running_sum["head.weight"], path.double())
    optimizer = SGD(moved.parameters(), lr=0.1)
    si.attach(optimizer)
    moved.head(torch.ones(2, 3, dtype=torch.float64)).square().mean().backward()
    optimizer.step()
    assert si.steps == 4
    si.update_omega()
    assert si.omega["head.weight"].dtype == torch.float64


def test_an_embedding_that_renormalises_itself_is_not_told_to_be_another(
    caplog: pytest.LogCaptureFixture,
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(6, 3, max_norm=0.5), nn.Linear(3, 2))
    si = SynapticIntelligence(model)
    optimizer = SGD(model.parameters(), lr=0.1)
    si.attach(optimizer)
    with caplog.at_level(logging.WARNING, logger="si_avalanche"):
        for _ in range(3):
            for step in range(3):
                optimizer.zero_grad()
                (model(torch.tensor([step, step + 1])) - 1).square().mean().backward()
                optimizer.step()
            si.update_omega()
            with torch.no_grad():
                model(torch.arange(6))
    assert not caplog.messages
    assert si.tasks == 3


def test_a_layer_lost_within_a_task_is_dropped_on_request_and_the_rest_goes_on() -> None:
    torch.manual_seed(0)
    model: Any = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)})
    si = SynapticIntelligence(model, replaced="drop")
    optimizer = SGD(model.parameters(), lr=0.1)
    si.attach(optimizer)

    def learn(*layers: str) -> None:
        optimizer.zero_grad()
        for name in layers:
            (model[name](torch.ones(2, 3)) - 1).square().mean().backward()
        optimizer.step()

    learn("a", "b")
    si.update_omega()
    learn("a", "b")
    path = si.running_sum["a.weight"].clone()
    del model["b"]
    si.begin_task()
    assert set(si.omega) == {"a.weight", "a.bias"}
    assert torch.equal(si.running_sum["a.weight"], path)
    learn("a")
    assert not torch.equal(si.running_sum["a.weight"], path)
    si.update_omega()
    assert si.tasks == 2
