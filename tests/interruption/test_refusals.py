"""What cannot be stored or resumed is said at the start, by name and with a remedy."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from avalanche.training import DER, ER_ACE, Cumulative, LwF
from avalanche.training.plugins import (
    AGEMPlugin,
    GDumbPlugin,
    LwFPlugin,
    ReplayPlugin,
    SupervisedPlugin,
)
from torch import nn
from torch.optim import SGD, Adam

import si_avalanche
from si_avalanche import (
    CallOrderError,
    CheckpointError,
    ConfigurationError,
    SIPlugin,
    StateDictError,
    resume_training,
    save_training,
)
from tests.digits import Network, naive, parts
from tests.interruption.portraits import whole
from tests.interruption.trainings import TRAININGS, evaluator, streams_of

BASE = TRAININGS["one head, momentum"][0]
STREAM, EVALUATED = streams_of("one head, momentum")


def of(cls: Callable[..., Any], **more: Any) -> Any:
    return cls(**parts(Network(), plugins=[SIPlugin()], **more))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: BASE([ReplayPlugin(20)]), r"plugins\[0\] \(ReplayPlugin\)\.storage_policy"),
        (lambda: BASE([LwFPlugin()]), r"plugins\[0\] \(LwFPlugin\)\.lwf .*'prev_model'"),
        (lambda: BASE([AGEMPlugin(5, 5)]), r"\(AGEMPlugin\) is .*'buffers'"),
        (lambda: BASE([GDumbPlugin(20)]), r"\(GDumbPlugin\) is .*'init_model'"),
        (lambda: of(DER), r"strategy\.storage_policy"),
        (lambda: of(ER_ACE), r"strategy\.storage_policy"),
        (lambda: of(LwF, alpha=1.0, temperature=2.0), r"LwFPlugin.*'prev_model'"),
        (lambda: of(Cumulative), "strategy is a .*Cumulative.*'dataset'"),
    ],
    ids=["Replay", "LwF plugin", "AGEM", "GDumb", "DER", "ER_ACE", "LwF", "Cumulative"],
)
def test_what_holds_samples_or_teachers_is_refused_before_training(
    build: Callable[[], Any], message: str, tmp_path: Path
) -> None:
    strategy = build()
    before = whole(strategy)
    with pytest.raises(CheckpointError, match=message) as caught:
        resume_training(tmp_path / "run.checkpoint", strategy, STREAM)
    assert "state_dict() and load_state_dict()" in str(caught.value)
    assert whole(strategy) == before
    assert list(tmp_path.iterdir()) == []


class Late(SupervisedPlugin):
    """Makes something of its own in training."""

    def __init__(self, make: Callable[[], Any]) -> None:
        super().__init__()
        self.make = make
        self.thing: Any = None

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.thing = self.make()


class Own:
    """An object with attributes."""

    def __init__(self) -> None:
        self.number = 3


@pytest.mark.parametrize("make", [Own, lambda: nn.Linear(2, 2), lambda: len])
def test_an_object_that_came_in_training_is_refused_by_the_save(
    make: Callable[[], Any], tmp_path: Path
) -> None:
    path = tmp_path / "run.checkpoint"
    strategy = BASE([Late(make)])
    resume_training(path, strategy, STREAM)
    save_training(path, strategy)
    content = path.read_bytes()
    strategy.train(STREAM[0])
    with pytest.raises(CheckpointError, match=r"\(Late\)\.thing.*not there when training started"):
        save_training(path, strategy)
    assert path.read_bytes() == content


class Saves(SupervisedPlugin):
    """Tries to save from within."""

    def __init__(self, hook: str, path: Path) -> None:
        super().__init__()
        self.path, self.refused = str(path), 0
        setattr(self, hook, self._save)

    def _save(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        with pytest.raises(CallOrderError, match="between experiences"):
            save_training(self.path, strategy)
        with pytest.raises(CallOrderError, match="between experiences"):
            resume_training(self.path, strategy, STREAM)
        self.refused += 1


HOOKS = [
    "before_training",
    "before_training_exp",
    "after_backward",
    "after_training_exp",
    "after_training",
    "before_eval",
    "after_eval_iteration",
    "after_eval",
]


@pytest.mark.parametrize("hook", HOOKS)
def test_saving_and_resuming_within_training_is_refused(hook: str, tmp_path: Path) -> None:
    saves = Saves(hook, tmp_path / "run.checkpoint")
    strategy = BASE([saves])
    strategy.train(STREAM[0])
    strategy.eval(EVALUATED)
    assert saves.refused
    assert list(tmp_path.iterdir()) == []


def test_a_strategy_that_has_been_trained_is_not_resumed(tmp_path: Path) -> None:
    strategy = BASE()
    strategy.train(STREAM[0])
    with pytest.raises(CallOrderError, match=r"freshly built.*trained on 1 experiences"):
        resume_training(tmp_path / "run.checkpoint", strategy, STREAM)


def test_streams_that_run_only_once_are_refused(tmp_path: Path) -> None:
    path, strategy = tmp_path / "run.checkpoint", BASE()
    with pytest.raises(ConfigurationError, match=r"an iterator.*list\(stream\)"):
        resume_training(path, strategy, iter(STREAM))
    with pytest.raises(ConfigurationError, match=r"\[experience\]"):
        resume_training(path, strategy, STREAM, EVALUATED[0])
    assert resume_training(path, strategy, list(STREAM), list(EVALUATED)) == 0


def other_optimizer() -> Any:
    model = Network()
    return naive(model, [SIPlugin()], optimizer=Adam(model.parameters()), evaluator=evaluator)


def other_groups() -> Any:
    model = Network()
    layers = [{"params": layer.parameters()} for layer in (model.features, model.classifier)]
    return naive(model, [SIPlugin()], optimizer=SGD(layers, lr=0.1), evaluator=evaluator)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: naive(Network()), "list of plugins"),
        (lambda: BASE([SIPlugin()]), "list of plugins"),
        (lambda: naive(Network(7), [SIPlugin()]), r"classifier\.weight: \(10, 20\) in the"),
        (lambda: naive(nn.Linear(64, 10), [SIPlugin()]), "pass what was evaluated"),
        (other_optimizer, r"optimizer is a torch\.optim\.sgd\.SGD"),
        (other_groups, "has 1 parameter groups"),
        (lambda: naive(Network().double(), [SIPlugin()]), "torch.float64"),
        (lambda: BASE(evaluator=None), r"EvaluationPlugin\)\.metrics\[0\]"),
    ],
    ids=["no SI", "two SI", "outputs", "model", "optimiser", "groups", "dtype", "metrics"],
)
@pytest.mark.filterwarnings("ignore:No loggers specified:UserWarning")
def test_another_strategy_is_refused_without_a_trace(
    build: Callable[[], Any], message: str, saved: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "run.checkpoint"
    path.write_bytes(saved)
    strategy = build()
    before = whole(strategy)
    with pytest.raises(StateDictError, match=message):
        resume_training(path, strategy, STREAM, EVALUATED)
    assert whole(strategy) == before


def test_a_parameter_that_nobody_could_find_again_is_refused(tmp_path: Path) -> None:
    strategy = BASE()
    stray = nn.Parameter(torch.ones(3))
    strategy.optimizer.add_param_group({"params": [stray]})
    stray.grad = torch.ones(3)
    strategy.optimizer.step()
    with pytest.raises(CheckpointError, match=r"shape \(3,\) that is neither in the model"):
        resume_training(tmp_path / "run.checkpoint", strategy, STREAM)


def test_data_nested_too_deeply_are_refused_by_the_save(tmp_path: Path) -> None:
    strategy = BASE([Late(list)])
    nest: list[Any] = []
    strategy.plugins[0].thing = nest
    for _ in range(5000):
        nest.append([])
        nest = nest[0]
    with pytest.raises(CheckpointError, match="nested too deeply"):
        save_training(tmp_path / "run.checkpoint", strategy)
    assert list(tmp_path.iterdir()) == []


def test_a_stream_that_is_too_short_is_refused(saved: bytes, tmp_path: Path) -> None:
    path = tmp_path / "run.checkpoint"
    path.write_bytes(saved)
    with pytest.raises(StateDictError, match="after 2 experiences, the stream has 1"):
        resume_training(path, BASE(), STREAM[:1])


class Stubborn(SupervisedPlugin):
    """Fails to load after it has changed something."""

    def __init__(self, error: BaseException | None) -> None:
        super().__init__()
        self.state = {"steps": [torch.zeros(2)]}
        self.error = error

    def state_dict(self) -> dict[str, Any]:
        return {"steps": 3}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.state["steps"][0] += 1
        self.state["steps"].append(torch.ones(1))
        self.extra = state
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize(
    ("error", "expected"),
    [(KeyError("x"), StateDictError), (KeyboardInterrupt(), KeyboardInterrupt)],
)
@pytest.mark.parametrize("name", TRAININGS)
def test_a_failure_in_the_middle_of_loading_puts_everything_back(
    name: str, error: BaseException, expected: type[BaseException], tmp_path: Path
) -> None:
    build, _ = TRAININGS[name]
    stream, evaluated = streams_of(name)
    strategy = build([], [Stubborn(None)])
    for experience in stream[:2]:
        strategy.train(experience)
        strategy.eval(evaluated)
    next(strategy.model.parameters()).requires_grad = False
    save_training(tmp_path / "c", strategy)
    fresh = build([], [Stubborn(error)])
    before = whole(fresh)
    with pytest.raises(expected):
        resume_training(tmp_path / "c", fresh, stream, evaluated)
    assert whole(fresh) == before


@pytest.mark.parametrize("name", TRAININGS)
def test_saving_changes_nothing(name: str, tmp_path: Path) -> None:
    build, _ = TRAININGS[name]
    stream, evaluated = streams_of(name)
    strategy = build()
    strategy.train(stream[0])
    strategy.eval(evaluated)
    before = whole(strategy)
    save_training(tmp_path / "c", strategy)
    assert whole(strategy) == before


def test_a_model_that_grew_in_evaluation_asks_for_that_stream(tmp_path: Path) -> None:
    build, _ = TRAININGS["growing, momentum"]
    strategy = build()
    strategy.train(STREAM[0])
    strategy.eval(EVALUATED)
    save_training(tmp_path / "c", strategy)
    with pytest.raises(StateDictError, match=r"resume_training\(path, strategy, stream, evaluated"):
        resume_training(tmp_path / "c", build(), STREAM)
    assert resume_training(tmp_path / "c", build(), STREAM, EVALUATED) == 1


def test_no_pickle_is_written_or_read(
    saved: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("pickle")

    for owner, names in (
        (pickle, ("dump", "dumps", "load", "loads", "Pickler", "Unpickler")),
        (torch, ("load", "save")),
    ):
        for name in names:
            monkeypatch.setattr(owner, name, forbidden)
    path = tmp_path / "run.checkpoint"
    path.write_bytes(saved)
    strategy = BASE()
    assert resume_training(path, strategy, STREAM, EVALUATED) == 2
    strategy.train(STREAM[2])
    save_training(path, strategy)
    assert resume_training(path, BASE(), STREAM) == 3


def test_both_functions_are_part_of_the_package() -> None:
    assert si_avalanche.save_training is save_training
    assert si_avalanche.resume_training is resume_training
    assert issubclass(CheckpointError, si_avalanche.SIError)
