from pathlib import Path

import pytest
import torch

from experiments.errors import MissingDataError
from experiments.streams import SCENARIOS, STREAMS, cut, load_parts, make_benchmark, require_data
from experiments.untyped import Dataset

EVERY_STREAM = list(STREAMS)


def labels(dataset: Dataset) -> list[int]:
    return [int(dataset[index][1]) for index in range(len(dataset))]


def task_labels(dataset: Dataset) -> set[int]:
    return {int(dataset[index][2]) for index in range(len(dataset))}


def inputs(dataset: Dataset) -> set[bytes]:
    return {dataset[index][0].numpy().tobytes() for index in range(len(dataset))}


@pytest.mark.parametrize("stream", EVERY_STREAM)
def test_class_incremental_keeps_the_ten_labels(stream: str, data_root: Path) -> None:
    benchmark = make_benchmark(stream, "class", data_root=data_root)
    for kind in ("train", "test"):
        for number, experience in enumerate(benchmark.streams[kind]):
            assert set(labels(experience.dataset)) == {2 * number, 2 * number + 1}
            assert task_labels(experience.dataset) == {0}


@pytest.mark.parametrize("stream", EVERY_STREAM)
@pytest.mark.parametrize("scenario", ["task", "domain"])
def test_task_and_domain_incremental_have_labels_0_and_1(
    stream: str, scenario: str, data_root: Path
) -> None:
    benchmark = make_benchmark(stream, scenario, data_root=data_root)
    assert len(benchmark.train_stream) == len(benchmark.test_stream) == 5
    for kind in ("train", "test"):
        for number, experience in enumerate(benchmark.streams[kind]):
            assert set(labels(experience.dataset)) == {0, 1}
            task = number if scenario == "task" else 0
            assert task_labels(experience.dataset) == {task}
            assert list(experience.task_labels) == [task]


def test_an_experience_holds_its_two_classes_in_every_scenario(data_root: Path) -> None:
    per_scenario = [
        [inputs(e.dataset) for e in make_benchmark("digits", s, data_root=data_root).train_stream]
        for s in SCENARIOS
    ]
    assert per_scenario[0] == per_scenario[1] == per_scenario[2]


@pytest.mark.parametrize("stream", EVERY_STREAM)
def test_inputs_are_flat_and_between_0_and_1(stream: str, data_root: Path) -> None:
    for samples in load_parts(stream, data_root, "test"):
        assert samples.inputs.shape[1:] == (STREAMS[stream].features,)
        assert samples.inputs.dtype == torch.float32
        assert samples.inputs.min() >= 0
        assert 0.5 < samples.inputs.max() <= 1


def test_digits_are_all_there_once_and_test_is_disjoint_from_training() -> None:
    training, test = load_parts("digits", Path("nowhere"), "test")
    assert len(training.labels) + len(test.labels) == 1797
    whole = torch.cat([training.inputs, test.inputs])
    assert len(torch.unique(whole, dim=0)) == len(whole)
    share = torch.bincount(test.labels) / torch.bincount(torch.cat([training.labels, test.labels]))
    assert torch.allclose(share, torch.full((10,), 0.2), atol=0.01)


def test_the_test_split_is_always_the_same() -> None:
    first, second = (load_parts("digits", Path("nowhere"), "test")[1] for _ in range(2))
    assert torch.equal(first.inputs, second.inputs)


@pytest.mark.parametrize("stream", EVERY_STREAM)
def test_validation_is_cut_from_training_and_disjoint_from_the_rest(
    stream: str, data_root: Path
) -> None:
    def rows(samples: torch.Tensor) -> set[bytes]:
        return {row.numpy().tobytes() for row in samples}

    training, test = load_parts(stream, data_root, "test")
    rest, validation = load_parts(stream, data_root, "validation")
    assert rows(rest.inputs) | rows(validation.inputs) == rows(training.inputs)
    assert not rows(rest.inputs) & rows(validation.inputs)
    assert not rows(validation.inputs) & rows(test.inputs)
    assert len(validation.labels) == pytest.approx(0.2 * len(training.labels), abs=1)
    assert set(validation.labels.tolist()) == set(range(10))


def test_a_cut_takes_each_sample_once() -> None:
    everything, _ = load_parts("digits", Path("nowhere"), "test")
    rest, part = cut(everything, 0.3)
    assert len(rest.labels) + len(part.labels) == len(everything.labels)


def test_missing_files_are_named_one_by_one(tmp_path: Path) -> None:
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    (tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte").touch()
    with pytest.raises(MissingDataError) as error:
        require_data("split_mnist", tmp_path)
    message = str(error.value)
    assert "split_mnist" in message
    assert str(tmp_path / "MNIST/raw/train-labels-idx1-ubyte") in message
    assert str(tmp_path / "MNIST/raw/t10k-images-idx3-ubyte") in message
    assert "train-images-idx3-ubyte" not in message


def test_digits_need_no_files(tmp_path: Path) -> None:
    require_data("digits", tmp_path)
