"""MNIST and Fashion-MNIST, through Avalanche's classic benchmarks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from avalanche.benchmarks.classic import PermutedMNIST, RotatedMNIST, SplitFMNIST, SplitMNIST
from torchvision.transforms import ToTensor

from experiments.records import Data
from experiments.streams.reading import count, split_arguments, transforms
from experiments.streams.samples import Parts, Samples, read


def split_mnist(data: Data, seed: int, root: Path) -> Parts:
    """Read split MNIST: ten digits, two in each experience unless told otherwise.

    :param data: which inputs, how many experiences, which order of the classes.
    :param seed: decides about the order of the classes if they are to be shuffled.
    :param root: the folder that holds ``MNIST/raw``.
    :return: the samples.
    """
    # Avalanche's MNIST gives tensors between 0 and 1 by itself.
    return read(SplitMNIST(**split_arguments(data, seed, root)))


def split_fmnist(data: Data, seed: int, root: Path) -> Parts:
    """Read split Fashion-MNIST: ten kinds of clothing, two in each experience.

    :param data: which inputs, how many experiences, which order of the classes.
    :param seed: decides about the order of the classes if they are to be shuffled.
    :param root: the folder that holds ``FashionMNIST/raw``.
    :return: the samples.
    """
    return read(SplitFMNIST(**split_arguments(data, seed, root, ToTensor())))


def rotated_mnist(data: Data, seed: int, root: Path) -> Parts:
    """Read rotated MNIST: all digits in each experience, turned by an angle of its own.

    :param data: which inputs, how many experiences.
    :param seed: decides about the angles, as in Avalanche's ``RotatedMNIST``.
    :param root: the folder that holds ``MNIST/raw``.
    :return: the samples.
    """
    return read(RotatedMNIST(count(data), seed=seed, dataset_root=root, **transforms(data)))


def permuted_mnist(data: Data, seed: int, root: Path) -> Parts:
    """Read permuted MNIST: all digits in each experience, the pixels in an order of its own.

    :param data: which inputs, how many experiences, whether the first is left as it is.
    :param seed: decides about the permutations, as in Avalanche's ``PermutedMNIST``.
    :param root: the folder that holds ``MNIST/raw``.
    :return: the samples.
    """
    if data.inputs == "unit" and not data.first_plain:
        return read(PermutedMNIST(count(data), seed=seed, dataset_root=root, **transforms(data)))
    # Avalanche's permutes 28 x 28 pixels, in every experience.
    whole = read(SplitMNIST(1, shuffle=False, dataset_root=root, **transforms(data)))
    orders = _orders(whole["train"][0].inputs[0].numel(), count(data), seed, data.first_plain)
    return {name: [_permute(part, order) for order in orders] for name, (part,) in whole.items()}


def _orders(pixels: int, experiences: int, seed: int, first_plain: bool) -> list[torch.Tensor]:
    generator = np.random.RandomState(seed)
    orders = [torch.from_numpy(generator.permutation(pixels)) for _ in range(experiences)]
    if first_plain:
        orders[0] = torch.arange(pixels)
    return orders


def _permute(samples: Samples, order: torch.Tensor) -> Samples:
    # MNIST itself is small.
    assert isinstance(samples.inputs, torch.Tensor)
    shape = samples.inputs.shape
    return Samples(samples.inputs.flatten(1)[:, order].reshape(shape), samples.labels)
