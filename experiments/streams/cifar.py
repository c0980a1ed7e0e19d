"""CIFAR-10 and CIFAR-100, through Avalanche's classic benchmarks; pixels between 0 and 1."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from avalanche.benchmarks.classic import SplitCIFAR10, SplitCIFAR100, SplitCIFAR110
from torchvision import datasets
from torchvision.transforms import ToTensor

from experiments.records import Data
from experiments.streams.reading import count, require_usable, split_arguments, transforms
from experiments.streams.samples import Parts, read
from experiments.untyped import Benchmark, Dataset

# CIFAR-10, and ten tasks of ten classes of CIFAR-100, of which Zenke et al. take the first five.
_ZENKE_EXPERIENCES = 11


def split_cifar10(data: Data, seed: int, root: Path) -> Parts:
    """Read split CIFAR-10: ten classes, two in each experience unless told otherwise.

    :param data: which inputs, how many experiences, which order of the classes.
    :param seed: decides about the order of the classes if they are to be shuffled.
    :param root: the folder that holds ``cifar-10-batches-py``.
    :return: the samples.
    :raises UnusableDataError: if the files are not the original ones.
    """
    _require(datasets.CIFAR10, root)
    return read(SplitCIFAR10(**split_arguments(data, seed, root, ToTensor())))


def split_cifar100(data: Data, seed: int, root: Path) -> Parts:
    """Read split CIFAR-100: a hundred classes, ten in each experience unless told otherwise.

    :param data: which inputs, how many experiences, which order of the classes.
    :param seed: decides about the order of the classes if they are to be shuffled.
    :param root: the folder that holds ``cifar-100-python``.
    :return: the samples.
    :raises UnusableDataError: if the files are not the original ones.
    """
    _require(datasets.CIFAR100, root)
    return read(SplitCIFAR100(**split_arguments(data, seed, root, ToTensor())))


def split_cifar110(data: Data, seed: int, root: Path) -> Parts:
    """Read CIFAR-10 as the first experience and CIFAR-100 split among the others.

    :param data: which inputs, how many experiences, which order of the classes of CIFAR-100.
    :param seed: decides about that order if it is to be shuffled.
    :param root: the folder that holds both data sets.
    :return: the samples; classes have the labels from 0 in the order in which they come.
    :raises UnusableDataError: if the files are not the original ones.
    """
    return read(_cifar110(count(data), data, seed, root))


def zenke_cifar(data: Data, seed: int, root: Path) -> Parts:
    """Read the stream of Zenke et al. (2017): CIFAR-10, then tasks of ten classes of CIFAR-100.

    :param data: how many experiences, CIFAR-10 included; which order of the classes of CIFAR-100.
    :param seed: decides about that order if it is to be shuffled.
    :param root: the folder that holds both data sets.
    :return: the samples; classes have the labels from 0 in the order in which they come.
    :raises UnusableDataError: if the files are not the original ones.
    """
    return read(_cifar110(_ZENKE_EXPERIENCES, data, seed, root), first=count(data))


def _cifar110(experiences: int, data: Data, seed: int, root: Path) -> Benchmark:
    _require(datasets.CIFAR10, root)
    _require(datasets.CIFAR100, root)
    order = {"seed": seed} if data.shuffled_classes else {"fixed_class_order": range(100)}
    return SplitCIFAR110(
        experiences,
        class_ids_from_zero_from_first_exp=True,
        dataset_root_cifar10=root,
        dataset_root_cifar100=root,
        **order,
        **transforms(data, ToTensor()),
    )


def _require(kind: Callable[..., Dataset], root: Path) -> None:
    # One look compares the checksums of training and test files both.
    check = partial(kind, root, train=False, download=False)
    require_usable(kind.__name__, root, check)
