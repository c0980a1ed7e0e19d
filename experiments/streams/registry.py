"""The registry of streams: what a name stands for. Light to import; data are read elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.records import Data
from experiments.streams import sources
from experiments.streams.sources import Source

if TYPE_CHECKING:
    from experiments.streams.samples import Parts

SCENARIOS = {
    "task": "task incremental",
    "domain": "domain incremental",
    "class": "class incremental",
    "online": "online class incremental",
}

Load = Callable[[Data, int, Path], "Parts"]


@dataclass(frozen=True)
class Stream:
    """One data set in experiences, and the protocol of ``compare`` that goes with its size.

    :param load: reads the samples of every experience, from the description of the data, the
        seed, and the data folder.
    :param shape: shape of one input.
    :param experiences: how many there are, unless a trial asks for another number.
    :param counts: the numbers of experiences it can be cut into; empty for any.
    :param sources: the files it needs below the data folder; none if they ship with a package.
    :param own_classes: whether every experience brings classes of its own; else all have all.
    :param seeded: whether the trial's seed decides about the data, as in a permuted stream.
    :param moments: mean and deviation of the padded images, if ``inputs="normalised"`` is known.
    :param domain: what to read for the domain-incremental scenario, if not the same.
    """

    title: str
    load: Load
    shape: tuple[int, ...]
    experiences: int
    counts: tuple[int, ...] = ()
    sources: tuple[Source, ...] = ()
    own_classes: bool = True
    seeded: bool = False
    moments: tuple[float, float] | None = None
    domain: Load | None = None
    hidden: tuple[int, ...] = (256, 256)
    batch_size: int = 64
    learning_rate: float = 1e-3
    epochs: int = 2
    memory: int = 200


def _lazily(module: str, name: str) -> Load:
    # The modules import torch and Avalanche, which take seconds.
    def load(data: Data, seed: int, root: Path) -> Parts:
        parts: Parts = getattr(import_module(f"experiments.streams.{module}"), name)(
            data, seed, root
        )
        return parts

    return load


def _divisors(classes: int) -> tuple[int, ...]:
    return tuple(count for count in range(1, classes + 1) if classes % count == 0)


# Mean and deviation of MNIST's padded training images, as Hsu et al. (2018) normalise them.
_MNIST_MOMENTS = (0.1000, 0.2752)

STREAMS = {
    "digits": Stream(
        title="handwritten digits",
        load=_lazily("digits", "digits"),
        shape=(64,),
        experiences=5,
        counts=_divisors(10),
        hidden=(100, 100),
        batch_size=32,
        # Three times the usual: with so few iterations per task, Naive would hardly forget.
        learning_rate=3e-3,
        epochs=15,
        memory=100,
    ),
    "split_mnist": Stream(
        title="split MNIST",
        load=_lazily("mnist", "split_mnist"),
        shape=(1, 28, 28),
        experiences=5,
        counts=_divisors(10),
        sources=(sources.MNIST,),
        moments=_MNIST_MOMENTS,
    ),
    "permuted_mnist": Stream(
        title="permuted MNIST",
        load=_lazily("mnist", "permuted_mnist"),
        shape=(1, 28, 28),
        experiences=10,
        sources=(sources.MNIST,),
        own_classes=False,
        seeded=True,
        moments=_MNIST_MOMENTS,
    ),
    "rotated_mnist": Stream(
        title="rotated MNIST",
        load=_lazily("mnist", "rotated_mnist"),
        shape=(1, 28, 28),
        experiences=10,
        sources=(sources.MNIST,),
        own_classes=False,
        seeded=True,
        moments=_MNIST_MOMENTS,
    ),
    "split_fmnist": Stream(
        title="split Fashion-MNIST",
        load=_lazily("mnist", "split_fmnist"),
        shape=(1, 28, 28),
        experiences=5,
        counts=_divisors(10),
        sources=(sources.FASHION_MNIST,),
    ),
    "split_cifar10": Stream(
        title="split CIFAR-10",
        load=_lazily("cifar", "split_cifar10"),
        shape=(3, 32, 32),
        experiences=5,
        counts=_divisors(10),
        sources=(sources.CIFAR10,),
        hidden=(512, 512),
        epochs=5,
        memory=500,
    ),
    "split_cifar100": Stream(
        title="split CIFAR-100",
        load=_lazily("cifar", "split_cifar100"),
        shape=(3, 32, 32),
        experiences=10,
        counts=_divisors(100),
        sources=(sources.CIFAR100,),
        hidden=(512, 512),
        epochs=5,
        memory=2000,
    ),
    "split_cifar110": Stream(
        title="CIFAR-10, then split CIFAR-100",
        load=_lazily("cifar", "split_cifar110"),
        shape=(3, 32, 32),
        experiences=11,
        counts=tuple(1 + parts for parts in _divisors(100)),
        sources=(sources.CIFAR10, sources.CIFAR100),
        hidden=(512, 512),
        epochs=5,
        memory=2000,
    ),
    "zenke_cifar": Stream(
        title="CIFAR-10, then five tasks of CIFAR-100",
        load=_lazily("cifar", "zenke_cifar"),
        shape=(3, 32, 32),
        experiences=6,
        counts=tuple(range(1, 12)),
        sources=(sources.CIFAR10, sources.CIFAR100),
        hidden=(512,),
        epochs=5,
        memory=1000,
    ),
    "split_tinyimagenet": Stream(
        title="split TinyImageNet",
        load=_lazily("pictures", "split_tinyimagenet"),
        shape=(3, 64, 64),
        experiences=10,
        counts=_divisors(200),
        sources=(sources.TINY_IMAGENET,),
        hidden=(512, 512),
        epochs=5,
        memory=2000,
    ),
    "core50": Stream(
        title="CORe50",
        load=_lazily("pictures", "core50_classes"),
        shape=(3, 32, 32),
        experiences=9,
        counts=(9,),
        sources=(sources.CORE50,),
        domain=_lazily("pictures", "core50_sessions"),
        hidden=(512, 512),
        epochs=2,
        memory=1000,
    ),
    "split_omniglot": Stream(
        title="split Omniglot",
        load=_lazily("pictures", "split_omniglot"),
        shape=(1, 28, 28),
        # Avalanche's own number: there are 964 characters.
        experiences=4,
        counts=_divisors(964),
        sources=(sources.OMNIGLOT,),
        hidden=(512, 512),
        batch_size=32,
        epochs=20,
        memory=964,
    ),
}
