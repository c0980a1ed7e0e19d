"""Data come from local files alone: what is missing or damaged is said, never fetched."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from experiments import streams
from experiments.errors import MissingDataError, UnusableDataError
from experiments.records import Data
from experiments.streams import STREAMS, make_benchmark, require_data

pytestmark = pytest.mark.usefixtures("_offline")

WITH_FILES = [name for name, stream in STREAMS.items() if stream.sources]
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("stream", WITH_FILES)
def test_every_missing_file_is_named_with_the_place_to_get_it_from(
    stream: str, tmp_path: Path
) -> None:
    with pytest.raises(MissingDataError) as error:
        make_benchmark(Data(stream, "class"), 0, tmp_path, global_labels=False)
    message = str(error.value)
    assert stream in message
    assert "--data-root" in message
    for source in STREAMS[stream].sources:
        assert source.page in message
        assert source.layout in message
        for file in source.files:
            assert str(tmp_path / file) in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stream", WITH_FILES)
def test_a_single_missing_file_is_named_alone(stream: str, tmp_path: Path) -> None:
    files = [file for source in STREAMS[stream].sources for file in source.files]
    for file in files[1:]:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    with pytest.raises(MissingDataError) as error:
        require_data(stream, tmp_path)
    message = str(error.value)
    assert f"\n  {tmp_path / files[0]}\n" in message
    for file in files[1:]:
        assert f"\n  {tmp_path / file}\n" not in message
    first = STREAMS[stream].sources[0]
    for source in STREAMS[stream].sources:
        assert (source.layout in message) == (source is first)


def test_a_stream_whose_files_are_there_is_not_complained_about(every_root: Path) -> None:
    for stream in STREAMS:
        require_data(stream, every_root)


def test_digits_need_no_files(tmp_path: Path) -> None:
    require_data("digits", tmp_path)


def test_missing_files_are_said_before_anything_heavy_is_imported(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from experiments.errors import MissingDataError\n"
        "from experiments.streams import STREAMS, require_data\n"
        "for name in STREAMS:\n"
        "    try:\n"
        f"        require_data(name, Path({str(tmp_path)!r}))\n"
        "    except MissingDataError:\n"
        "        pass\n"
        "assert not {'torch', 'avalanche', 'numpy', 'sklearn'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("stream", "folder", "file", "damage"),
    [
        ("split_cifar10", "cifar-10-batches-py", "data_batch_3", _truncate),
        ("split_cifar110", "cifar-10-batches-py", "test_batch", _truncate),
        ("zenke_cifar", "cifar-100-python", "train", _truncate),
        ("split_cifar100", "cifar-100-python", "meta", _truncate),
        ("split_tinyimagenet", "tiny-imagenet-200", "train/n00000007", shutil.rmtree),
        ("split_tinyimagenet", "tiny-imagenet-200", "val/val_annotations.txt", _truncate),
        ("core50", "core50", "LUP.pkl", _truncate),
        ("split_omniglot", "omniglot-py", "omniglot-py/images_background.zip", _truncate),
        ("split_omniglot", "omniglot-py", "omniglot-py/images_evaluation.zip", _truncate),
    ],
)
def test_damaged_files_are_an_error_and_are_not_fetched_again(
    stream: str,
    folder: str,
    file: str,
    damage: Callable[[Path], None],
    every_root: Path,
    tmp_path: Path,
) -> None:
    for path in every_root.iterdir():
        if path.name != folder:
            (tmp_path / path.name).symlink_to(path)
    shutil.copytree(every_root / folder, tmp_path / folder)
    if file.endswith("annotations.txt"):
        (tmp_path / folder / file).write_text("no such line\n")
    else:
        damage(tmp_path / folder / file)
    before = sorted(str(path) for path in tmp_path.rglob("*.zip"))
    streams._read.cache_clear()
    with pytest.raises(UnusableDataError, match="nothing is ever downloaded"):
        make_benchmark(Data(stream, "class"), 0, tmp_path, global_labels=False)
    assert sorted(str(path) for path in tmp_path.rglob("*.zip")) == before


def test_reading_prints_nothing(every_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    streams._read.cache_clear()
    for stream in ("core50", "split_tinyimagenet", "split_cifar10"):
        make_benchmark(Data(stream, "class"), 0, every_root, global_labels=False)
    assert capsys.readouterr() == ("", "")
