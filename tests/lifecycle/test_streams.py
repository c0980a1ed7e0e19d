"""Streams whose experiences are not tasks."""

import copy
from typing import Any

import pytest
import torch
from avalanche.benchmarks import OnlineCLExperience
from avalanche.benchmarks.scenarios.online import split_online_stream
from avalanche.training.plugins import SupervisedPlugin

from si_avalanche import ConfigurationError, SIPlugin
from tests.digits import digits_benchmark, naive, network, same, train, weights, with_si
from tests.lifecycle.test_plugin import Strengths


def online_parts(boundaries: bool) -> list[Any]:
    """Two experiences of digits, each in four parts."""
    parts = [
        part
        for experience in digits_benchmark().train_stream[:2]
        for part in split_online_stream(
            [experience],
            experience_size=len(experience.dataset) // 4 + 1,
            access_task_boundaries=boundaries,
        )
    ]
    assert len(parts) == 8
    return parts


def test_an_online_stream_with_boundaries_consolidates_once_per_task() -> None:
    plugin = Strengths([1.0, 2.0])
    train(with_si(network(), plugin), online_parts(boundaries=True))
    assert plugin.si.tasks == plugin.experiences == 2
    assert plugin.used == [1.0] * 4 + [2.0] * 4


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("size", [10, 11, 40, 1000])
def test_a_task_is_consolidated_at_its_last_part_also_where_all_parts_are_full(
    size: int, drop_last: bool
) -> None:
    """Avalanche marks a last part only if it is shorter than the others."""
    experiences = digits_benchmark().train_stream[:2]
    if size == 1000:
        size = len(experiences[0].dataset)
    stream = split_online_stream(
        experiences, size, drop_last=drop_last, access_task_boundaries=True, seed=0
    )
    seen: list[int] = []

    class Count(SupervisedPlugin):
        """Notes how many tasks there are after each part, and whose part it was."""

        def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
            origin = strategy.experience.origin_experience.current_experience
            seen.append(plugin.si.tasks - origin)

    plugin = SIPlugin()
    train(naive(network(), [plugin, Count()], train_epochs=1), list(stream))
    lengths = [
        len(e.dataset) // size if drop_last else -(-len(e.dataset) // size) for e in experiences
    ]
    full = [length for length in lengths if length]
    assert seen == [int(k == length) for length in full for k in range(1, length + 1)]
    assert plugin.si.tasks == plugin.experiences == len(full)


def custom_parts(experience: Any, size: int) -> Any:
    """Parts that tell neither their number nor which is the last: a splitter of a user's own."""
    for first in range(0, len(experience.dataset), size):
        places = list(range(first, min(first + size, len(experience.dataset))))
        yield OnlineCLExperience(
            dataset=experience.dataset.subset(places),
            origin_experience=experience,
            is_first_subexp=first == 0,
            access_task_boundaries=True,
        )


def test_where_nothing_tells_the_last_part_the_next_task_does_and_a_log_entry_asks_for_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    experiences = digits_benchmark().train_stream[:2]
    stream = split_online_stream(experiences, 50, experience_split_strategy=custom_parts)
    plugin = SIPlugin()
    train(with_si(network(), plugin, train_epochs=1), list(stream))
    assert plugin.si.tasks == 1
    assert caplog.text.count("call end_task()") == 2
    plugin.end_task()
    assert plugin.si.tasks == plugin.experiences == 2


def test_a_task_that_is_resumed_between_two_parts_ends_with_its_last_part() -> None:
    parts = [
        part
        for experience in digits_benchmark().train_stream[:2]
        for part in split_online_stream([experience], 20, access_task_boundaries=True, seed=0)
        if part.subexp_size == 20
    ]
    whole, halves = SIPlugin(), SIPlugin()
    train(with_si(network(), whole, train_epochs=1), parts)
    model = network()
    train(with_si(model, halves, train_epochs=1), parts[:3])
    resumed = SIPlugin()
    resumed.load_state_dict(halves.state_dict())
    train(with_si(model, resumed, train_epochs=1), parts[3:])
    assert resumed.si.tasks == whole.si.tasks
    assert resumed.experiences == whole.experiences


def test_a_stream_without_boundaries_is_refused_until_told_how_often_to_consolidate() -> None:
    model = network()
    before = weights(model)
    with pytest.raises(ConfigurationError, match="consolidate_every=n"):
        train(with_si(model, SIPlugin()), online_parts(boundaries=False))
    assert same(before, weights(model))


@pytest.mark.parametrize("stream", ["online", "tasks"])
def test_consolidating_every_few_steps_takes_no_notice_of_experiences(stream: str) -> None:
    parts = online_parts(boundaries=False)
    experiences = parts if stream == "online" else digits_benchmark().train_stream[:2]
    plugin = Strengths(lambda task: float(task), consolidate_every=5)
    steps: list[int] = []

    class Count(SupervisedPlugin):
        """Counts the iterations."""

        def after_training_iteration(self, *args: Any, **kwargs: Any) -> None:
            steps.append(plugin.si.steps)

    strategy = naive(network(), [plugin, Count()])
    train(strategy, experiences)
    assert len(steps) > 20
    assert steps == [(i + 1) % 5 for i in range(len(steps))]
    assert plugin.si.tasks == plugin.experiences == len(steps) // 5
    assert plugin.si.c == plugin.experiences
    assert plugin.si.total_importance() > 0


def test_consolidating_every_few_steps_equals_consolidating_by_hand() -> None:
    """Full batches: three steps are three epochs of one experience."""
    batches = {"train_mb_size": 2000}
    experience = digits_benchmark().train_stream[0]
    automatic = SIPlugin(c=5.0, consolidate_every=3)
    train(with_si(network(), automatic, train_epochs=9, **batches), [experience])
    by_hand = SIPlugin(c=5.0)
    train(with_si(network(), by_hand, train_epochs=3, **batches), [experience] * 3)
    assert automatic.si.tasks == by_hand.si.tasks == 3
    for name, omega in by_hand.si.omega.items():
        torch.testing.assert_close(automatic.si.omega[name], omega, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("steps", [0, -1, 2.5, True, "5"])
def test_a_bad_number_of_steps_is_refused(steps: Any) -> None:
    with pytest.raises(ConfigurationError, match="consolidate_every must be None"):
        SIPlugin(consolidate_every=steps)


def test_the_same_experience_trained_twice_is_two_tasks() -> None:
    plugin = Strengths([1.0, 2.0])
    train(with_si(network(), plugin), [digits_benchmark().train_stream[0]] * 2)
    assert plugin.si.tasks == 2
    assert plugin.used == [1.0, 2.0]


def test_a_second_strategy_goes_on_with_the_same_model_or_a_copy_of_it() -> None:
    stream = digits_benchmark().train_stream
    plugin = SIPlugin()
    model = network()
    train(with_si(model, plugin), stream[:1])
    train(with_si(model, plugin, train_mb_size=16), stream[1:2])
    train(with_si(copy.deepcopy(model), plugin), stream[2:3])
    assert plugin.si.tasks == 3


def test_a_second_strategy_with_another_model_is_refused() -> None:
    stream = digits_benchmark().train_stream
    plugin = SIPlugin()
    train(with_si(network(), plugin), stream[:1])
    state = plugin.state_dict()["si"]["importance"]
    other = with_si(network(), plugin)
    with pytest.raises(ConfigurationError, match="another strategy's model"):
        other.train(stream[1])
    assert same(plugin.state_dict()["si"]["importance"], state)
