"""The metrics, through real evaluators and loggers."""

import io
from pathlib import Path
from typing import Any

import pytest
from avalanche.evaluation.metrics import loss_metrics
from avalanche.logging import CSVLogger, TensorboardLogger, TextLogger
from avalanche.training.plugins import EvaluationPlugin

from si_avalanche import (
    ConfigurationError,
    SIPlugin,
    si_metrics,
)
from tests.digits import digits_benchmark, naive, network, train, with_si


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
