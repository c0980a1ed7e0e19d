"""Saving and loading the framework-free object."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Adam, Optimizer

from si_avalanche import ModelChangedError, StateDictError, SynapticIntelligence
from tests.saving import through_file


def build(width: int = 5, outputs: int = 2) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.Linear(width, outputs))


def train(model: nn.Module, si: SynapticIntelligence, optimizer: Optimizer, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    si.attach(optimizer)
    for _ in range(4):
        optimizer.zero_grad()
        model(torch.randn(8, 3, generator=generator)).square().mean().backward()
        optimizer.step()


def trained() -> tuple[nn.Module, SynapticIntelligence, Optimizer]:
    """One consolidated task and half of a second one."""
    model = build()
    si = SynapticIntelligence(model)
    optimizer = Adam(model.parameters(), lr=0.01)
    train(model, si, optimizer, seed=1)
    si.update_omega()
    train(model, si, optimizer, seed=2)
    return model, si, optimizer


def test_a_state_saved_in_mid_task_continues_bit_for_bit() -> None:
    model, si, optimizer = trained()
    saved = through_file(
        {"si": si.state_dict(), "model": model.state_dict(), "optimizer": optimizer.state_dict()}
    )
    other = build()
    other.load_state_dict(saved["model"])
    other_si = SynapticIntelligence(other)
    other_si.load_state_dict(saved["si"])
    other_optimizer = Adam(other.parameters(), lr=0.01)
    other_optimizer.load_state_dict(saved["optimizer"])
    for m, s, o in ((model, si, optimizer), (other, other_si, other_optimizer)):
        train(m, s, o, seed=3)
        s.update_omega()
        train(m, s, o, seed=4)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
    assert_equal_states(si.state_dict(), other_si.state_dict())
    assert si.tasks == other_si.tasks == 2


def assert_equal_states(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for kind, entry in one.items():
        if isinstance(entry, dict):
            assert all(torch.equal(entry[name], other[kind][name]) for name in entry)
            assert list(entry) == list(other[kind])
        else:
            assert entry == other[kind]


def test_the_dictionary_is_a_copy_both_ways() -> None:
    model, si, optimizer = trained()
    state = si.state_dict()
    kept = copy.deepcopy(state)
    train(model, si, optimizer, seed=5)
    assert_equal_states(state, kept)
    si.load_state_dict(state)
    train(model, si, optimizer, seed=6)
    assert_equal_states(state, kept)


def test_the_dictionary_holds_tensors_and_primitives_only() -> None:
    def leaves(entry: object) -> list[object]:
        if isinstance(entry, dict):
            assert all(type(key) is str for key in entry)
            return [leaf for value in entry.values() for leaf in leaves(value)]
        return [entry]

    state = trained()[1].state_dict()
    assert type(state) is dict
    assert {type(leaf) for leaf in leaves(state)} == {torch.Tensor, int}
    assert state["version"] == 1


def _drop(key: str) -> Callable[[dict[str, Any]], None]:
    return lambda state: state.pop(key)


def _set(key: str, value: object) -> Callable[[dict[str, Any]], None]:
    return lambda state: state.update({key: value})


def _in(kind: str, name: str, value: object) -> Callable[[dict[str, Any]], None]:
    return lambda state: state[kind].update({name: value})


def _everywhere(change: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, Any]], None]:
    def apply(state: dict[str, Any]) -> None:
        for kind in ("importance", "path_integral", "anchor"):
            change(state[kind])

    return apply


DAMAGE: list[tuple[str, Callable[[dict[str, Any]], None], str]] = [
    ("no version", _drop("version"), "lacks version"),
    ("newer version", _set("version", 2), "version 2; this release reads 1 to 1"),
    ("odd version", _set("version", "1"), "version '1'"),
    ("no anchor", _drop("anchor"), "lacks anchor"),
    ("extra entry", _set("fisher", {}), "has fisher"),
    ("importance is a list", _set("importance", []), "must map parameter names"),
    ("anchor is a number", _set("anchor", 3), "must map parameter names"),
    ("tasks negative", _set("tasks", -1), "'tasks' must be an integer"),
    ("steps a float", _set("steps", 1.0), "'steps' must be an integer"),
    ("missing parameter", _everywhere(lambda d: d.pop("0.bias")), "missing: 0.bias"),
    ("extra parameter", _everywhere(lambda d: d.update(x=torch.zeros(1))), "extra: x"),
    (
        "one kind lacks one",
        lambda s: s["anchor"].pop("0.bias"),
        "disagree on the parameters 0.bias",
    ),
    (
        "misshaped",
        _everywhere(lambda d: d.update({"0.bias": torch.zeros(9)})),
        r"misshaped: 0.bias is \(9,\), the model has \(5,\)",
    ),
    ("misshaped in one kind", _in("anchor", "0.bias", torch.zeros(9)), "its importance"),
    ("not a tensor", _in("anchor", "0.bias", [0.0] * 5), "must be a dense floating-point tensor"),
    (
        "integers",
        _in("anchor", "0.bias", torch.zeros(5).int()),
        "must be a dense floating-point tensor",
    ),
    (
        "not finite",
        _in("importance", "0.bias", torch.full((5,), torch.nan)),
        "'importance' of '0.bias' is not finite",
    ),
    ("sparse", _in("anchor", "0.bias", torch.zeros(5).to_sparse()), "dense floating-point"),
    ("meta", _in("anchor", "0.bias", torch.zeros(5, device="meta")), "dense floating-point"),
    (
        "importance not a tensor",
        _in("importance", "0.bias", "zeros"),
        "'importance' of '0.bias' must be a dense floating-point tensor",
    ),
]


@pytest.mark.parametrize(("damage", "message"), [d[1:] for d in DAMAGE], ids=[d[0] for d in DAMAGE])
def test_a_state_that_does_not_fit_is_refused_and_the_object_left_as_it_was(
    damage: Callable[[dict[str, Any]], None], message: str
) -> None:
    _, si, _ = trained()
    good = si.state_dict()
    bad = copy.deepcopy(good)
    damage(bad)
    with pytest.raises(StateDictError, match=message):
        si.load_state_dict(bad)
    assert_equal_states(si.state_dict(), good)


def test_something_else_than_a_dictionary_is_refused() -> None:
    _, si, _ = trained()
    with pytest.raises(StateDictError, match="loads a dictionary, got list"):
        si.load_state_dict([])  # type: ignore[arg-type]


def test_a_state_from_before_the_model_grew_loads_only_when_asked() -> None:
    _, si, _ = trained()
    state = si.state_dict()
    grown = SynapticIntelligence(build(outputs=4))
    fresh = grown.state_dict()
    with pytest.raises(StateDictError, match=r"misshaped: 2\.bias"):
        grown.load_state_dict(state)
    assert_equal_states(grown.state_dict(), fresh)
    grown.load_state_dict(state, may_grow=True)
    assert torch.equal(grown.omega["2.weight"][:2], state["importance"]["2.weight"])
    assert not grown.omega["2.weight"][2:].any()
    with pytest.raises(ModelChangedError, match="may only grow"):
        SynapticIntelligence(build(width=4)).load_state_dict(state, may_grow=True)


def test_a_state_moves_to_the_dtype_of_the_model() -> None:
    _, si, _ = trained()
    double = SynapticIntelligence(build().double())
    double.load_state_dict(si.state_dict())
    assert all(omega.dtype == torch.float64 for omega in double.omega.values())
    for name, omega in si.omega.items():
        assert torch.equal(double.omega[name], omega.double())


def test_a_state_of_a_layer_that_was_frozen_later_loads_into_a_model_with_it_frozen() -> None:
    model, si, _ = trained()
    model[0].requires_grad_(False)  # type: ignore[index]
    state = si.state_dict()
    other = build()
    other[0].requires_grad_(False)  # type: ignore[index]
    restored = SynapticIntelligence(other)
    restored.load_state_dict(state)
    assert torch.equal(restored.omega["0.weight"], si.omega["0.weight"])
    assert "frozen" in restored.skipped["0.weight"]


def test_a_start_that_was_lost_on_the_way_is_noticed() -> None:
    """As torch.distributed.checkpoint loses it, which loads only the keys that the target has."""
    model, si, optimizer = trained()
    si.update_omega()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.5)
    train(model, si, optimizer, seed=3)
    state = si.state_dict()
    assert state["start"]
    state["start"].clear()
    with pytest.raises(StateDictError, match="'start' has 0 of 4 entries"):
        si.load_state_dict(state)
