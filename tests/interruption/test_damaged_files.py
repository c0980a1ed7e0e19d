"""Damaged and foreign files are refused, and nothing has changed then."""

import errno
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save as save_safetensors

from si_avalanche import CheckpointError, resume_training, save_training
from si_avalanche.checkpoint.container import MAGIC, read_file, write_file
from tests.interruption.portraits import whole
from tests.interruption.trainings import TRAININGS, streams_of

BUILD = TRAININGS["one head, momentum"][0]


class Bomb:
    """Ends the process if it is ever unpickled."""

    def __reduce__(self) -> Any:
        return os._exit, (7,)


def refused(path: Path, message: str) -> None:
    """Resume from a file that must be refused without any trace."""
    stream, evaluated = streams_of("one head, momentum")
    strategy = BUILD()
    content = path.read_bytes() if path.is_file() else None
    before = whole(strategy)
    with pytest.raises(CheckpointError, match=message):
        resume_training(path, strategy, stream, evaluated)
    assert whole(strategy) == before
    assert content is None or path.read_bytes() == content


def torch_file(path: Path) -> None:
    torch.save({"model": BUILD().model.state_dict()}, path)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda p: p.write_bytes(b""), "is not a checkpoint"),
        (lambda p: p.write_text("hello"), "is not a checkpoint of si-avalanche: it begins with"),
        (torch_file, "is not a checkpoint"),
        (lambda p: p.write_bytes(pickle.dumps(Bomb())), "is not a checkpoint"),
        (lambda p: p.write_bytes(save_safetensors({"a": torch.ones(2)})), "is not a checkpoint"),
        (lambda p: p.write_bytes(MAGIC), "cut short in its header"),
        (lambda p: p.mkdir(), "is not a file"),
        (lambda p: write_file(p, save_safetensors({"a": torch.ones(2)})), "malformed.*'tree'"),
        (lambda p: write_file(p, pickle.dumps(Bomb())), "malformed"),
        (lambda p: write_file(p, b""), "malformed"),
    ],
    ids=[
        "empty",
        "text",
        "torch",
        "pickle",
        "safetensors",
        "header",
        "folder",
        "other safetensors",
        "pickle in the frame",
        "nothing in the frame",
    ],
)
def test_foreign_files_are_refused_without_a_trace(
    write: Any, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "run.checkpoint"
    write(path)
    refused(path, message)


@pytest.mark.parametrize("part", [0.001, 0.01, 0.3, 0.9, 0.99999])
def test_a_file_cut_anywhere_is_refused_without_a_trace(
    part: float, saved: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "run.checkpoint"
    path.write_bytes(saved[: int(len(saved) * part)])
    refused(path, "cut short|is not a checkpoint")
    path.write_bytes(saved + b"\0")
    refused(path, "added to")


@pytest.mark.parametrize("place", [0, 24, 27, 28, 35, 36, 67, 68, 75, 76, 1000, -1])
def test_a_file_with_a_flipped_bit_is_refused_without_a_trace(
    place: int, saved: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "run.checkpoint"
    damaged = bytearray(saved)
    damaged[place] ^= 4
    path.write_bytes(damaged)
    refused(path, "is not a checkpoint|has format|announces|was altered")


def test_no_flipped_bit_goes_unnoticed(
    saved: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("flipped") / "run.checkpoint"

    @settings(deadline=None, max_examples=150)
    @given(st.integers(0, len(saved) * 8 - 1))
    def check(bit: int) -> None:
        damaged = bytearray(saved)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError):
            read_file(path)

    check()


def test_a_newer_format_is_told_from_damage(saved: bytes, tmp_path: Path) -> None:
    path = tmp_path / "run.checkpoint"
    path.write_bytes(saved[: len(MAGIC)] + (9).to_bytes(4, "big") + saved[len(MAGIC) + 4 :])
    refused(path, "has format 9; this release reads 1")


def test_without_a_folder_or_the_right_to_write_it_is_said_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused(tmp_path / "missing" / "run.checkpoint", "no folder.*missing.*before training")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    # Whoever runs the tests may be allowed everything.
    monkeypatch.setattr(Path, "touch", refuse)
    refused(tmp_path / "run.checkpoint", "Permission denied.*permissions of the folder")


@pytest.mark.parametrize("function", ["write", "fsync", "replace"])
@pytest.mark.parametrize("kind", [OSError, KeyboardInterrupt])
def test_a_save_that_fails_leaves_the_last_one_and_no_temporary_file(
    function: str, kind: type[BaseException], saved: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "run.checkpoint"
    path.write_bytes(saved)
    strategy = BUILD()

    def fail(*_: object) -> None:
        raise kind(errno.ENOSPC, "No space left on device")

    expected = CheckpointError if kind is OSError else kind
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, function, fail)
        with pytest.raises(expected):
            save_training(path, strategy)
    assert path.read_bytes() == saved
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_save_left_is_removed_by_the_next_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "run.checkpoint"
    ours = tmp_path / "run.checkpoint.0123456789abcdef.partial"
    others = [
        tmp_path / name
        for name in (
            "run.checkpoint.partial",
            "run.checkpoint.0123.partial",
            "other.checkpoint.0123456789abcdef.partial",
            "run.checkpoint.0123456789abcdef.partial.txt",
            "runxcheckpoint.0123456789abcdef.partial",
        )
    ]
    for file in (ours, *others):
        file.write_text("left over")
    strategy = BUILD()
    assert resume_training(path, strategy, streams_of("one head, momentum")[0]) == 0
    save_training(path, strategy)
    assert sorted(tmp_path.iterdir()) == sorted([path, *others])


def test_a_checkpoint_behind_a_link_is_replaced_where_it_lies(saved: bytes, tmp_path: Path) -> None:
    place = tmp_path / "far"
    place.mkdir()
    link = tmp_path / "run.checkpoint"
    link.symlink_to(place / "real.checkpoint")
    (place / "real.checkpoint").write_bytes(saved)
    strategy = BUILD()
    assert resume_training(str(link), strategy, streams_of("one head, momentum")[0]) == 2
    save_training(link, strategy)
    assert link.is_symlink()
    assert [entry.name for entry in place.iterdir()] == ["real.checkpoint"]


def test_the_new_file_is_on_the_disk_before_it_replaces_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def recorded(name: str, call: Any) -> Any:
        def record(*arguments: Any) -> Any:
            calls.append(name)
            return call(*arguments)

        return record

    for name in ("write", "fsync", "replace"):
        monkeypatch.setattr(os, name, recorded(name, getattr(os, name)))
    save_training(tmp_path / "run.checkpoint", BUILD())
    assert calls == ["write", "write", "fsync", "replace", "fsync"]
