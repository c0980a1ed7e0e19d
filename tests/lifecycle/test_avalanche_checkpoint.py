"""Avalanche's own checkpoints: what they take on this stack, with our plugin among the rest."""

import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from avalanche.checkpointing import maybe_load_checkpoint, save_checkpoint
from torch.optim import SGD

from si_avalanche import SIPlugin
from tests.digits import Network, digits_benchmark, network, same, train, weights, with_si


def strategy_of(plugin: SIPlugin, momentum: float = 0.9) -> Any:
    model = network()
    return with_si(model, plugin, optimizer=SGD(model.parameters(), lr=0.05, momentum=momentum))


def assert_goes_on(strategy: Any, file: Path, momentum: float, **more: Any) -> None:
    """Save after two experiences, load into a fresh strategy, and compare the third."""
    stream = digits_benchmark().train_stream
    train(strategy, stream[:2])
    save_checkpoint(strategy, file, **more)
    fresh = strategy_of(SIPlugin(c=3.0), momentum)
    handle = fresh.plugins[0]
    loaded, done = maybe_load_checkpoint(fresh, file)
    assert done == 2
    plugin = loaded.plugins[0]
    # The user's handle is stale: Avalanche puts new plugin objects into the strategy.
    assert plugin is not handle
    assert plugin.experiences == 2
    for each in (strategy, loaded):
        train(each, stream[2:3])
    ours = strategy.plugins[0]
    assert same(weights(strategy.model), weights(loaded.model))
    assert same(dict(ours.si.omega), dict(plugin.si.omega))
    assert plugin.si.tasks == 3


def test_avalanche_cannot_save_any_strategy_as_it_stands(tmp_path: Path) -> None:
    for strategy in (strategy_of(SIPlugin()), with_si(Network())):
        with pytest.raises(pickle.PicklingError, match="sentinel"):
            save_checkpoint(strategy, tmp_path / "checkpoint")


def test_without_the_optimiser_it_saves_ours_and_goes_on_if_that_had_no_state(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    strategy = strategy_of(SIPlugin(c=3.0), momentum=0.0)
    assert_goes_on(strategy, tmp_path / "checkpoint", 0.0, exclude=["optimizer"])


def test_with_the_optimisers_module_put_in_its_place_it_saves_all_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.optim, "sgd", sys.modules["torch.optim.sgd"], raising=False)
    assert_goes_on(strategy_of(SIPlugin(c=3.0)), tmp_path / "checkpoint", 0.9)
