"""The plugin's settings, schedule, metrics and state, through real strategies."""

import copy
import io
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from avalanche.evaluation.metrics import loss_metrics
from avalanche.logging import CSVLogger, TensorboardLogger, TextLogger
from avalanche.training import JointTraining
from avalanche.training.plugins import EvaluationPlugin
from torch import nn

from si_avalanche import (
    SI,
    CallOrderError,
    ConfigurationError,
    ModelChangedError,
    ParameterSelectionError,
    SIPlugin,
    StateDictError,
    si_metrics,
)
from tests.digits import digits_benchmark, naive, network, parts, same, train, weights, with_si
from tests.exactness.test_options import BAD_SETTINGS
from tests.saving import through_file


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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(
            (o, m)
            for o, m in BAD_SETTINGS
            if "matches no" not in m and "None of" not in m and o != {"c": [1.0]}
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


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (network(), {"exclude": ["hed.*"]}, r"'hed\.\*' matches no parameter"),
        (network().requires_grad_(False), {}, "Unfreeze one"),
    ],
    ids=["pattern", "frozen"],
)
def test_what_needs_the_model_is_refused_before_the_first_iteration(
    model: nn.Module, options: dict[str, Any], message: str
) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    strategy = with_si(model, SIPlugin(**options), optimizer=optimizer)
    before = weights(model)
    with pytest.raises(ParameterSelectionError, match=message):
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


class Recorder:
    """A logger of our own that keeps every value."""

    def __init__(self) -> None:
        self.values: list[tuple[str, Any, int]] = []

    def log_metrics(self, metric_values: list[Any]) -> None:
        self.values += [(m.name, m.value, m.x_plot) for m in metric_values]

    def of(self, prefix: str) -> list[float]:
        return [value for name, value, _ in self.values if name.startswith(prefix)]


def test_the_penalty_by_itself_and_the_total_importance_reach_every_logger(tmp_path: Path) -> None:
    recorder, text = Recorder(), io.StringIO()
    csv = CSVLogger(str(tmp_path / "csv"))
    board = TensorboardLogger(str(tmp_path / "board"))
    evaluator = EvaluationPlugin(
        loss_metrics(epoch=True),
        si_metrics(minibatch=True, epoch=True, experience=True),
        loggers=[recorder, TextLogger(text), board, csv],
    )
    plugin = SIPlugin(c=0.5)
    train(with_si(network(), plugin, evaluator=evaluator), digits_benchmark().train_stream[:3])
    board.writer.close()
    csv.close()

    penalties = recorder.of("SI_Penalty_MB/train_phase/train_stream")
    iterations = len(recorder.of("SI_Penalty_MB"))
    assert len(penalties) == iterations
    assert penalties[0] == 0
    assert penalties[-1] > 0
    epochs = recorder.of("SI_Penalty_Epoch")
    assert len(epochs) == 6
    assert epochs[0] == epochs[1] == 0 < epochs[-1]
    importance = recorder.of("SI_TotalImportance_Exp")
    assert len(importance) == 3
    assert 0 < importance[0] < importance[1] < importance[2]
    assert importance[-1] == pytest.approx(plugin.si.total_importance().item())
    assert all(type(value) is float for value in penalties + epochs + importance)
    assert "SI_TotalImportance_Exp" in text.getvalue()
    assert "SI_Penalty_Epoch" in text.getvalue()
    assert any(b"SI_Penalty_MB" in f.read_bytes() for f in (tmp_path / "board").iterdir())
    assert evaluator.get_last_metrics().keys() >= {name for name, _, _ in recorder.values}


def test_the_logged_penalty_is_the_one_at_the_weights_of_the_task_loss() -> None:
    recorder = Recorder()
    evaluator = EvaluationPlugin(
        si_metrics(minibatch=True, epoch=False, experience=False), loggers=[recorder]
    )
    expected: list[float] = []

    class Spy(SIPlugin):
        """Computes the penalty by eq. 4 from what the plugin keeps."""

        def after_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
            total = sum(
                (
                    omega
                    * (dict(strategy.model.named_parameters())[name] - self.si.prev_params[name])
                    ** 2
                )
                .sum()
                .item()
                for name, omega in self.si.omega.items()
            )
            expected.append(self.si.c * total)
            super().after_backward(strategy)

    train(with_si(network(), Spy(c=3.0), evaluator=evaluator), digits_benchmark().train_stream[:2])
    assert recorder.of("SI_Penalty_MB") == pytest.approx(expected, rel=1e-5, abs=1e-9)
    assert max(expected) > 0


def test_metrics_without_the_plugin_say_what_is_missing() -> None:
    evaluator = EvaluationPlugin(si_metrics(experience=True), loggers=[Recorder()])
    strategy = naive(network(), evaluator=evaluator)
    with pytest.raises(ConfigurationError, match="no SIPlugin among"):
        strategy.train(digits_benchmark().train_stream[0])


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


def test_a_plugin_state_is_saved_within_an_experience_and_refused_within_an_iteration() -> None:
    states: list[dict[str, Any]] = []

    class Between(SIPlugin):
        """Saves after each recorded iteration, and tries to within it."""

        def after_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
            with pytest.raises(CallOrderError, match="has not recorded"):
                self.state_dict()
            super().after_training_iteration(strategy)
            states.append(self.state_dict())

    train(with_si(network(), Between()), digits_benchmark().train_stream[:1])
    assert states[3]["si"]["steps"] == 4
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
