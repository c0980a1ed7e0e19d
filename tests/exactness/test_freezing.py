"""Layers that are frozen and thawed, and models in which nothing is trained for a while."""

import logging
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD

from si_avalanche import (
    SynapticIntelligence,
)
from tests.exactness.growing import Growing, train


def test_a_layer_frozen_in_mid_task_gets_the_importance_it_has_earned() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    si = SynapticIntelligence(model)
    optimizer = SGD(model.parameters(), lr=0.1)
    si.attach(optimizer)
    for step in range(6):
        if step == 3:
            model[0].requires_grad_(False)
            earned = si.running_sum["0.weight"].clone()
        optimizer.zero_grad()
        (model(torch.ones(4, 3)) - 1).square().mean().backward()
        optimizer.step()
    assert torch.equal(si.running_sum["0.weight"], earned)
    si.update_omega()
    assert si.omega["0.weight"].any()
    assert not si.running_sum["0.weight"].any()


def test_a_layer_frozen_for_a_task_keeps_its_importance_for_later() -> None:
    torch.manual_seed(0)
    model = Growing(2)
    si = SynapticIntelligence(model)
    train(model, si)
    si.update_omega()
    omega = si.omega["head.weight"].clone()
    model.head.weight.requires_grad_(False)
    train(model, si)
    si.update_omega()
    assert "frozen" in si.skipped["head.weight"]
    assert torch.equal(si.omega["head.weight"], omega)
    model.head.weight.requires_grad_(True)
    train(model, si)
    assert si.running_sum["head.weight"].any()


def test_a_task_in_which_all_is_frozen_leaves_everything_as_it_is(
    caplog: pytest.LogCaptureFixture,
) -> None:
    torch.manual_seed(0)
    model: Any = nn.ModuleDict({"trunk": nn.Linear(3, 4), "head": nn.Linear(4, 2)})
    si = SynapticIntelligence(model, exclude=["head"])
    optimizer = SGD(model.parameters(), lr=0.1)
    si.attach(optimizer)

    def learn(steps: int = 3) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            (model["head"](model["trunk"](torch.ones(2, 3))) - 1).square().mean().backward()
            optimizer.step()

    learn()
    si.update_omega()
    omega = {name: importance.clone() for name, importance in si.omega.items()}
    model["trunk"].requires_grad_(False)
    head = model["head"].weight.detach().clone()
    with caplog.at_level(logging.WARNING, logger="si_avalanche"):
        si.begin_task()
    (message,) = caplog.messages
    assert "Nothing that is protected is trained now" in message
    assert "trunk.weight is frozen" in message
    learn()
    si.update_omega()
    assert (si.steps, si.tasks) == (0, 1)
    assert not torch.equal(model["head"].weight, head)
    assert all(torch.equal(si.omega[name], omega[name]) for name in omega)
    model["trunk"].requires_grad_(True)
    si.begin_task()
    learn()
    si.update_omega()
    assert si.tasks == 2
    assert len(caplog.messages) == 1


def test_a_model_may_start_frozen(caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    model = Growing(2)
    model.requires_grad_(False)
    with caplog.at_level(logging.WARNING, logger="si_avalanche"):
        si = SynapticIntelligence(model)
    assert "Nothing that is protected is trained now" in caplog.text
    assert si.omega == {}
    assert si.penalty().item() == si.total_importance().item() == 0
    assert si.state_dict()["tasks"] == 0
    si.update_omega()
    model.requires_grad_(True)
    train(model, si)
    si.update_omega()
    assert si.tasks == 1
    assert all(omega.any() for omega in si.omega.values())
