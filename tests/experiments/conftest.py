import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments.bench import timing
from tests.experiments.pictures import (
    write_cifar,
    write_core50,
    write_omniglot,
    write_tinyimagenet,
)
from tests.experiments.tiny import write_idx


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_idx(root, "MNIST")
    write_idx(root, "FashionMNIST")
    return root


@pytest.fixture(scope="module")
def every_root(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give a folder with every data set; torchvision takes them for the originals."""
    root = tmp_path_factory.mktemp("every")
    for name in ("MNIST", "FashionMNIST"):
        (root / name).symlink_to(data_root / name)
    with pytest.MonkeyPatch.context() as patch:
        write_cifar(root, patch)
        write_omniglot(root, patch)
        write_tinyimagenet(root)
        write_core50(root)
        yield root


@pytest.fixture
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked for something")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(urllib.request, "urlopen", refuse)


@pytest.fixture
def _single_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the bench time single calls, which tells little and takes no time."""
    monkeypatch.setattr(timing, "_SECONDS_AT_ONCE", 0.0)
