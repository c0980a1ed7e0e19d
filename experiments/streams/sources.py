"""The files of each data set: what has to lie where below the data folder, and where to get it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """One data set on disk.

    :param files: files and folders below the data folder, as Avalanche and torchvision look for
        them before they would download anything.
    :param page: the official page.
    :param layout: what to fetch there and how to lay it out.
    """

    files: tuple[str, ...]
    page: str
    layout: str


def _idx_files(folder: str) -> tuple[str, ...]:
    parts = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    return tuple(f"{folder}/raw/{part}-ubyte" for part in parts)


def _below(folder: str, names: str) -> tuple[str, ...]:
    return tuple(f"{folder}/{name}" for name in names.split())


MNIST = Source(
    _idx_files("MNIST"),
    "http://yann.lecun.com/exdb/mnist/ (torchvision's copy: "
    "https://ossci-datasets.s3.amazonaws.com/mnist/)",
    "four .gz files, each unpacked with gunzip into MNIST/raw/",
)
FASHION_MNIST = Source(
    _idx_files("FashionMNIST"),
    "https://github.com/zalandoresearch/fashion-mnist",
    "four .gz files, each unpacked with gunzip into FashionMNIST/raw/",
)
CIFAR10 = Source(
    _below(
        "cifar-10-batches-py",
        "data_batch_1 data_batch_2 data_batch_3 data_batch_4 data_batch_5 test_batch batches.meta",
    ),
    "https://www.cs.toronto.edu/~kriz/cifar.html",
    "cifar-10-python.tar.gz, unpacked in the data folder",
)
CIFAR100 = Source(
    _below("cifar-100-python", "train test meta"),
    "https://www.cs.toronto.edu/~kriz/cifar.html",
    "cifar-100-python.tar.gz, unpacked in the data folder",
)
TINY_IMAGENET = Source(
    _below("tiny-imagenet-200", "wnids.txt train val/images val/val_annotations.txt"),
    "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
    "the archive, unpacked in the data folder",
)
CORE50 = Source(
    _below(
        "core50", "core50_32x32 batches_filelists paths.pkl LUP.pkl labels.pkl labels2names.pkl"
    ),
    "https://vlomonaco.github.io/core50/",
    "core50_32x32.zip (http://vps.continualai.org/data/core50_32x32.zip) and "
    "batches_filelists.zip unpacked in core50/, the four .pkl files beside them; Avalanche writes "
    "folders of its own there (names ending in _cat) when it reads them first",
)
OMNIGLOT = Source(
    # Twice the folder: Avalanche and torchvision each add it.
    _below(
        "omniglot-py/omniglot-py",
        "images_background.zip images_background images_evaluation.zip images_evaluation",
    ),
    "https://github.com/brendenlake/omniglot",
    "images_background.zip and images_evaluation.zip from its folder python/, in "
    "omniglot-py/omniglot-py/, both kept and both unpacked there",
)
