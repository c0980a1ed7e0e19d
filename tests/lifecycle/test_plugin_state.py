"""Saving and loading the plugin, through real strategies."""

import copy
from typing import Any

import pytest
from torch import nn

from si_avalanche import (
    ModelChangedError,
    SIPlugin,
    StateDictError,
)
from tests.digits import digits_benchmark, network, same, train, weights, with_si
from tests.lifecycle.test_plugin import Strengths
from tests.saving import through_file


def test_a_saved_plugin_continues_bit_for_bit_in_a_new_process_of_training() -> None:
    stream = digits_benchmark().train_stream
    model, plugin = network(), Strengths([0.5, 1.0, 2.0, 4.0])
    strategy = with_si(model, plugin)
    train(strategy, stream[:2])
    saved = through_file(
        {
            "plugin": plugin.state_dict(),
            "model": model.state_dict(),
            "optimizer": strategy.optimizer.state_dict(),
        }
    )
    train(strategy, stream[2:4], seed=5)

    other, resumed = network(), Strengths([0.5, 1.0, 2.0, 4.0])
    other.load_state_dict(saved["model"])
    resumed.load_state_dict(saved["plugin"])
    second = with_si(other, resumed)
    second.make_optimizer(reset_optimizer_state=True)
    second.optimizer.load_state_dict(saved["optimizer"])
    train(second, stream[2:4], seed=5)
    assert same(weights(model), weights(other))
    assert same(dict(plugin.si.omega), dict(resumed.si.omega))
    assert resumed.used == [2.0, 4.0]
    assert resumed.experiences == 4


def test_a_plugin_state_before_training_goes_in_and_out() -> None:
    plugin = SIPlugin()
    assert plugin.state_dict() == {"version": 1, "experiences": 0, "si": None}
    trained = SIPlugin()
    train(with_si(network(), trained), digits_benchmark().train_stream[:1])
    state = trained.state_dict()
    plugin.load_state_dict(state)
    again = plugin.state_dict()
    assert again["experiences"] == 1
    assert same(again["si"]["importance"], state["si"]["importance"])
    trained.load_state_dict(SIPlugin().state_dict())
    assert trained.state_dict()["si"] is None


def test_a_plugin_state_may_be_saved_anywhere_within_an_experience() -> None:
    states: list[dict[str, Any]] = []

    class Saving(SIPlugin):
        """Saves before and after the optimiser's step of each iteration, and when it ends."""

        def after_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
            super().after_backward(strategy)
            states.append(self.state_dict())

        def after_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
            states.append(self.state_dict())
            super().after_training_iteration(strategy)
            states.append(self.state_dict())

    train(with_si(network(), Saving()), digits_benchmark().train_stream[:1])
    assert [state["si"]["steps"] for state in states[:6]] == [0, 1, 1, 1, 2, 2]
    assert states[3]["si"]["path_integral"]["features.weight"].any()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda s: s.pop("si"), "SIPlugin lacks si"),
        (lambda s: s.update(version=9), "version 9"),
        (lambda s: s.update(experiences=-1), "'experiences' must be an integer"),
        (lambda s: s.update(extra=1), "SIPlugin has extra"),
        (lambda s: s["si"].pop("anchor"), "SynapticIntelligence lacks anchor"),
    ],
    ids=["lacks", "newer", "count", "extra", "inner"],
)
@pytest.mark.parametrize("met_the_model", [False, True])
def test_a_plugin_state_that_does_not_fit_is_refused_and_the_plugin_left_as_it_was(
    damage: Any, message: str, met_the_model: bool
) -> None:
    trained = SIPlugin()
    train(with_si(network(), trained), digits_benchmark().train_stream[:1])
    bad = copy.deepcopy(trained.state_dict())
    damage(bad)
    plugin = trained if met_the_model else SIPlugin()
    before = plugin.state_dict()
    with pytest.raises(StateDictError, match=message):
        plugin.load_state_dict(bad)
    after = plugin.state_dict()
    assert after["experiences"] == before["experiences"]
    if met_the_model:
        assert same(after["si"]["importance"], before["si"]["importance"])


def test_a_state_of_another_model_is_refused_when_training_begins_and_can_be_replaced() -> None:
    trained = SIPlugin()
    train(with_si(nn.Sequential(nn.Linear(64, 10)), trained), digits_benchmark().train_stream[:1])
    plugin = SIPlugin()
    plugin.load_state_dict(trained.state_dict())
    strategy = with_si(network(), plugin)
    with pytest.raises(ModelChangedError, match=r"0\.weight.*is not in the model"):
        strategy.train(digits_benchmark().train_stream[0])
    plugin.load_state_dict(SIPlugin().state_dict())
    train(strategy, digits_benchmark().train_stream[:1])
    assert plugin.experiences == 1
