"""Avalanche's classic benchmarks, read from local files into memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from avalanche.benchmarks.classic import PermutedMNIST, SplitFMNIST, SplitMNIST
from torchvision.transforms import Compose, Normalize, Pad

from experiments.records import Data
from experiments.streams.samples import Parts, Samples, read
from experiments.untyped import Benchmark


def split_mnist(data: Data, seed: int, root: Path) -> Parts:
    """Read split MNIST: ten digits, two in each experience unless told otherwise.

    :param data: which inputs, how many experiences, which order of the classes.
    :param seed: decides about the order of the classes if they are to be shuffled.
    :param root: the folder that holds ``MNIST/raw``.
    :return: the samples.
    """
    return _read(SplitMNIST(**_split(data, seed, root, experiences=5, classes=10)))


def split_fmnist(data: Data, seed: int, root: Path) -> Parts:
    """Read split Fashion-MNIST: ten kinds of clothing, two in each experience.

    :param data: which inputs, how many experiences, which order of the classes.
    :param seed: decides about the order of the classes if they are to be shuffled.
    :param root: the folder that holds ``FashionMNIST/raw``.
    :return: the samples.
    """
    return _read(SplitFMNIST(**_split(data, seed, root, experiences=5, classes=10)))


def permuted_mnist(data: Data, seed: int, root: Path) -> Parts:
    """Read permuted MNIST: all digits in each experience, the pixels in an order of its own.

    :param data: which inputs, how many experiences, whether the first is left as it is.
    :param seed: decides about the permutations, as in Avalanche's ``PermutedMNIST``.
    :param root: the folder that holds ``MNIST/raw``.
    :return: the samples.
    """
    experiences = 10 if data.experiences is None else data.experiences
    if data.inputs == "unit" and not data.first_plain:
        own = {"train_transform": None, "eval_transform": None}
        return _read(PermutedMNIST(experiences, seed=seed, dataset_root=root, **own))
    # Avalanche's permutes 28 x 28 pixels, in every experience.
    whole = _read(SplitMNIST(**_split(data, seed, root, experiences=1, classes=10, only=1)))
    orders = _orders(whole["train"][0].inputs[0].numel(), experiences, seed, data.first_plain)
    return {name: [_permute(part, order) for order in orders] for name, (part,) in whole.items()}


def _orders(pixels: int, experiences: int, seed: int, first_plain: bool) -> list[torch.Tensor]:
    generator = np.random.RandomState(seed)
    orders = [torch.from_numpy(generator.permutation(pixels)) for _ in range(experiences)]
    if first_plain:
        orders[0] = torch.arange(pixels)
    return orders


def _permute(samples: Samples, order: torch.Tensor) -> Samples:
    shape = samples.inputs.shape
    return Samples(samples.inputs.flatten(1)[:, order].reshape(shape), samples.labels)


def _read(benchmark: Benchmark) -> Parts:
    return {"train": read(benchmark.train_stream), "test": read(benchmark.test_stream)}


def _split(
    data: Data, seed: int, root: Path, *, experiences: int, classes: int, only: int | None = None
) -> dict[str, Any]:
    transform = _inputs(data)
    order: dict[str, Any] = (
        {"seed": seed, "shuffle": True}
        if data.shuffled_classes
        else {"fixed_class_order": list(range(classes))}
    )
    return {
        "n_experiences": only or data.experiences or experiences,
        "dataset_root": root,
        "train_transform": transform,
        "eval_transform": transform,
        **order,
    }


def _inputs(data: Data) -> Compose | None:
    if data.inputs == "unit":
        return None
    # Mean and deviation are Hsu et al.'s (2018), of the padded images of MNIST.
    steps = [Pad(2)] if data.inputs == "padded" else [Pad(2), Normalize((0.1000,), (0.2752,))]
    return Compose(steps)
