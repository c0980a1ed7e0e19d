"""Scikit-learn's handwritten digits, which come with it: no file has to be fetched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from experiments.records import Data
from experiments.streams.reading import count
from experiments.streams.samples import TEST_SHARE, Parts, Samples, cut


def digits(data: Data, seed: int, _root: Path) -> Parts:
    """Read scikit-learn's handwritten digits, 8 x 8 pixels in [0, 1], in experiences of two.

    :param data: how many experiences, which order of the classes.
    :param seed: decides about the order of the classes if they are to be shuffled.
    :return: the samples; the test part is a fifth, always the same.
    """
    # Scikit-learn takes longer to import than to use.
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    everything = Samples(
        torch.as_tensor(pixels / 16.0, dtype=torch.float32),
        torch.as_tensor(labels, dtype=torch.int64),
    )
    order = np.random.RandomState(seed).permutation(10) if data.shuffled_classes else np.arange(10)
    groups = [torch.as_tensor(classes) for classes in np.split(order, count(data))]
    return {
        name: [_of_classes(part, classes) for classes in groups]
        for name, part in zip(("train", "test"), cut(everything, TEST_SHARE), strict=True)
    }


def _of_classes(samples: Samples, classes: torch.Tensor) -> Samples:
    return samples.subset(np.flatnonzero(torch.isin(samples.labels, classes).numpy()))
