"""Batches cut from memory are those that Avalanche's own loaders give for the same seed."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from avalanche.benchmarks.utils import data_loader
from avalanche.benchmarks.utils.data_loader import ReplayDataLoader
from avalanche.training.plugins import ReplayPlugin, SupervisedPlugin
from avalanche.training.supervised import Cumulative, Naive
from torch import nn

from experiments.errors import BadValueError
from experiments.loading import InMemoryLoader
from experiments.models import make_model
from experiments.quiet import quiet
from experiments.records import Network
from experiments.streams.samples import Samples, benchmark_of
from experiments.untyped import AvalancheStrategy, Benchmark

# No experience fills its last batch of five.
SIZES = (23, 17, 31)
BATCH = 5


def benchmark(scenario: str = "class") -> Benchmark:
    noise = torch.Generator().manual_seed(0)

    def stream() -> list[Samples]:
        return [
            Samples(torch.rand(size, 3, generator=noise), torch.arange(size) % 2 + 2 * number)
            for number, size in enumerate(SIZES)
        ]

    parts = {"train": stream(), "test": stream()}
    return benchmark_of(parts, scenario, own_classes=True, global_labels=False)


class Recorder(SupervisedPlugin, supports_distributed=False):  # type: ignore[call-arg]
    """Keeps every mini-batch, and the generator's state at the end of every experience."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[list[torch.Tensor]] = []
        self.trained: list[list[torch.Tensor]] = []
        self.states: list[torch.Tensor] = []

    def before_forward(self, strategy: AvalancheStrategy, **_kwargs: object) -> None:
        self.before_eval_forward(strategy)
        self.trained.append(self.batches[-1])

    def before_eval_forward(self, strategy: AvalancheStrategy, **_kwargs: object) -> None:
        self.batches.append([tensor.clone() for tensor in strategy.mbatch])

    def after_training_exp(self, _strategy: AvalancheStrategy, **_kwargs: object) -> None:
        self.states.append(torch.get_rng_state())

    after_eval_exp = after_training_exp


def run(
    kind: type[AvalancheStrategy],
    plugins: list[Any],
    scenario: str = "class",
    *,
    drop_last: bool = False,
    epochs: int = 3,
) -> Recorder:
    streams = benchmark(scenario)
    torch.manual_seed(1)
    head = "multi" if scenario == "task" else "single"
    model = make_model(Network(hidden=(4,), head=head), (3,), streams.train_stream)
    recorder = Recorder()
    with quiet():
        strategy = kind(
            model=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
            criterion=nn.CrossEntropyLoss(),
            train_mb_size=BATCH,
            train_epochs=epochs,
            eval_mb_size=4,
            plugins=[*plugins, recorder],
            evaluator=None,
        )
        for experience in streams.train_stream:
            strategy.train(experience, eval_streams=[], drop_last=drop_last)
            strategy.eval(streams.test_stream)
    return recorder


def plugins_of(method: str) -> list[Any]:
    if method == "replay":
        return [ReplayPlugin(mem_size=9)]
    if method == "balanced":
        return [ReplayPlugin(mem_size=9, batch_size_mem=6, task_balanced_dataloader=True)]
    return []


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("scenario", ["class", "task"])
@pytest.mark.parametrize("method", ["naive", "replay", "balanced", "cumulative"])
def test_samples_order_and_generator_are_those_of_avalanches_loader(
    method: str, scenario: str, drop_last: bool
) -> None:
    kind = Cumulative if method == "cumulative" else Naive
    loader = InMemoryLoader()
    theirs = run(kind, plugins_of(method), scenario, drop_last=drop_last)
    ours = run(kind, [*plugins_of(method), loader], scenario, drop_last=drop_last)
    assert loader.left == 0
    assert len(ours.batches) == len(theirs.batches) > 0
    for own, other in zip(ours.batches, theirs.batches, strict=True):
        assert len(own) == len(other) == 3
        assert all(map(torch.equal, own, other))
    assert all(map(torch.equal, ours.states, theirs.states))


def test_batches_really_come_from_memory() -> None:
    class Spy(SupervisedPlugin, supports_distributed=False):  # type: ignore[call-arg]
        def before_training_epoch(self, strategy: AvalancheStrategy, **_kwargs: object) -> None:
            kinds.add(type(strategy.dataloader).__name__)

        def before_eval_forward(self, strategy: AvalancheStrategy, **_kwargs: object) -> None:
            kinds.add(type(strategy.dataloader).__name__)

    kinds: set[str] = set()
    run(Naive, [InMemoryLoader(), Spy()])
    assert kinds == {"_Batches", "_Slices"}


class Foreign(SupervisedPlugin, supports_distributed=False):  # type: ignore[call-arg]
    """Sets a loader that is none of Avalanche's: one batch, always the same."""

    batch = (torch.rand(2, 3), torch.tensor([0, 1]), torch.tensor([0, 0]))

    def before_training_exp(self, strategy: AvalancheStrategy, **_kwargs: object) -> None:
        strategy.dataloader = [[tensor.clone() for tensor in self.batch]]


def test_a_loader_that_is_not_avalanches_stays_and_is_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    loader = InMemoryLoader()
    recorder = run(Naive, [Foreign(), loader], epochs=1)
    assert len(recorder.trained) == len(SIZES)
    assert torch.equal(recorder.trained[0][0], Foreign.batch[0])
    assert loader.left == len(SIZES)
    (message,) = caplog.messages
    assert "not one of Avalanche's loaders" in message


def test_tensors_that_do_not_fit_are_left_where_they_are_and_it_is_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    # Three numbers of four bytes a sample: the third experience does not fit, and the first
    # alone of those to be evaluated.
    loader = InMemoryLoader(limit=30 * 12)
    theirs, ours = run(Naive, []), run(Naive, [loader])
    for own, other in zip(ours.batches, theirs.batches, strict=True):
        assert all(map(torch.equal, own, other))
    assert loader.left == 1 + len(SIZES) * 2
    (message,) = caplog.messages
    assert "the limit is" in message


@pytest.mark.parametrize("limit", [2**30, 0])
def test_iterations_are_counted_through_passes_that_are_shuffled_anew(limit: int) -> None:
    loader = InMemoryLoader(iterations=7, limit=limit)
    batches = run(Naive, [loader], epochs=1).trained
    assert len(batches) == 7 * len(SIZES)
    # 23 samples fill four batches of five and leave three: five batches a pass.
    first, second = batches[:5], batches[5:7]
    assert [len(inputs) for inputs, *_ in first] == [5, 5, 5, 5, 3]
    whole = torch.cat([inputs for inputs, *_ in first])
    assert len(torch.unique(whole, dim=0)) == 23
    assert not torch.equal(second[0][0], first[0][0])
    # The second experience, of 17 samples, begins after seven iterations.
    assert set(batches[6][1].tolist()) <= {0, 1}
    assert set(batches[7][1].tolist()) <= {2, 3}


def test_iterations_are_an_error_where_no_batch_is_full() -> None:
    loader = InMemoryLoader(iterations=2)
    streams = benchmark()
    model = make_model(Network(hidden=(4,)), (3,), streams.train_stream)
    with quiet():
        strategy = Naive(
            model=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
            criterion=nn.CrossEntropyLoss(),
            train_mb_size=24,
            plugins=[loader],
            evaluator=None,
        )
        with pytest.raises(BadValueError, match="choose a smaller batch"):
            strategy.train(streams.train_stream[0], eval_streams=[], drop_last=True)


def test_a_replay_loader_is_replaced_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_self: ReplayDataLoader) -> Iterator[Any]:
        raise AssertionError("the replay loader was asked for batches")

    monkeypatch.setattr(ReplayDataLoader, "__iter__", refuse)
    with pytest.raises(AssertionError, match="asked for batches"):
        run(Naive, [ReplayPlugin(mem_size=9)])
    run(Naive, [ReplayPlugin(mem_size=9), InMemoryLoader()])


def test_no_pass_looks_at_every_sample_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the samples were walked over")

    monkeypatch.setattr(data_loader, "has_ffcv_support", refuse)
    with pytest.raises(AssertionError, match="walked over"):
        run(Naive, [])
    run(Naive, [InMemoryLoader()])
