from itertools import pairwise
from pathlib import Path

import pytest
import torch

from experiments.records import Data
from experiments.streams import SCENARIOS, STREAMS, input_shape, make_benchmark
from experiments.streams.digits import digits
from experiments.streams.samples import Samples, benchmark_of, choose_parts, cut
from experiments.untyped import Benchmark, Dataset

pytestmark = pytest.mark.usefixtures("_offline")

EVERY_STREAM = list(STREAMS)
SPLIT = [name for name, stream in STREAMS.items() if stream.own_classes]


def make(data: Data, root: Path, seed: int = 0, *, global_labels: bool = False) -> Benchmark:
    return make_benchmark(data, seed, root, global_labels=global_labels)


def labels(dataset: Dataset) -> list[int]:
    return [int(dataset[index][1]) for index in range(len(dataset))]


def task_labels(dataset: Dataset) -> set[int]:
    return {int(dataset[index][2]) for index in range(len(dataset))}


def inputs(dataset: Dataset) -> torch.Tensor:
    return torch.stack([dataset[index][0] for index in range(len(dataset))])


def pictures(dataset: Dataset) -> set[bytes]:
    return {picture.numpy().tobytes() for picture in inputs(dataset)}


@pytest.mark.parametrize("stream", EVERY_STREAM)
def test_class_incremental_gives_every_experience_classes_of_its_own(
    stream: str, every_root: Path
) -> None:
    benchmark = make(Data(stream, "class"), every_root)
    assert len(benchmark.train_stream) == STREAMS[stream].experiences
    seen: set[int] = set()
    for train, test in zip(benchmark.train_stream, benchmark.test_stream, strict=True):
        classes = set(labels(train.dataset))
        assert classes == set(labels(test.dataset)) == set(train.classes_in_this_experience)
        assert min(classes) == len(seen)
        assert not classes & seen
        assert task_labels(train.dataset) == task_labels(test.dataset) == {0}
        seen |= classes
    assert seen == set(range(len(seen)))


@pytest.mark.parametrize("stream", EVERY_STREAM)
@pytest.mark.parametrize("scenario", ["task", "domain"])
def test_task_and_domain_incremental_count_labels_from_zero(
    stream: str, scenario: str, every_root: Path
) -> None:
    benchmark = make(Data(stream, scenario), every_root)
    for kind in ("train", "test"):
        for number, experience in enumerate(benchmark.streams[kind]):
            classes = set(labels(experience.dataset))
            # CORe50 deals one test set out among its sessions.
            if (stream, scenario, kind) != ("core50", "domain", "test"):
                assert classes == set(range(len(classes)))
            task = number if scenario == "task" else 0
            assert task_labels(experience.dataset) == {task}
            assert list(experience.task_labels) == [task]


@pytest.mark.parametrize("stream", EVERY_STREAM)
def test_inputs_have_the_shape_that_the_registry_tells_and_are_between_0_and_1(
    stream: str, every_root: Path
) -> None:
    data = Data(stream, "class")
    (first, *_) = make(data, every_root).train_stream
    found = inputs(first.dataset)
    assert found.shape[1:] == STREAMS[stream].shape == input_shape(data)
    assert found.dtype == torch.float32
    assert found.min() >= 0
    assert 0 < found.max() <= 1


@pytest.mark.parametrize("stream", [name for name in SPLIT if name != "core50"])
def test_an_experience_holds_the_same_samples_in_every_scenario(
    stream: str, every_root: Path
) -> None:
    per_scenario = [
        [pictures(each.dataset) for each in make(Data(stream, scenario), every_root).train_stream]
        for scenario in SCENARIOS
    ]
    assert all(first == second for first, second in pairwise(per_scenario))


def test_tasks_with_global_labels_are_labelled_like_class_incremental_ones(
    every_root: Path,
) -> None:
    for stream in ("split_cifar10", "permuted_mnist"):
        tasks = make(Data(stream, "task"), every_root, global_labels=True)
        classes = make(Data(stream, "class"), every_root)
        for task, each in zip(tasks.train_stream, classes.train_stream, strict=True):
            assert labels(task.dataset) == labels(each.dataset)
            assert task_labels(task.dataset) == {task.current_experience}


@pytest.mark.parametrize("stream", SPLIT)
def test_a_seed_shuffles_the_classes_only_if_asked_to(stream: str, every_root: Path) -> None:
    def first(seed: int, *, shuffled: bool) -> set[bytes]:
        data = Data(stream, "class", shuffled_classes=shuffled)
        return pictures(make(data, every_root, seed).train_stream[1].dataset)

    assert first(0, shuffled=False) == first(1, shuffled=False)
    assert first(3, shuffled=True) == first(3, shuffled=True)
    # All the runs of the small CORe50 are the same.
    if stream != "core50":
        assert first(3, shuffled=True) != first(4, shuffled=True)


def test_a_stream_is_cut_into_as_many_experiences_as_asked_for(every_root: Path) -> None:
    for stream, count, classes in (
        ("digits", 2, 5),
        ("split_mnist", 10, 1),
        ("split_cifar100", 20, 5),
        ("permuted_mnist", 3, 10),
        ("rotated_mnist", 2, 10),
    ):
        benchmark = make(Data(stream, "class", count), every_root)
        assert len(benchmark.train_stream) == len(benchmark.test_stream) == count
        for experience in benchmark.train_stream:
            assert len(experience.classes_in_this_experience) == classes


def test_digits_are_all_there_once_and_test_is_disjoint_from_training() -> None:
    parts = digits(Data("digits", "class"), 0, Path("nowhere"))
    whole = torch.cat([samples.inputs for part in parts.values() for samples in part])
    assert len(whole) == len(torch.unique(whole, dim=0)) == 1797
    for train, test in zip(parts["train"], parts["test"], strict=True):
        share = len(test.labels) / (len(train.labels) + len(test.labels))
        assert share == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize("stream", ["digits", "split_mnist", "permuted_mnist", "split_cifar10"])
def test_validation_is_cut_from_training_and_disjoint_from_the_rest(
    stream: str, every_root: Path
) -> None:
    whole = make(Data(stream, "class"), every_root)
    data = Data(stream, "class", evaluation="validation")
    parted = make(data, every_root)
    assert set(parted.streams) == {"train", "validation"}
    again = make(data, every_root, seed=0)
    for number, every in enumerate(whole.train_stream):
        rest, part = (parted.streams[name][number].dataset for name in ("train", "validation"))
        assert pictures(rest) | pictures(part) == pictures(every.dataset)
        assert not pictures(rest) & pictures(part)
        assert len(part) == pytest.approx(0.2 * len(every.dataset), abs=1)
        assert set(labels(part)) == set(labels(every.dataset))
        assert pictures(again.streams["validation"][number].dataset) == pictures(part)


def test_accuracy_can_be_taken_on_the_training_samples(every_root: Path) -> None:
    benchmark = make(Data("split_mnist", "class", evaluation="train"), every_root)
    assert set(benchmark.streams) == {"train"}


def test_a_part_that_lacks_a_class_keeps_the_labels_of_the_others() -> None:
    train = Samples(torch.rand(3, 2), torch.tensor([4, 5, 6]))
    test = Samples(torch.rand(2, 2), torch.tensor([6, 5]))
    parts = {"train": [train], "test": [test]}
    benchmark = benchmark_of(parts, "domain", own_classes=True, global_labels=False)
    assert labels(benchmark.test_stream[0].dataset) == [2, 1]


def test_a_cut_takes_each_sample_once_and_keeps_the_shares_of_the_classes() -> None:
    samples = Samples(torch.arange(60).reshape(60, 1), torch.arange(60) % 3)
    rest, part = cut(samples, 0.3)
    assert len(part.labels) == 18
    assert sorted(torch.cat([rest.inputs, part.inputs]).flatten().tolist()) == list(range(60))
    assert part.labels.bincount().tolist() == [6, 6, 6]
    chosen = choose_parts({"train": [samples], "test": [rest]}, "test")
    assert chosen["train"] == [samples]
