"""A training saved after two experiences."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from si_avalanche import save_training
from tests.interruption.deaths import warm_up
from tests.interruption.trainings import TRAININGS, streams_of


@pytest.fixture(autouse=True, scope="package")
def _ready() -> Iterator[None]:
    # Networks this small lose more by waiting for threads than they win by them.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    warm_up()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file of a training with one head, after two experiences."""
    path: Path = tmp_path_factory.mktemp("saved") / "run.checkpoint"
    stream, _ = streams_of("one head, momentum")
    strategy = TRAININGS["one head, momentum"][0]()
    torch.manual_seed(1)
    for experience in stream[:2]:
        strategy.train(experience)
    save_training(path, strategy)
    return path.read_bytes()
