"""Small data sets in the layouts in which CIFAR, TinyImageNet, CORe50 and Omniglot come.

A picture tells its class: all but a few pixels of it are ``shade`` of its label.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

CIFAR_PARTS = {"train": 4, "test": 2}
"""How many pictures of each class of CIFAR-100; CIFAR-10 has five batches of that for training."""

CHARACTERS, DRAWINGS = 8, 10


def shade(label: int) -> int:
    return 2 * label + 5


def write_cifar(root: Path, patch: pytest.MonkeyPatch) -> None:
    """Write both data sets, and let torchvision know their checksums for the originals'."""
    ten = {f"data_batch_{number}": "train" for number in range(1, 6)} | {"test_batch": "test"}
    for name, part in ten.items():
        _write_batch(root / "cifar-10-batches-py" / name, 10, CIFAR_PARTS[part], ["labels"])
    for part, per_class in CIFAR_PARTS.items():
        fine = ["fine_labels", "coarse_labels"]
        _write_batch(root / "cifar-100-python" / part, 100, per_class, fine)
    _pickle(root / "cifar-10-batches-py/batches.meta", {"label_names": list("abcdefghij")})
    _pickle(root / "cifar-100-python/meta", {"fine_label_names": [str(n) for n in range(100)]})
    for kind in (datasets.CIFAR10, datasets.CIFAR100):
        folder = root / kind.base_folder
        for name in ("train_list", "test_list"):
            known = [[file, _md5(folder / file)] for file, _ in getattr(kind, name)]
            patch.setattr(kind, name, known)
        meta = {**kind.meta, "md5": _md5(folder / kind.meta["filename"])}
        patch.setattr(kind, "meta", meta)


def _write_batch(path: Path, classes: int, per_class: int, keys: list[str]) -> None:
    labels = np.tile(np.arange(classes), per_class)
    first = 10 if classes == 100 else 0
    shades_of = np.array([[shade(first + label)] for label in labels], np.uint8)
    pixels = np.repeat(shades_of, 3072, axis=1)
    # A few noisy pixels, so that no two pictures of a class are the same.
    noise = np.random.default_rng(list(path.name.encode()))
    pixels[:, :8] = noise.integers(0, 256, (len(labels), 8))
    _pickle(path, {"data": pixels, **{key: labels.tolist() for key in keys}})


def write_tinyimagenet(root: Path) -> None:
    folder = root / "tiny-imagenet-200"
    names = [f"n{number:08d}" for number in range(200)]
    (folder / "val/images").mkdir(parents=True)
    (folder / "wnids.txt").write_text("\n".join(names) + "\n")
    annotations = []
    for label, name in enumerate(names):
        for number in range(2):
            _paint(folder / "train" / name / "images" / f"{name}_{number}.JPEG", label % 120, 64)
        _paint(folder / "val/images" / f"val_{label}.JPEG", label % 120, 64)
        annotations.append("\t".join([f"val_{label}.JPEG", name, "0", "0", "62", "62"]))
    (folder / "val/val_annotations.txt").write_text("\n".join(annotations) + "\n")


def write_core50(root: Path) -> None:
    """Write CORe50 with a picture of each object for training and two for the test."""
    folder = root / "core50"
    for label in range(50):
        for number in range(3):
            _paint(folder / "core50_32x32" / _core50_name(label, number), label, 32)
    groups = [range(10), *(range(start, start + 5) for start in range(10, 50, 5))]
    for run in range(10):
        nc = [[(label, 0) for label in group] for group in groups]
        _write_lists(folder / "batches_filelists/NC_inc" / f"run{run}", nc)
        ni = [[(label, 0) for label in range(50)] for _ in range(8)]
        _write_lists(folder / "batches_filelists/NI_inc" / f"run{run}", ni)
    names = {"nc": {run: dict.fromkeys(range(50), "cup1") for run in range(10)}}
    _pickle(folder / "labels2names.pkl", names)
    _pickle(folder / "paths.pkl", [_core50_name(0, 0)])
    _pickle(folder / "labels.pkl", {"ni": {0: [[0]] * 9}})
    _pickle(folder / "LUP.pkl", {"ni": {0: [[0]] * 9}})


def _core50_name(label: int, number: int) -> str:
    return f"s{number}/o{label}/C_{number}.png"


def _write_lists(folder: Path, batches: list[list[tuple[int, int]]]) -> None:
    folder.mkdir(parents=True)
    test = [(label, number) for number in (1, 2) for label in range(50)]
    lists = {f"train_batch_{i:02d}_filelist.txt": batch for i, batch in enumerate(batches)}
    for name, chosen in {**lists, "test_filelist.txt": test}.items():
        lines = [f"{_core50_name(label, number)} {label}\n" for label, number in chosen]
        (folder / name).write_text("".join(lines))


def write_omniglot(root: Path, patch: pytest.MonkeyPatch) -> None:
    """Write a few characters, and let torchvision know the archives' checksums."""
    folder = root / "omniglot-py/omniglot-py"
    for part in ("images_background", "images_evaluation"):
        for label in range(CHARACTERS):
            place = folder / part / "Alphabet" / f"character{label:02d}"
            for number in range(DRAWINGS):
                _paint(place / f"{label:04d}_{number:02d}.png", label, 105, mode="L")
        (folder / f"{part}.zip").write_bytes(part.encode())
    archives = {part: _md5(folder / f"{part}.zip") for part in datasets.Omniglot.zips_md5}
    patch.setattr(datasets.Omniglot, "zips_md5", archives)


def _paint(path: Path, label: int, size: int, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    bands: Any = shade(label) if mode == "L" else (shade(label),) * 3
    Image.new(mode, (size, size), bands).save(path)


def _pickle(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(value))


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def shades(labels: Iterable[int]) -> list[float]:
    return [shade(label) / 255 for label in labels]
