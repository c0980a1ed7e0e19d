"""One set of processes for all tests of this folder."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.processes.launch import Processes

PRELOAD = ["tests.processes.strategies", "tests.processes.sharded_states", "torch._dynamo"]


@pytest.fixture(scope="package")
def processes() -> Iterator[Processes]:
    started = Processes(PRELOAD)
    yield started
    started.close()


@pytest.fixture
def together(processes: Processes, tmp_path: Path) -> Callable[..., list[Any]]:
    """Call a function in so many processes: ``together(ranks, function, *arguments)``."""

    def call(
        ranks: int, function: Callable[..., Any], *arguments: Any, **options: Any
    ) -> list[Any]:
        meeting = tmp_path / f"meeting-{len(list(tmp_path.iterdir()))}"
        return processes.run(ranks, meeting, function, *arguments, **options)

    return call
