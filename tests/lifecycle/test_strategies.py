"""Beside Avalanche's other strategies: it works, or says at once why it does not."""

from importlib import import_module
from typing import Any

import pytest
from avalanche.training import supervised
from avalanche.training.plugins import RWalkPlugin, bic
from qpsolvers import available_solvers
from torch import nn
from torch.optim.lr_scheduler import MultiStepLR

from si_avalanche import CallOrderError, ConfigurationError, NonFiniteError, SIPlugin
from tests.digits import network, same, silent_evaluator, weights
from tests.lifecycle.strategies import (
    NOTHING_TO_PULL_BACK,
    WORKING,
    Build,
    before,
    everything,
    packnet,
    run,
    stream_of,
    trunk,
    wrapper,
)
from tests.lifecycle.witness import WitnessPlugin

# What a strategy warns of by itself, without us too; anything else is an error.
WARNS = {"AR1": "ignore:The AR1 strategy implementation is in an alpha stage:UserWarning"}
WORKING_CASES = [
    pytest.param(
        name, marks=[pytest.mark.filterwarnings(WARNS[name])] if name in WARNS else [], id=name
    )
    for name in WORKING
]


def check(name: str, build: Build, experiences: int = 3) -> None:
    """Hold three runs against each other: alone, with strength 0, and with a penalty."""
    alone = everything(run(name, build, experiences=experiences).model)
    idle = everything(run(name, build, [SIPlugin(c=0.0)], experiences).model)
    assert same(idle, alone)

    plugin = SIPlugin(c=1.0)
    witness = WitnessPlugin(plugin)
    strategy = run(name, build, [witness, plugin], experiences)
    assert witness.steps > 0
    assert witness.agrees()
    assert all(omega.isfinite().all() for omega in plugin.si.importance.values())
    assert plugin.si.total_importance() > 0
    learns_once = name in NOTHING_TO_PULL_BACK or experiences == 1
    assert same(everything(strategy.model), alone) == learns_once


@pytest.mark.parametrize("name", WORKING_CASES)
def test_without_strength_nothing_changes_and_the_path_integral_is_the_one_witnessed(
    name: str,
) -> None:
    check(name, WORKING[name])


def test_beside_gem_as_far_as_gem_goes_without_the_solver_it_asks_for() -> None:
    build = wrapper(supervised.GEM, patterns_per_exp=20, memory_strength=0.5)
    check("GEM", build, experiences=3 if "quadprog" in available_solvers else 1)


def test_beside_bic_with_the_argument_that_pytorch_has_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def without_verbose(*args: Any, verbose: bool = False, **kwargs: Any) -> MultiStepLR:
        return MultiStepLR(*args, **kwargs)

    monkeypatch.setattr(bic, "MultiStepLR", without_verbose)
    check("BiC", wrapper(supervised.BiC, mem_size=60, stage_2_epochs=2))


@pytest.mark.filterwarnings(
    # Avalanche's LaMAML hands on its arguments by position.
    "ignore:Avalanche is transitioning to strategy constructors",
    # The first version of it needs a package for its inner updates, which are not reached.
    "ignore:higher not found:UserWarning",
)
@pytest.mark.parametrize(
    ("module", "strategy"), [("mer", "MER"), ("lamaml", "LaMAML"), ("lamaml_v2", "LaMAML")]
)
def test_meta_learning_is_refused_by_name_before_a_weight_moves(module: str, strategy: str) -> None:
    refused = getattr(import_module(f"avalanche.training.supervised.{module}"), strategy)
    built: list[nn.Module] = []

    def model() -> nn.Module:
        built.append(network())
        return built[0]

    seen = wrapper(refused, model=model)([SIPlugin()])
    start = weights(built[0])
    with pytest.raises(ConfigurationError, match=f"{strategy} is a meta-learning strategy"):
        seen.train(stream_of("MER")[0])
    assert same(start, weights(built[0]))


@pytest.mark.filterwarnings(
    # Of any plugin that has backward hooks.
    "ignore:Plugin .* implements incompatible callbacks:UserWarning"
)
def test_a_strategy_without_an_optimiser_is_refused_by_name() -> None:
    strategy = supervised.StreamingLDA(
        slda_model=trunk(),
        criterion=nn.CrossEntropyLoss(),
        input_size=20,
        num_classes=10,
        train_mb_size=32,
        plugins=[SIPlugin()],
        evaluator=silent_evaluator,
    )
    with pytest.raises(ConfigurationError, match="StreamingLDA trains without an optimiser"):
        strategy.train(stream_of("SLDA")[0])


def test_weights_that_another_method_makes_non_finite_do_not_poison_importance() -> None:
    """RWalk divides by zero after an experience without a checkpoint of its own."""
    build = before(lambda _: RWalkPlugin(delta_t=1000))
    alone = weights(run("RWalk", build).model)
    assert not all(p.isfinite().all() for p in alone.values())
    plugin = SIPlugin()
    with pytest.raises(NonFiniteError, match="the loss has diverged"):
        run("RWalk", build, [plugin])
    assert plugin.si.tasks == 1
    assert plugin.si.total_importance().isfinite()


def test_a_strategy_that_loses_its_plugins_leaves_ours_without_a_state() -> None:
    """PackNet wraps the list of plugins in a list, and so calls none of them."""
    plugin = SIPlugin()
    options = {"model": packnet, "post_prune_epochs": 1, "prune_proportion": 0.5}
    run("PackNet", wrapper(supervised.PackNet, train_epochs=2, **options), [plugin])
    with pytest.raises(CallOrderError, match="SIPlugin has no state yet"):
        _ = plugin.si
