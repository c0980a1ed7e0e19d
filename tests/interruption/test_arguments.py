"""Arguments of the two functions that make no sense are refused by name, and nothing is written."""

from pathlib import Path
from typing import Any

import pytest
from torch import nn

from si_avalanche import CheckpointError, ConfigurationError, resume_training, save_training
from tests.interruption.trainings import TRAININGS, streams_of

BASE = TRAININGS["one head, momentum"][0]
STREAM, _ = streams_of("one head, momentum")


@pytest.mark.parametrize("path", [5, None, b"run", "a\0b", "x" * 300, "x" * 245], ids=repr)
def test_what_is_no_path_of_a_file_is_refused_at_the_start(path: Any, tmp_path: Path) -> None:
    strategy = BASE()
    given = tmp_path / path if isinstance(path, str) else path
    with pytest.raises(CheckpointError):
        resume_training(given, strategy, STREAM)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("strategy", [None, nn.Linear(2, 2)])
def test_what_is_no_strategy_is_refused(strategy: Any, tmp_path: Path) -> None:
    for call in (save_training, lambda *given: resume_training(*given, [])):
        with pytest.raises(ConfigurationError, match="needs a strategy"):
            call(tmp_path / "run", strategy)


@pytest.mark.parametrize("stream", ["abc", {0: 1}, b"ab"])
def test_what_is_no_stream_is_refused(stream: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="must have a length and be sliced"):
        resume_training(tmp_path / "run", BASE(), stream)
