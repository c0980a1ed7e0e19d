"""Layers that were replaced, shrunk, removed or set anew outside training."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD

from si_avalanche import ConfigurationError, ModelChangedError, SynapticIntelligence


def make() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def train(model: nn.Module, si: SynapticIntelligence, steps: int = 4) -> None:
    optimizer = SGD(model.parameters(), lr=0.1)
    si.attach(optimizer)
    for _ in range(steps):
        optimizer.zero_grad()
        (model(torch.ones(2, 3)) - 1).square().mean().backward()
        optimizer.step()


def shrink(model: nn.Sequential) -> None:
    model[0], model[2] = nn.Linear(3, 3), nn.Linear(3, 2)


def take_the_bias(model: nn.Sequential) -> None:
    model[0] = nn.Linear(3, 4, bias=False)


def fewer_dimensions(model: nn.Sequential) -> None:
    model[0].bias = nn.Parameter(torch.tensor(0.5))


MISFITS: dict[Callable[[nn.Sequential], None], set[str]] = {
    shrink: {"0.weight", "0.bias", "2.weight"},
    take_the_bias: {"0.bias"},
    fewer_dimensions: {"0.bias"},
}


@pytest.mark.parametrize("change", MISFITS, ids=lambda change: change.__name__)
def test_state_that_fits_no_longer_is_refused_by_default_all_names_at_once(
    change: Callable[[nn.Sequential], None],
) -> None:
    model = make()
    si = SynapticIntelligence(model)
    train(model, si)
    si.update_omega()
    before = si.state_dict()
    change(model)
    with pytest.raises(ModelChangedError, match='replaced="drop"') as caught:
        train(model, si)
    assert all(repr(name) in str(caught.value) for name in MISFITS[change])
    for name, omega in before["importance"].items():
        assert torch.equal(si.omega[name], omega)


@pytest.mark.parametrize("in_mid_task", [False, True])
@pytest.mark.parametrize("change", MISFITS, ids=lambda change: change.__name__)
def test_state_that_fits_no_longer_is_dropped_on_request_and_named(
    change: Callable[[nn.Sequential], None], in_mid_task: bool, caplog: pytest.LogCaptureFixture
) -> None:
    model = make()
    si = SynapticIntelligence(model, replaced="drop")
    train(model, si)
    si.update_omega()
    if in_mid_task:
        train(model, si)
    change(model)
    old = {name: omega.clone() for name, omega in si.omega.items()}
    names = dict(model.named_parameters())
    with caplog.at_level(logging.WARNING, logger="si_avalanche"):
        si.begin_task()
    assert all(name in caplog.text for name in MISFITS[change])
    assert set(si.omega) == set(names)
    for name, omega in si.omega.items():
        if name in MISFITS[change]:
            assert not omega.any()
            assert torch.equal(si.anchor[name], names[name])
        elif names[name].shape == old[name].shape and change is take_the_bias and name[0] == "2":
            assert torch.equal(omega, old[name])
    train(model, si)
    si.update_omega()
    assert all(omega.any() for omega in si.omega.values())


@pytest.mark.parametrize("how", ["error", "drop"])
def test_another_layer_of_the_same_shape_is_noticed(
    how: Any, caplog: pytest.LogCaptureFixture
) -> None:
    model = make()
    si = SynapticIntelligence(model, replaced=how)
    train(model, si)
    si.update_omega()
    omega = {name: importance.clone() for name, importance in si.omega.items()}
    anchor = si.anchor["2.weight"].clone()
    model[2] = nn.Linear(4, 2)
    with caplog.at_level(logging.WARNING, logger="si_avalanche"):
        si.begin_task()
    assert "2.weight, 2.bias" in caplog.text
    assert "0.weight" not in caplog.text
    assert torch.equal(si.omega["0.weight"], omega["0.weight"])
    if how == "error":
        assert "kept by name" in caplog.text
        assert torch.equal(si.omega["2.weight"], omega["2.weight"])
        assert torch.equal(si.anchor["2.weight"], anchor)
    else:
        assert "dropped" in caplog.text
        assert not si.omega["2.weight"].any()
        assert torch.equal(si.anchor["2.weight"], model[2].weight)


def test_a_copy_of_the_model_is_no_other_model(caplog: pytest.LogCaptureFixture) -> None:
    model = make()
    si = SynapticIntelligence(model)
    train(model, si)
    si.update_omega()
    twin = make()
    twin.load_state_dict(model.state_dict())
    with caplog.at_level(logging.WARNING, logger="si_avalanche"):
        si.begin_task(twin)
    assert not caplog.text
    assert si.continues(twin)
    assert si.continues(twin.double())
    assert not si.continues(make())
    assert not si.continues(nn.Linear(3, 4))


def test_a_model_continues_if_it_shares_a_layer_or_starts_with_the_same_weights() -> None:
    model = make()
    si = SynapticIntelligence(model)
    sharing = make()
    sharing[0] = model[0]
    sharing[2] = nn.Linear(4, 2)
    assert si.continues(sharing)
    larger: Any = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 5))
    assert not si.continues(larger)
    with torch.no_grad():
        larger[0].load_state_dict(model[0].state_dict())
        larger[2].weight[:2], larger[2].bias[:2] = model[2].weight, model[2].bias
    assert si.continues(larger)
    smaller: Any = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    smaller[0].load_state_dict(model[0].state_dict())
    assert not si.continues(smaller)


@pytest.mark.parametrize("value", ["keep", None, True])
def test_a_bad_choice_is_refused(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="replaced must be one of error, drop"):
        SynapticIntelligence(make(), replaced=value)


def displacement_seen(si: SynapticIntelligence, path: Tensor, name: str) -> Tensor:
    """The net displacement that a consolidation with xi = 0.1 has used."""
    return (path / si.omega[name] - 0.1).clamp(min=0).sqrt()


def test_a_task_that_starts_away_from_the_anchor_is_displaced_from_where_it_starts(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = make()
    si = SynapticIntelligence(model, clamp="none", decay=0.0)
    train(model, si)
    si.update_omega()
    anchor = si.anchor["0.weight"].clone()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(-1.0)
    start = model[0].weight.detach().clone()
    assert not caplog.records
    train(model, si, steps=2)
    assert set(si.state_dict()["start"]) == set(si.omega)
    (record,) = caplog.records
    assert all(name in record.getMessage() for name in si.omega)
    other = SynapticIntelligence(model, clamp="none", decay=0.0)
    other.load_state_dict(si.state_dict())
    train(model, other, steps=2)
    path = other.running_sum["0.weight"].clone()
    assert torch.equal(other.anchor["0.weight"], anchor)
    other.update_omega()
    moved = (model[0].weight.detach() - start).abs()
    torch.testing.assert_close(
        displacement_seen(other, path, "0.weight"), moved, rtol=1e-3, atol=1e-3
    )
    assert other.state_dict()["start"] == {}


def test_weights_loaded_after_the_object_was_built_are_where_the_first_task_starts() -> None:
    model = make()
    si = SynapticIntelligence(model, clamp="none", decay=0.0)
    with torch.no_grad():
        model[0].weight.add_(0.7)
    train(model, si)
    path = si.running_sum["0.weight"].clone()
    si.update_omega()
    assert displacement_seen(si, path, "0.weight").max() < 0.5
