"""Trials that train nothing, for what is said of sweeps alone; worker processes import them."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

from experiments.records import Data, Description, Network, Place, Result, Training

WORK_SECONDS = 0.1


def describe(
    seed: int, strategy: str = "si", strength: float | None = 0.5, device: str = "cpu"
) -> Description:
    return Description(
        data=Data("split_mnist", "domain"),
        strategy=strategy,
        strength=strength,
        network=Network(hidden=(8,)),
        training=Training(batch_size=6, learning_rate=1e-2, epochs=1),
        seed=seed,
        device=device,
    )


def result(seed: int) -> Result:
    return Result(((seed / 64,),), 1e-3, 0.0, 12, 0.1, -0.1, 2.0, {"weight": 0.25})


def starts(place: Place) -> list[int]:
    """The seeds of the trials that were begun, once for each time."""
    return sorted(int(path.name.split("-")[0]) for path in Path(place.log_folder).iterdir())


def steady(description: Description, place: Place) -> Result:
    """Leave a note of the start, work for a while, and measure what the seed says."""
    note = Path(place.log_folder) / f"{description.seed}-{os.getpid()}-{time.monotonic_ns()}"
    note.touch()
    time.sleep(WORK_SECONDS)
    return result(description.seed)


def deadly(description: Description, place: Place) -> Result:
    """Die without a word if the seed is 1, as a process out of memory does."""
    if description.seed == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return steady(description, place)


def deadly_once(description: Description, place: Place) -> Result:
    """Die if the seed is 1 and it is the first time."""
    first = 1 not in starts(place)
    if first and description.seed == 1:
        (Path(place.log_folder) / "1-died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return steady(description, place)


def alone(description: Description, place: Place) -> Result:
    """Fail if the process runs another trial now."""
    mine = Path(place.log_folder) / f"{os.getpid()}-busy"
    mine.touch(exist_ok=False)
    time.sleep(WORK_SECONDS)
    mine.unlink()
    return result(description.seed)


def threads_as_accuracy(description: Description, place: Place) -> Result:
    """Measure how many threads PyTorch has."""
    import torch

    return replace(result(description.seed), accuracy=((float(torch.get_num_threads()),),))


def failing(description: Description, place: Place) -> Result:
    """Fail if the seed is 1, and measure no number if it is 2."""
    if description.seed == 1:
        raise ValueError("a seed\nthat fails")
    if description.seed == 2:
        return replace(result(2), accuracy=((float("nan"),),))
    return steady(description, place)


def never_ending(description: Description, place: Place) -> Result:
    """Run until killed."""
    (Path(place.log_folder) / f"{description.seed}-never").touch()
    while True:
        time.sleep(1)
