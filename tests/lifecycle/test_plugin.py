"""The plugin's settings and schedule, through real strategies."""

import math
from typing import Any

import pytest
import torch
from avalanche.training import JointTraining

from si_avalanche import (
    SI,
    CallOrderError,
    ConfigurationError,
    ParameterSelectionError,
    SIPlugin,
)
from tests.digits import digits_benchmark, network, parts, same, train, weights, with_si
from tests.exactness.test_options import BAD_SETTINGS


class Strengths(SIPlugin):
    """Notes the strength of every experience."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.used: list[float] = []

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.used.append(self.si.c)
        super().after_training_exp(strategy)


@pytest.mark.parametrize(
    ("c", "used"),
    [
        (0.5, [0.5, 0.5, 0.5, 0.5]),
        ([1.0, 2, 3.0], [1.0, 2.0, 3.0, 3.0]),
        ((4.0,), [4.0, 4.0, 4.0, 4.0]),
        (lambda index: index / 2, [0.0, 0.5, 1.0, 1.5]),
    ],
    ids=["number", "list", "tuple", "function"],
)
def test_the_strength_of_each_experience(c: Any, used: list[float]) -> None:
    plugin = Strengths(c)
    train(with_si(network(), plugin, train_epochs=1), digits_benchmark().train_stream[:4])
    assert plugin.used == used


NEEDS_THE_MODEL = ("matches no", "None of", "torch.float32")
"""What is known only when training begins."""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(
            (o, m)
            for o, m in BAD_SETTINGS
            if not any(part in m for part in NEEDS_THE_MODEL) and o != {"c": [1.0]}
        ),
        ({"c": []}, r"a list with at least one such number.*got \[\]"),
        ({"c": b"1"}, "got b'1'"),
        ({"c": {0: 1.0}}, "function from the experience index"),
        ({"c": [1.0, -2.0]}, r"c\[1\] must be .* got -2.0"),
        ({"c": [1.0, "a"]}, r"c\[1\] must be .* got 'a'"),
        ({"c": [float("nan")]}, r"c\[0\] must be"),
    ],
    ids=str,
)
def test_a_bad_setting_is_refused_when_the_plugin_or_the_strategy_is_built(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        SIPlugin(**options)
    with pytest.raises(ConfigurationError, match=message):
        SI(**parts(network()), **options)


def test_a_bad_number_from_a_function_is_refused_before_its_experience_begins() -> None:
    plugin = SIPlugin(c=lambda index: 1.0 - 2 * index)
    model = network()
    strategy = with_si(model, plugin)
    train(strategy, digits_benchmark().train_stream[:1])
    before = weights(model)
    with pytest.raises(ConfigurationError, match=r"c\(1\) must be .* got -1.0"):
        strategy.train(digits_benchmark().train_stream[1])
    assert same(before, weights(model))


def test_a_pattern_that_matches_nothing_is_refused_before_the_first_iteration() -> None:
    model = network()
    strategy = with_si(model, SIPlugin(exclude=["hed.*"]))
    before = weights(model)
    with pytest.raises(ParameterSelectionError, match=r"'hed\.\*' matches no parameter"):
        strategy.train(digits_benchmark().train_stream[0])
    assert same(before, weights(model))


def test_asking_for_the_state_before_training_says_when_it_will_be_there() -> None:
    with pytest.raises(CallOrderError, match=r"Ask for \.si after that"):
        _ = SIPlugin().si


def test_patterns_reach_the_mathematics() -> None:
    plugin = SIPlugin(exclude=["classifier"])
    train(with_si(network(), plugin), digits_benchmark().train_stream[:1])
    assert set(plugin.si.omega) == {"features.weight", "features.bias"}
    assert set(plugin.si.skipped) == {"classifier.weight", "classifier.bias"}


def test_no_epochs_and_joint_training_consolidate_without_complaint() -> None:
    plugin = SIPlugin()
    train(with_si(network(), plugin, train_epochs=0), digits_benchmark().train_stream[:2])
    assert (plugin.experiences, plugin.si.tasks) == (2, 0)
    assert plugin.si.total_importance() == 0
    joint = SIPlugin()
    strategy = JointTraining(**parts(network(), plugins=[joint]))
    strategy.train(digits_benchmark().train_stream)
    assert (joint.experiences, joint.si.tasks) == (1, 1)


def test_the_path_integral_of_an_experience_sums_to_about_the_loss_drop() -> None:
    """Full-batch descent at a small rate through Avalanche: the summed path integral."""
    stream = digits_benchmark().train_stream
    model = network()
    found: list[float] = []
    losses: list[float] = []

    class Watch(SIPlugin):
        """Notes the task loss of every iteration and the path integral before consolidation."""

        def after_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
            losses.append(strategy.loss.item())
            super().after_backward(strategy)

        def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
            found.append(sum(omega.sum().item() for omega in self.si.running_sum.values()))
            super().after_training_exp(strategy)

    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    strategy = with_si(model, Watch(), optimizer=optimizer, train_mb_size=2000, train_epochs=60)
    train(strategy, stream[:1])
    drop = losses[0] - losses[-1]
    assert drop > 0.1
    assert math.isclose(found[0], drop, rel_tol=0.06)
