"""A data set's tensors go with it through all that Avalanche does to it."""

from collections.abc import Sequence

import pytest
import torch
from avalanche.training.plugins import ReplayPlugin
from avalanche.training.supervised import Cumulative, Naive
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import StackDataset

from experiments.loading import InMemoryLoader
from experiments.streams.held import held_by
from experiments.streams.samples import Samples, benchmark_of
from experiments.untyped import Dataset
from tests.experiments.test_loading import run

SIZES = (5, 3, 4)


def datasets() -> list[Dataset]:
    noise = torch.Generator().manual_seed(0)
    stream = [
        Samples(torch.rand(size, 2, generator=noise), torch.arange(size) + 10 * number)
        for number, size in enumerate(SIZES)
    ]
    made = benchmark_of({"train": stream}, "task", own_classes=True, global_labels=True)
    return [experience.dataset for experience in made.train_stream]


def assert_holds_its_samples(dataset: Dataset) -> None:
    columns = held_by(dataset)
    assert columns is not None
    samples = [dataset[number] for number in range(len(dataset))]
    assert len(columns[0]) == len(samples)
    for number, (inputs, label, task) in enumerate(samples):
        assert torch.equal(columns[0][number], inputs)
        assert (int(columns[1][number]), int(columns[2][number])) == (int(label), int(task))


def test_what_is_whole_is_taken_without_a_copy() -> None:
    first, *_ = datasets()
    columns, again = held_by(first.train()), held_by(first.eval())
    assert columns is not None
    assert columns is again
    assert_holds_its_samples(first)


@given(
    picks=st.lists(
        st.tuples(st.integers(0, 2), st.lists(st.integers(0, 2), min_size=1, max_size=6)),
        min_size=1,
        max_size=5,
    ),
    last=st.lists(st.integers(0, 100), min_size=1, max_size=9),
)
def test_parts_and_joins_of_data_sets_know_their_rows(
    picks: Sequence[tuple[int, Sequence[int]]], last: Sequence[int]
) -> None:
    experiences = datasets()
    joined = experiences[picks[0][0]].subset(picks[0][1])
    for number, indices in picks[1:]:
        joined = joined.concat(experiences[number].subset(indices))
    assert_holds_its_samples(joined)
    assert_holds_its_samples(joined.subset([each % len(joined) for each in last]).train())


def test_a_row_out_of_order_is_not_taken_for_the_whole() -> None:
    first, second, third = datasets()
    exchanged = first.subset([0, 1, 2]).concat(third.subset([3])).concat(first.subset([4]))
    whole = first.concat(second)
    for dataset in (first.subset([1, 0, 2, 3, 4]), first.subset([0, 1]), exchanged, whole):
        assert_holds_its_samples(dataset)


def test_samples_that_are_not_in_memory_are_not_held_even_beside_others() -> None:
    held, *_ = datasets()
    lazy = Samples([torch.rand(2)] * 3, torch.arange(3))
    (made,) = benchmark_of(
        {"train": [lazy]}, "task", own_classes=True, global_labels=True
    ).train_stream
    assert held_by(made.dataset) is None
    assert held_by(made.dataset.concat(held)) is None
    assert held_by(held.concat(made.dataset)) is None


@pytest.mark.parametrize("method", ["naive", "replay", "cumulative"])
def test_no_sample_that_is_held_is_read_again(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[object] = []

    def spy(self: object, index: object) -> None:
        read.append(index)
        raise AssertionError("a sample was read one by one")

    # The size of the inputs is told by the first sample of each data set.
    monkeypatch.setattr("experiments.loading.input_bytes", lambda dataset: 0)
    monkeypatch.setattr(StackDataset, "__getitem__", spy)
    monkeypatch.setattr(StackDataset, "__getitems__", spy)
    plugins = [ReplayPlugin(mem_size=9)] if method == "replay" else []
    batches = run(Cumulative if method == "cumulative" else Naive, [*plugins, InMemoryLoader()])
    assert batches.trained
    assert not read
