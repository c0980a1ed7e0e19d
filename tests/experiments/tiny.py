"""Small true trials: a handful of images in the layout that MNIST comes in, and tiny networks."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from experiments.records import Data, Description, Network, Place, Result, Training
from experiments.sweep import Engine, run_trials

PARTS = {"train": 12, "t10k": 6}

# They go over the data again at each mini-batch, and are refused.
NOT_ONLINE = ("ewc", "cumulative", "scratch")


def write_idx(data_root: Path, name: str) -> None:
    """Write images of ten classes, each bright in rows of its own, PARTS[...] of each class."""
    folder = data_root / name / "raw"
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0)
    for part, per_class in PARTS.items():
        labels = np.tile(np.arange(10, dtype=np.uint8), per_class)
        images = noise.integers(0, 60, (len(labels), 28, 28)).astype(np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[2 * label : 2 * label + 3] += 150
        header = struct.pack(">IIII", 2051, len(images), 28, 28)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        header = struct.pack(">II", 2049, len(labels))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())


def describe(
    strategy: str,
    *,
    scenario: str = "domain",
    strength: float | None = None,
    seed: int = 0,
    epochs: int = 2,
    stream: str = "split_mnist",
) -> Description:
    return Description(
        data=Data(stream, scenario),
        strategy=strategy,
        strength=strength,
        network=Network(hidden=(8, 8), head="multi" if scenario == "task" else "single"),
        training=Training(
            batch_size=6,
            learning_rate=1e-2,
            # An online stream is seen once.
            epochs=1 if scenario == "online" else epochs,
        ),
        seed=seed,
        memory=12,
    )


def run(description: Description, data_root: Path) -> Result:
    """Run a trial as a sweep does, with one thread; a failure is an error here."""
    (row,) = run_trials([description], Place(str(data_root)), Engine())
    assert row.result is not None, row.failure
    return row.result
