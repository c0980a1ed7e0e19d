"""TinyImageNet, CORe50 and Omniglot, through Avalanche's classic benchmarks."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
from avalanche.benchmarks.classic import CORe50, SplitOmniglot, SplitTinyImageNet
from avalanche.benchmarks.datasets import CORe50Dataset, TinyImagenet
from avalanche.benchmarks.datasets.omniglot import Omniglot
from filelock import FileLock
from torchvision.transforms import Resize, ToTensor

from experiments.records import Data
from experiments.streams.reading import require_usable, split_arguments, transforms
from experiments.streams.samples import TEST_SHARE, Parts, Samples, cut, read
from experiments.untyped import Benchmark

# Predefined orders of CORe50, of which Avalanche has ten.
_RUNS = 10


def split_tinyimagenet(data: Data, seed: int, root: Path) -> Parts:
    """Read split TinyImageNet: 200 classes, 20 in each experience unless told otherwise.

    The images of a class come in the order in which the file system lists them, so that a seed's
    batches may differ between two copies of the files.

    :param data: which inputs, how many experiences, which order of the classes.
    :param seed: decides about the order of the classes if they are to be shuffled.
    :param root: the folder that holds ``tiny-imagenet-200``.
    :return: the samples; the test part is the data set's validation set, as in Avalanche.
    :raises UnusableDataError: if the files are incomplete.
    """
    both = (partial(TinyImagenet, root, train=train, download=False) for train in (True, False))
    require_usable("TinyImageNet", root, *both)
    return read(SplitTinyImageNet(**split_arguments(data, seed, root, ToTensor())))


def split_omniglot(data: Data, seed: int, root: Path) -> Parts:
    """Read split Omniglot: the 964 characters of the background set, at 28 x 28 pixels.

    Avalanche's own test stream holds the evaluation set, which has other characters under the
    same labels. The test part here is a fifth of the background set, always the same.

    :param data: which inputs, how many experiences, which order of the characters: that of their
        names, unless shuffled.
    :param seed: decides about the order of the characters if they are to be shuffled.
    :param root: the folder that holds ``omniglot-py``.
    :return: the samples; characters have the labels from 0 in the order in which they come.
    :raises UnusableDataError: if the files are not the original ones.
    """
    both = (partial(Omniglot, str(root), train=train, download=False) for train in (True, False))
    require_usable("Omniglot", root, *both)
    arguments = split_arguments(data, seed, root, Resize((28, 28)), ToTensor())
    if not data.shuffled_classes:
        arguments["fixed_class_order"] = _by_name(root)
    benchmark = SplitOmniglot(**arguments, class_ids_from_zero_from_first_exp=True)
    pairs = [cut(_sorted(samples), TEST_SHARE) for samples in read(benchmark)["train"]]
    return {"train": [rest for rest, _ in pairs], "test": [part for _, part in pairs]}


def _by_name(root: Path) -> list[int]:
    # torchvision numbers the characters in the order in which the file system lists them.
    names = Omniglot(str(root), train=True, download=False)._characters
    return sorted(range(len(names)), key=names.__getitem__)


def _sorted(samples: Samples) -> Samples:
    # The file system's order again, which would decide about the test part.
    looks = [image.numpy().tobytes() for image in samples.inputs]
    order = sorted(range(len(looks)), key=lambda i: (int(samples.labels[i]), looks[i]))
    return samples.subset(np.array(order))


def core50_classes(data: Data, seed: int, root: Path) -> Parts:
    """Read CORe50's new classes: 50 objects at 32 x 32 pixels, ten of them first and then five.

    :param data: which inputs, which of Avalanche's predefined orders.
    :param seed: chooses the order if the classes are to be shuffled; it is the first otherwise.
    :param root: the folder that holds ``core50``.
    :return: the samples; each experience is tested on its own classes.
    :raises UnusableDataError: if the files are incomplete.
    """
    parts = read(_core50("nc", data, seed, root))
    (test,) = parts["test"]
    inside = [torch.isin(test.labels, samples.labels.unique()) for samples in parts["train"]]
    return {**parts, "test": [test.subset(np.flatnonzero(each.numpy())) for each in inside]}


def core50_sessions(data: Data, seed: int, root: Path) -> Parts:
    """Read CORe50's new instances: all objects in each of eight sessions.

    :param data: which inputs, which of Avalanche's predefined orders of the sessions.
    :param seed: chooses the order if it is to be shuffled; it is the first otherwise.
    :param root: the folder that holds ``core50``.
    :return: the samples; the one test set, of three other sessions, is dealt out among the
        experiences, so that the mean over them is the accuracy on all of it.
    :raises UnusableDataError: if the files are incomplete.
    """
    parts = read(_core50("ni", data, seed, root))
    (test,) = parts["test"]
    by_class = np.argsort(test.labels.numpy(), kind="stable")
    sessions = len(parts["train"])
    return {**parts, "test": [test.subset(by_class[i::sessions]) for i in range(sessions)]}


def _core50(kind: str, data: Data, seed: int, root: Path) -> Benchmark:
    folder = root / "core50"
    # Avalanche writes file lists of its own when it reads the folder first, and two processes
    # that do so at once disturb each other.
    with FileLock(folder / ".lock"):
        check = partial(CORe50Dataset, folder, mini=True, download=False)
        require_usable("CORe50", folder, check)
    return CORe50(
        scenario=kind,
        run=seed % _RUNS if data.shuffled_classes else 0,
        mini=True,
        dataset_root=folder,
        **transforms(data, ToTensor()),
    )
