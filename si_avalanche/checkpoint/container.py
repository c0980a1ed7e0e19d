"""The file of a checkpoint: a frame that shows every damage, written all or nothing."""

import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from si_avalanche.errors import CheckpointError

MAGIC = b"si-avalanche checkpoint\n"
FORMAT = 1
"""Version of the file; raised when an older reader would misread it."""

_HEADER = len(MAGIC) + 4 + 8 + 32
_BLOCK = 1 << 22
_MEND = "Resume from another copy, or delete the file to start anew."


def checked_path(path: str | os.PathLike[str]) -> Path:
    """Return where the checkpoint lies, links followed.

    :param path: the checkpoint; it need not exist, its folder must.
    :raises CheckpointError: if it is no path, the folder is missing, or the path leads to something
        other than a file.
    """
    place = _resolved(path)
    if not place.parent.is_dir():
        raise CheckpointError(
            f"There is no folder {str(place.parent)!r} to hold the checkpoint {place.name!r}. "
            "Create it before training starts, or give another path."
        )
    if place.exists() and not place.is_file():
        raise CheckpointError(
            f"{str(place)!r} is not a file. Give the path of the checkpoint file itself."
        )
    return place


def check_writable(path: Path) -> None:
    """Write and remove a temporary file as :func:`write_file` will.

    :param path: what :func:`checked_path` gave.
    :raises CheckpointError: if that fails.
    """
    try:
        with _temporary(path) as temporary:
            temporary.touch()
    except OSError as error:
        raise CheckpointError(
            f"Nothing can be written beside {str(path)!r}: {error}. Change the permissions of the "
            "folder, or give another path or a shorter name."
        ) from error


def _resolved(path: str | os.PathLike[str]) -> Path:
    try:
        text = os.fspath(path)
        if not isinstance(text, str):
            raise TypeError("it is not a text")
        place = Path(os.path.realpath(text))
        place.exists()
        return place
    except (TypeError, ValueError, OSError) as error:
        raise CheckpointError(
            f"{path!r} is not the path of a file: {error}. Give a text or a pathlib.Path."
        ) from error


def write_file(path: Path, payload: bytes) -> None:
    """Put a payload in the place of whatever the checkpoint held, all or nothing.

    A process that dies leaves either the old file or the new one, and perhaps a temporary file
    beside it, which the next call removes.

    :param path: what :func:`checked_path` gave.
    :param payload: the content.
    :raises CheckpointError: if it cannot be written, such as on a full disk; the old file is as it
        was and no temporary file is left.
    """
    numbers = FORMAT.to_bytes(4, "big") + len(payload).to_bytes(8, "big")
    header = MAGIC + numbers + hashlib.sha256(payload).digest()
    try:
        for leftover in _leftovers(path):
            leftover.unlink(missing_ok=True)
        with _temporary(path) as temporary:
            _write(temporary, header, payload)
            os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise CheckpointError(
            f"The checkpoint {str(path)!r} could not be written: {error}. The last one that was "
            "written is untouched. Make room or mend the permissions, then save again."
        ) from error


def read_file(path: Path) -> bytes:
    """Return the payload of a checkpoint.

    :param path: what :func:`checked_path` gave; the file is only read.
    :raises CheckpointError: if it is no checkpoint, or cut short, altered or of a newer format.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"The checkpoint {str(path)!r} cannot be read: {error}.") from error
    if not content.startswith(MAGIC):
        raise CheckpointError(
            f"{str(path)!r} is not a checkpoint of si-avalanche: it begins with "
            f"{content[:16]!r}, not with {MAGIC!r}. Give the path that save_training() wrote to. "
            f"{_MEND}"
        )
    if len(content) < _HEADER:
        raise CheckpointError(f"The checkpoint {str(path)!r} is cut short in its header. {_MEND}")
    numbers, payload = content[len(MAGIC) : _HEADER], content[_HEADER:]
    version = int.from_bytes(numbers[:4], "big")
    if version != FORMAT:
        raise CheckpointError(
            f"The checkpoint {str(path)!r} has format {version}; this release reads {FORMAT}. Read "
            "it with the release that wrote it."
        )
    size, digest = int.from_bytes(numbers[4:12], "big"), numbers[12:]
    if len(payload) != size:
        raise CheckpointError(
            f"The checkpoint {str(path)!r} holds {len(payload)} bytes and announces {size}: it was "
            f"cut short or added to. {_MEND}"
        )
    if hashlib.sha256(payload).digest() != digest:
        raise CheckpointError(
            f"The checkpoint {str(path)!r} was altered after it was written: its checksum does not "
            f"match. {_MEND}"
        )
    return payload


def _leftovers(path: Path) -> list[Path]:
    ours = re.compile(re.escape(path.name) + r"\.[0-9a-f]{16}\.partial")
    return [entry for entry in path.parent.iterdir() if ours.fullmatch(entry.name)]


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}.partial")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _write(path: Path, *parts: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        for part in parts:
            rest = memoryview(part)
            while rest:
                rest = rest[os.write(handle, rest[:_BLOCK]) :]
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_folder(folder: Path) -> None:
    # Without this a power cut can undo the replacement; Windows has no way to open a folder.
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
