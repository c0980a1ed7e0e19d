from statistics import fmean

import pytest

from experiments.errors import BadValueError, UnknownNameError
from experiments.protocols import PROTOCOLS, Protocol, Run, read_protocol
from experiments.reproduce import request
from experiments.strategies import STRATEGIES
from experiments.streams import SCENARIOS, STREAMS

EVERY = [read_protocol(name) for name in PROTOCOLS]
RUNS = [
    pytest.param(protocol, run, id=f"{protocol.name}-{run.name}")
    for protocol in EVERY
    for run in protocol.runs
]


def test_the_papers_experiments_are_there() -> None:
    assert {
        "zenke2017-split-mnist",
        "zenke2017-permuted-mnist",
        "zenke2017-split-cifar",
        "vandeven2019-split-mnist",
        "vandeven2019-permuted-mnist",
        "hsu2018-split-mnist",
    } <= set(PROTOCOLS)


@pytest.mark.parametrize("protocol", EVERY, ids=lambda protocol: protocol.name)
def test_a_protocol_names_its_runs_apart_and_its_source(protocol: Protocol) -> None:
    names = [run.name for run in protocol.runs]
    assert len(names) == len(set(names))
    assert len({run.description for run in protocol.runs}) == len(names)
    assert "arXiv" in protocol.source
    assert protocol.seeds >= 1
    has_errors = any(run.published.error is not None for run in protocol.runs)
    assert bool(protocol.error) == has_errors


@pytest.mark.parametrize(("protocol", "run"), RUNS)
def test_a_run_can_be_run(protocol: Protocol, run: Run) -> None:
    description = run.description
    assert description.strategy in STRATEGIES
    assert description.data.stream in STREAMS
    assert description.data.scenario in SCENARIOS
    assert (description.training.epochs is None) != (description.training.iterations is None)
    assert (description.strength is None) == (STRATEGIES[description.strategy].strength is None)
    assert description.network.head in ("task", "seen", "single")


@pytest.mark.parametrize(("protocol", "run"), RUNS)
def test_published_figures_agree_with_each_other(protocol: Protocol, run: Run) -> None:
    published = run.published
    tasks = STREAMS[run.description.data.stream].experiences
    assert 0 < published.mean <= 1
    if published.tasks:
        assert len(published.tasks) == tasks
        # Split MNIST is read off a plot, to 0.003.
        assert fmean(published.tasks) == pytest.approx(published.mean, abs=4e-3)
    if published.curve:
        assert len(published.curve) == tasks
        assert published.curve[-1] == pytest.approx(published.mean, abs=1e-4)


def test_zenkes_split_mnist_is_evaluated_on_the_training_set_and_masked() -> None:
    for run in read_protocol("zenke2017-split-mnist").runs:
        description = run.description
        assert description.data.evaluation == "train"
        assert description.network.head == "task"
        assert description.network.zero_head
        assert description.network.initial == "glorot"
        assert description.network.hidden == (256, 256)
        assert description.training.batch_size == 64
        assert description.training.epochs == 10
        assert description.training.reset == "moments"
    c1 = read_protocol("zenke2017-split-mnist").runs[1]
    assert (c1.description.strength, dict(c1.description.options)) == (1.0, {"xi": 1e-3})
    assert c1.published.mean == 0.988


def test_zenkes_permuted_mnist_keeps_the_optimiser_and_reads_the_first_anchor_both_ways() -> None:
    none, initial, zero = read_protocol("zenke2017-permuted-mnist").runs
    for run in (none, initial, zero):
        description = run.description
        assert description.data.first_plain
        assert description.training.reset == "nothing"
        assert not description.network.zero_head
        assert (description.training.batch_size, description.training.epochs) == (256, 20)
        assert description.network.hidden == (2000, 2000)
    assert none.published.mean == 0.5741
    assert dict(initial.description.options) == {"xi": 0.1}
    assert dict(zero.description.options) == {"xi": 0.1, "first_anchor": "zero"}
    assert initial.published == zero.published
    assert initial.published.mean == 0.9694


def test_van_de_vens_class_incremental_head_holds_the_classes_seen() -> None:
    for name in ("vandeven2019-split-mnist", "vandeven2019-permuted-mnist"):
        heads = {
            run.description.data.scenario: run.description.network.head
            for run in read_protocol(name).runs
        }
        assert heads == {"task": "task", "domain": "single", "class": "seen"}


def test_a_protocol_that_does_not_exist_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UnknownNameError, match="nearest name is 'zenke2017-split-mnist'"):
        request("zenke-split-mnist")


def test_a_run_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"'c2'.*allowed: c0, c1"):
        request("zenke2017-split-mnist", only=["c2"])


@pytest.mark.parametrize(
    ("name", "given", "remedy"),
    [
        ("zenke2017-split-mnist", {"iterations": 5}, "say --epochs"),
        ("vandeven2019-split-mnist", {"epochs": 5}, "say --iterations"),
    ],
)
def test_what_a_protocol_does_not_count_cannot_be_shortened(
    name: str, given: dict[str, int], remedy: str
) -> None:
    with pytest.raises(BadValueError, match=remedy):
        request(name, **given)  # type: ignore[arg-type]


def test_every_seed_of_every_run_is_a_trial_of_its_own() -> None:
    asked = request("zenke2017-split-mnist")
    trials = [trial for run in asked.runs for trial in asked.trials_of(run)]
    assert len({trial.name for trial in trials}) == len(trials) == 20
    assert {trial.seed for trial in trials} == set(range(10))
