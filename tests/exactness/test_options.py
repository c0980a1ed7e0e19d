"""Choosing parameters and settings, and what is refused at construction."""

import inspect
import pydoc
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD

from si_avalanche import (
    SI,
    ConfigurationError,
    ParameterSelectionError,
    SIPlugin,
    SynapticIntelligence,
)
from si_avalanche.settings import Options


def network() -> nn.Module:
    return nn.ModuleDict(
        {"trunk": nn.Linear(3, 4), "norm": nn.LayerNorm(4), "classifier": nn.Linear(4, 2)}
    )


BAD_SETTINGS: list[tuple[dict[str, Any], str]] = [
    ({"c": -1.0}, r"c must be a finite number, 0 or more, got -1.0"),
    ({"c": float("nan")}, "got nan"),
    ({"c": float("inf")}, "got inf"),
    ({"c": "1"}, "got '1'"),
    ({"c": [1.0]}, r"got \[1.0\]"),
    ({"c": True}, "got True"),
    ({"c": None}, "got None"),
    ({"xi": 0}, "xi must be a finite number above 0, got 0"),
    ({"xi": -0.1}, "got -0.1"),
    ({"xi": float("nan")}, "got nan"),
    ({"xi": "0.1"}, "got '0.1'"),
    ({"xi": 1e-50}, r"xi=1e-50 is too small for torch.float32.*must be 1.18e-38 or more"),
    ({"c": 1e39}, "c=1e\\+39 is too large for torch.float32"),
    ({"xi": 10**400}, "xi must be a finite number"),
    ({"c": 10**400}, "c must be a finite number"),
    ({"clamp": "pertask"}, "one of accumulated, per_task, none.*Did you mean 'per_task'"),
    ({"clamp": None}, "got None"),
    ({"gradient": "tsk"}, "one of task, total.*Did you mean 'task'"),
    ({"first_anchor": "origin"}, "one of initial, zero"),
    ({"decay": 1.5}, r"None or a number in \[0, 1\], got 1.5"),
    ({"decay": -0.1}, "got -0.1"),
    ({"decay": float("nan")}, "got nan"),
    ({"decay": "sum"}, "got 'sum'"),
    ({"include": "classifier"}, "include must be a list"),
    ({"exclude": "classifier"}, "exclude must be a list"),
    ({"exclude": [""]}, "non-empty patterns"),
    ({"exclude": [3]}, "non-empty patterns"),
    ({"exclude": ["clasifier.*"]}, r"'clasifier.\*' matches no parameter.*classifier"),
    ({"include": ["trunk", "nowhere"]}, "'nowhere' matches no parameter"),
    ({"include": ["trunk"], "exclude": ["*"]}, "None of the 6 parameters"),
]


@pytest.mark.parametrize(("options", "message"), BAD_SETTINGS, ids=str)
def test_a_bad_setting_is_refused_at_construction_with_its_value_and_the_remedy(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        SynapticIntelligence(network(), **options)


def test_a_refused_strength_leaves_the_old_one() -> None:
    si = SynapticIntelligence(network(), c=2.0)
    with pytest.raises(ConfigurationError):
        si.c = -1.0
    assert si.c == 2.0


def test_a_model_without_a_parameter_is_refused() -> None:
    with pytest.raises(ParameterSelectionError, match="no parameters"):
        SynapticIntelligence(nn.ReLU())


def test_a_complex_parameter_is_refused_until_it_is_left_out() -> None:
    model = network()
    model.register_parameter("phase", nn.Parameter(torch.zeros(2, dtype=torch.complex64)))
    with pytest.raises(ParameterSelectionError, match=r"exclude=\['phase'\]"):
        SynapticIntelligence(model)
    assert "phase" not in SynapticIntelligence(model, exclude=["phase"]).omega


@pytest.mark.parametrize(
    ("options", "protected"),
    [
        ({}, {"trunk.weight", "trunk.bias", "norm.weight", "norm.bias"}),
        ({"include": ["trunk"]}, {"trunk.weight", "trunk.bias"}),
        ({"include": ["*.bias"]}, {"trunk.bias", "norm.bias"}),
        ({"exclude": ["norm", "*.bias"]}, {"trunk.weight"}),
        ({"include": ["t*"], "exclude": ["trunk.bias"]}, {"trunk.weight"}),
    ],
    ids=lambda value: str(sorted(value)),
)
def test_patterns_choose_parameters_and_what_is_left_out_is_told(
    options: dict[str, Any], protected: set[str]
) -> None:
    model = network()
    model["classifier"].requires_grad_(False)  # type: ignore[index]
    si = SynapticIntelligence(model, **options)
    assert set(si.omega) == set(si.prev_params) == set(si.running_sum) == protected
    assert set(si.skipped) == {name for name, _ in model.named_parameters()} - protected
    assert all(name in repr(si) for name in si.skipped)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_state_is_a_copy_on_the_same_device_in_float32_or_better(dtype: torch.dtype) -> None:
    model = nn.Linear(3, 2).to(dtype)
    si = SynapticIntelligence(model)
    optimizer = SGD(model.parameters(), lr=0.1)
    si.attach(optimizer)
    live = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    for _ in range(2):
        for _ in range(2):
            optimizer.zero_grad()
            (model(torch.ones(4, 3, dtype=dtype)) - 1).square().mean().backward()
            optimizer.step()
        si.update_omega()
        kept = [t for m in (si.omega, si.running_sum, si.prev_params) for t in m.values()]
        assert all(t.dtype == torch.promote_types(dtype, torch.float32) for t in kept)
        assert not live & {t.untyped_storage().data_ptr() for t in kept}
        assert not any(t.requires_grad for t in kept)
    assert all(omega.isfinite().all() and omega.any() for omega in si.omega.values())


@pytest.mark.parametrize("model", [None, [nn.Linear(2, 2)]], ids=["none", "list"])
def test_something_else_than_a_module_is_refused(model: Any) -> None:
    with pytest.raises(ParameterSelectionError, match=r"must be a torch\.nn\.Module, got"):
        SynapticIntelligence(model)


def test_a_lazy_layer_is_refused_until_it_has_a_shape() -> None:
    lazy = nn.LazyLinear(2)
    with pytest.raises(ParameterSelectionError, match="Send one batch"):
        SynapticIntelligence(lazy)
    lazy(torch.zeros(1, 3))
    assert SynapticIntelligence(lazy).omega["weight"].shape == (2, 3)


def test_exact_fractions_are_numbers_too() -> None:
    model = nn.Linear(3, 2)
    si = SynapticIntelligence(model, c=Fraction(1, 2), xi=Fraction(1, 10), decay=Fraction(1, 2))  # type: ignore[arg-type]
    optimizer = SGD(model.parameters(), lr=0.1)
    si.attach(optimizer)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    si.update_omega()
    assert si.total_importance() > 0


def test_tied_weights_are_counted_once() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    assert set(SynapticIntelligence(model).omega) == {"0.weight", "0.bias", "1.bias"}


def test_a_damping_that_the_weights_can_hold_is_accepted_until_they_cannot() -> None:
    model = nn.Linear(3, 2).double()
    si = SynapticIntelligence(model, xi=1e-50)
    model.float()
    with pytest.raises(ConfigurationError, match=r"too small for torch\.float32"):
        si.begin_task()


def test_a_strength_set_later_that_the_weights_cannot_hold_is_refused() -> None:
    si = SynapticIntelligence(nn.Linear(3, 2))
    with pytest.raises(ConfigurationError, match="too large"):
        si.c = 1e39
    assert si.c == 1.0


def by_class(**options: Any) -> object:
    return SynapticIntelligence(network(), **options)


def by_plugin(**options: Any) -> object:
    return SIPlugin(**options)


def by_strategy(**options: Any) -> object:
    model = network()
    return SI(model=model, optimizer=SGD(model.parameters(), lr=0.1), **options)


MAKERS: list[Callable[..., object]] = [by_class, by_plugin, by_strategy]


@pytest.mark.parametrize("make", MAKERS[:2], ids=lambda make: make.__name__)
@pytest.mark.parametrize(
    ("given", "meant"),
    [("clmp", "clamp"), ("excludes", "exclude"), ("normalization", "normalisation")],
)
def test_an_unknown_option_is_refused_and_the_nearest_one_is_named(
    make: Callable[..., object], given: str, meant: str
) -> None:
    for kind in (TypeError, ConfigurationError):
        with pytest.raises(kind, match=f"no option '{given}'.*Did you mean '{meant}'"):
            make(**{given: "task"})


def test_an_unknown_option_of_the_strategy_is_refused_as_avalanche_does() -> None:
    with pytest.raises(TypeError, match="clmp"):
        by_strategy(clmp="none")


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_a_bad_value_of_an_option_is_refused_at_once(make: Callable[..., object]) -> None:
    with pytest.raises(ConfigurationError, match="clamp must be one of"):
        make(clamp="all")


@pytest.mark.parametrize("shown", [SynapticIntelligence, SIPlugin, SI])
def test_help_shows_every_option_with_its_default_and_its_text(shown: type) -> None:
    lines = pydoc.plain(pydoc.render_doc(shown)).splitlines()
    text = " ".join(" ".join(line.lstrip(" |") for line in lines).split())
    described = " ".join((inspect.getdoc(Options) or "").split()).split(":param ")[1:]
    assert len(described) == len(Options.__annotations__) == 8
    parameters = inspect.signature(shown).parameters
    for name, description in zip(Options.__annotations__, described, strict=True):
        assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY
        assert f"{name}: " in text
        assert description.startswith(f"{name}: ")
        assert f":param {description.strip()}" in text


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_the_defaults_that_help_shows_may_be_given(make: Callable[..., object]) -> None:
    parameters = inspect.signature(SynapticIntelligence).parameters
    defaults = {name: parameters[name].default for name in Options.__annotations__}
    make(**defaults)
