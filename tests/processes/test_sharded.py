"""A model that FSDP2 has sharded (``fully_shard``): the ranks hold what one process would."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.processes.compare import assert_all_ranks_agree, assert_same_as_one_process
from tests.processes.loops import Loop, train

Together = Callable[..., list[Any]]

MLP = [
    Loop("attach", sharded="model", evaluates=True),
    Loop("attach", optimizer="adam", sharded="model"),
    Loop("attach", optimizer="adam", clip=0.05, sharded="layers"),
    Loop("attach", "narrow", sharded="layers", evaluates=True),
    Loop("attach", "narrow", "adam", sharded="model"),
    Loop("attach", "narrow", "adam", fused=True, sharded="model"),
    Loop("attach", fused=True, sharded="layers"),
    Loop("penalty", "narrow", sharded="model", evaluates=True),
    Loop("penalty", optimizer="adam", passes=2, sharded="layers"),
    Loop("penalty", optimizer="adam", passes=2, exchange=True, sharded="model"),
    Loop("attach", passes=3, exchange=True, clip=0.05, sharded="model"),
    Loop("attach", "heads", passes=2, sharded="layers"),
]


@pytest.mark.parametrize("ranks", [2])
@pytest.mark.parametrize("loop", MLP, ids=str)
def test_ranks_with_shards_hold_the_state_of_one_process_with_the_whole_batch(
    together: Together, ranks: int, loop: Loop
) -> None:
    results = together(ranks, train, loop)
    assert_all_ranks_agree(results)
    assert_same_as_one_process(results[0], train(0, 1, loop))
