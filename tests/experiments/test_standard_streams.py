"""What each of the standard streams holds, beside what Avalanche or its files say."""

from pathlib import Path

import pytest
import torch
from avalanche.benchmarks.classic import PermutedMNIST, RotatedMNIST, SplitCIFAR10
from torchvision import datasets

import experiments.streams as streams
from experiments.quiet import quiet
from experiments.records import Data, Description, Network, Place, Training
from experiments.streams import STREAMS, make_benchmark
from experiments.streams import samples as samples_module
from experiments.trial import run_trial
from experiments.untyped import Benchmark, Dataset
from tests.experiments.pictures import DRAWINGS, shades
from tests.experiments.test_streams import inputs, labels

pytestmark = pytest.mark.usefixtures("_offline")

PLAIN = {"train_transform": None, "eval_transform": None}


def make(data: Data, root: Path, seed: int = 0) -> Benchmark:
    return make_benchmark(data, seed, root, global_labels=True)


def same(ours: Benchmark, theirs: Benchmark) -> None:
    for name in ("train_stream", "test_stream"):
        pairs = zip(getattr(ours, name), getattr(theirs, name), strict=True)
        for own, other in pairs:
            assert torch.equal(inputs(own.dataset), inputs(other.dataset))
            assert labels(own.dataset) == labels(other.dataset)


@pytest.mark.parametrize("classic", [PermutedMNIST, RotatedMNIST])
def test_permuted_and_rotated_mnist_are_avalanches_sample_by_sample(
    classic: type[Benchmark], every_root: Path
) -> None:
    name = "permuted_mnist" if classic is PermutedMNIST else "rotated_mnist"
    ours = make(Data(name, "domain", 3), every_root, seed=7)
    same(ours, classic(3, seed=7, dataset_root=every_root, **PLAIN))
    other = make(Data(name, "domain", 3), every_root, seed=8)
    first, second = (inputs(each.train_stream[0].dataset) for each in (ours, other))
    assert not torch.equal(first, second)


def test_shuffled_classes_come_in_avalanches_own_order(every_root: Path) -> None:
    ours = make(Data("split_cifar10", "class", shuffled_classes=True), every_root, seed=5)
    theirs = SplitCIFAR10(5, seed=5, dataset_root=every_root, **PLAIN)
    for own, other in zip(ours.train_stream, theirs.train_stream, strict=True):
        assert labels(own.dataset) == [int(label) for label in other.dataset.targets]


def test_a_first_experience_can_be_left_plain_and_the_others_stay(every_root: Path) -> None:
    data = Data("permuted_mnist", "domain", 3, first_plain=True)
    ours = make(data, every_root, seed=7)
    theirs = PermutedMNIST(3, seed=7, dataset_root=every_root, **PLAIN)
    plain = make(Data("split_mnist", "class", 1), every_root)
    first, second, _ = ours.train_stream
    assert torch.equal(inputs(first.dataset), inputs(plain.train_stream[0].dataset))
    assert torch.equal(inputs(second.dataset), inputs(theirs.train_stream[1].dataset))


def test_padded_images_have_a_border_which_is_permuted_with_the_rest(every_root: Path) -> None:
    split = make(Data("split_mnist", "class", inputs="padded"), every_root)
    image = inputs(split.train_stream[0].dataset)
    assert image.shape[1:] == (1, 32, 32)
    border = torch.ones(32, 32, dtype=torch.bool)
    border[2:-2, 2:-2] = False
    assert (image[:, 0, border] == 0).all()
    permuted = make(Data("permuted_mnist", "domain", 2, inputs="padded"), every_root)
    assert (inputs(permuted.train_stream[0].dataset)[:, 0, border] != 0).any()


def test_normalised_images_are_padded_ones_on_another_scale(every_root: Path) -> None:
    padded = make(Data("split_mnist", "class", inputs="padded"), every_root)
    normalised = make(Data("split_mnist", "class", inputs="normalised"), every_root)
    first, second = (inputs(each.train_stream[0].dataset) for each in (padded, normalised))
    assert torch.allclose((first - 0.1) / 0.2752, second, atol=1e-5)


def colours(dataset: Dataset) -> torch.Tensor:
    return inputs(dataset)[:, 0, -1, -1]


@pytest.mark.parametrize("stream", ["split_cifar10", "split_cifar110", "zenke_cifar", "core50"])
def test_labels_belong_to_their_pictures(stream: str, every_root: Path) -> None:
    benchmark = make(Data(stream, "class"), every_root)
    for kind in ("train", "test"):
        for experience in benchmark.streams[kind]:
            expected = torch.tensor(shades(labels(experience.dataset)))
            assert torch.allclose(colours(experience.dataset), expected)


def test_zenkes_stream_is_cifar10_and_then_five_tasks_of_ten_classes(every_root: Path) -> None:
    benchmark = make(Data("zenke_cifar", "task"), every_root)
    classes = [sorted(set(labels(each.dataset))) for each in benchmark.train_stream]
    assert classes == [list(range(10 * task, 10 * task + 10)) for task in range(6)]
    # Five batches of four of each class, and then one.
    assert [len(each.dataset) for each in benchmark.train_stream] == [200, 40, 40, 40, 40, 40]
    assert [len(each.dataset) for each in benchmark.test_stream] == [20] * 6


def test_core50_deals_its_one_test_set_out_among_the_sessions(every_root: Path) -> None:
    benchmark = make(Data("core50", "domain"), every_root)
    assert [len(each.dataset) for each in benchmark.train_stream] == [50] * 8
    parts = [labels(each.dataset) for each in benchmark.test_stream]
    assert len(parts) == 8
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    dealt = sorted(label for part in parts for label in part)
    assert dealt == sorted([*range(50), *range(50)])


def test_omniglot_is_tested_on_other_drawings_of_its_own_characters(every_root: Path) -> None:
    benchmark = make(Data("split_omniglot", "class"), every_root)
    for train, test in zip(benchmark.train_stream, benchmark.test_stream, strict=True):
        assert len(train.dataset) == 2 * DRAWINGS * 8 // 10
        assert len(test.dataset) == 2 * DRAWINGS * 2 // 10
        expected = torch.tensor(shades(labels(test.dataset)))
        assert torch.allclose(colours(test.dataset), expected)


@pytest.mark.parametrize("scenario", ["task", "domain", "class"])
@pytest.mark.parametrize("stream", [name for name, each in STREAMS.items() if each.sources])
def test_what_does_not_fit_in_memory_is_read_lazily_and_is_the_same(
    stream: str,
    scenario: str,
    every_root: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    count = 2 if stream.startswith(("permuted", "rotated")) else None
    data = Data(stream, scenario, count)
    in_memory = make(data, every_root)
    assert caplog.messages == []
    streams._read.cache_clear()
    monkeypatch.setattr(samples_module, "IN_MEMORY", 1000)
    same(make(data, every_root), in_memory)
    streams._read.cache_clear()
    (message,) = caplog.messages
    assert "GiB of memory" in message


def test_lazily_means_that_samples_are_read_when_they_are_asked_for(
    every_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    get = datasets.CIFAR10.__getitem__

    def spy(self: datasets.CIFAR10, index: int) -> object:
        asked.append(index)
        return get(self, index)

    monkeypatch.setattr(datasets.CIFAR10, "__getitem__", spy)
    monkeypatch.setattr(samples_module, "IN_MEMORY", 1000)
    streams._read.cache_clear()
    for evaluation in ("test", "validation"):
        asked.clear()
        data = Data("split_cifar10", "class", evaluation=evaluation)
        (first, *_) = make(data, every_root).train_stream
        # One of each experience, for its size.
        assert len(asked) == 5 + 5
        assert len(labels(first.dataset)) == len(asked) - 10
    streams._read.cache_clear()


def test_a_masked_convolutional_trial_runs_on_zenkes_stream(every_root: Path) -> None:
    description = Description(
        data=Data("zenke_cifar", "task"),
        strategy="si",
        strength=0.1,
        network=Network("cnn", (16,), "task", "glorot", zero_head=True),
        training=Training(batch_size=20, learning_rate=1e-3, epochs=1),
        seed=0,
    )
    with quiet():
        result = run_trial(description, Place(str(every_root)))
    assert [len(row) for row in result.accuracy] == [6] * 6
    # Ten classes take part in each task: before it is trained on, one of ten guesses is right.
    assert result.accuracy[0][1:] == pytest.approx([0.1] * 5)
    assert sum(result.importance.values()) > 0
