"""Models with more than parameters: buffers, further states, plain attributes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.training import Naive
from avalanche.training.plugins import SupervisedPlugin
from torch import Tensor, nn
from torch.optim import SGD

from si_avalanche import CheckpointError, SIPlugin, StateDictError, resume_training, save_training
from si_avalanche.checkpoint.container import read_file, write_file
from si_avalanche.checkpoint.document import from_bytes, to_bytes
from tests.digits import Network, naive
from tests.interruption.portraits import whole
from tests.interruption.trainings import equal, small_benchmark

STREAM = small_benchmark().train_stream[:2]


class Remembering(Network):
    """Keeps the sums of its features in a buffer that grows, and a text as its extra state."""

    sums: Tensor

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.register_buffer("sums", torch.zeros(0, dtype=dtype))
        self.told = "nothing"

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            with torch.no_grad():
                self.sums = torch.cat([self.sums, x.sum().reshape(1).to(self.sums.dtype)])
            self.told = f"{len(self.sums)} sums"
        return super().forward(x)

    def get_extra_state(self) -> Any:
        return {"told": self.told}

    def set_extra_state(self, state: Any) -> None:
        self.told = state["told"]


def strategy_of(model: nn.Module, *plugins: SupervisedPlugin) -> Naive:
    return naive(model, [SIPlugin(), *plugins], optimizer=SGD(model.parameters(), lr=0.05))


def saved(path: Path, model: nn.Module, *plugins: SupervisedPlugin) -> None:
    strategy = strategy_of(model, *plugins)
    assert resume_training(path, strategy, STREAM) == 0
    strategy.train(STREAM[0])
    save_training(path, strategy)


def test_a_buffer_that_has_grown_and_an_extra_state_come_back(tmp_path: Path) -> None:
    model, fresh = Remembering(), Remembering()
    saved(tmp_path / "run", model)
    assert resume_training(tmp_path / "run", strategy_of(fresh), STREAM) == 1
    assert len(model.sums) > 0
    assert equal(model.sums, fresh.sums)
    assert fresh.told == model.told != "nothing"


@pytest.mark.parametrize(
    "other", [lambda: Remembering(torch.float64), Network, lambda: Remembering().double()]
)
def test_buffers_of_another_kind_are_refused_without_a_trace(other: Any, tmp_path: Path) -> None:
    saved(tmp_path / "run", Remembering())
    strategy = strategy_of(other())
    before = whole(strategy)
    with pytest.raises(StateDictError):
        resume_training(tmp_path / "run", strategy, STREAM)
    assert whole(strategy) == before


class Counting(SupervisedPlugin):
    """Counts iterations in an array, in place."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = np.zeros(3)

    def after_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.counts += 1


def test_an_array_of_a_plugin_comes_back_and_is_put_back_after_a_failure(tmp_path: Path) -> None:
    counting = Counting()
    saved(tmp_path / "run", Network(), counting)
    fresh = Counting()
    strategy = strategy_of(Network(), fresh)
    assert resume_training(tmp_path / "run", strategy, STREAM) == 1
    assert np.array_equal(fresh.counts, counting.counts)
    assert fresh.counts.any()
    broken = strategy_of(nn.Sequential(nn.Linear(64, 10)), Counting())
    before = whole(broken)
    with pytest.raises(StateDictError):
        resume_training(tmp_path / "run", broken, STREAM)
    assert whole(broken) == before


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
def test_a_dtype_that_the_file_lacks_is_refused_and_the_former_file_stays(tmp_path: Path) -> None:
    class Odd(SupervisedPlugin):
        """Holds numbers of a kind that few formats know, from the second experience on."""

        numbers = torch.zeros(3)

    odd = Odd()
    odd.numbers = torch.zeros(3)
    strategy = strategy_of(Network(), odd)
    resume_training(tmp_path / "run", strategy, STREAM)
    save_training(tmp_path / "run", strategy)
    former = (tmp_path / "run").read_bytes()
    odd.numbers = torch.zeros(3, dtype=torch.complex32)
    with pytest.raises(CheckpointError, match="complex32"):
        save_training(tmp_path / "run", strategy)
    assert (tmp_path / "run").read_bytes() == former


def test_random_states_of_devices_that_are_not_here_are_left_out_with_a_warning(
    tmp_path: Path,
) -> None:
    path = tmp_path / "run"
    saved(path, Network())
    tree, tensors = from_bytes(read_file(path))
    states = dict(tree["random"]["items"])
    devices = torch.cuda.device_count() + 1
    states["cuda"]["items"] = [dict(states["torch"], id=9000 + i) for i in range(devices)]
    write_file(path, to_bytes(tree, tensors))
    with pytest.warns(UserWarning, match=f"random states of {devices} CUDA devices"):
        assert resume_training(path, strategy_of(Network()), STREAM) == 1
