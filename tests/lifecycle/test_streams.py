"""Streams whose experiences are not tasks."""

import pytest
from avalanche.benchmarks.scenarios.online import split_online_stream

from tests.digits import digits_benchmark, network, train, with_si
from tests.lifecycle.test_plugin import Strengths


@pytest.mark.parametrize(("boundaries", "tasks"), [(True, 2), (False, 8)])
def test_an_online_stream_with_boundaries_consolidates_once_per_task(
    boundaries: bool, tasks: int
) -> None:
    stream = digits_benchmark().train_stream[:2]
    parts = [
        part
        for experience in stream
        for part in split_online_stream(
            [experience],
            experience_size=len(experience.dataset) // 4 + 1,
            access_task_boundaries=boundaries,
        )
    ]
    assert len(parts) == 8
    plugin = Strengths([1.0, 2.0])
    train(with_si(network(), plugin), parts)
    assert plugin.si.tasks == plugin.experiences == tasks
    assert plugin.used == ([1.0] * 4 + [2.0] * 4 if boundaries else [1.0] + [2.0] * 7)
