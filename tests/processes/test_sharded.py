"""A model that FSDP2 has sharded (``fully_shard``): the ranks hold what one process would."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from si_avalanche import SynapticIntelligence
from tests.digits import Network
from tests.processes import strategies
from tests.processes.compare import assert_all_ranks_agree, assert_same_as_one_process
from tests.processes.loops import Loop, Snapshots, make, shard, snapshot, train, train_task
from tests.processes.refusals import REFUSALS

Together = Callable[..., list[Any]]

MODEL: dict[str, Any] = {"sharded": "model"}
LAYERS: dict[str, Any] = {"sharded": "layers"}
ZERO = {"first_anchor": "zero"}
TWO = [
    Loop("attach", evaluates=True, **MODEL),
    Loop("attach", "narrow", "adam", evaluates=True, **LAYERS),
    Loop("attach", "narrow", "adam", fused=True, **MODEL),
    Loop("attach", passes=3, clip=0.05, exchange=True, **MODEL),
    Loop("attach", "heads", "adam", passes=2, clip=0.05, **LAYERS),
    Loop("attach", "narrow", options=ZERO, **MODEL),
    Loop("penalty", "narrow", evaluates=True, **MODEL),
    Loop("penalty", optimizer="adam", passes=2, exchange=True, **MODEL),
]
FOUR = [
    Loop("attach", "narrow", "adam", copies=True, **MODEL),
    Loop("penalty", "narrow", copies=True, **LAYERS),
]
MORE = [
    Loop("attach", "narrow", fused=True, **LAYERS),
    Loop("attach", optimizer="adam", dtype=torch.float32, **MODEL),
    Loop("attach", "narrow", "adam", options={"gradient": "total", "decay": 0.5}, **LAYERS),
    Loop("attach", "narrow", clip=0.05, evaluates=True, fused=True, **MODEL),
    Loop("penalty", "heads", passes=2, **LAYERS),
    Loop("penalty", "narrow", "adam", options=ZERO, **MODEL),
]
SLOW = [pytest.param(ranks, loop, marks=pytest.mark.slow) for ranks in (2, 4) for loop in MORE]


@pytest.mark.parametrize(
    ("ranks", "loop"), [*((2, loop) for loop in TWO), *((4, loop) for loop in FOUR), *SLOW], ids=str
)
def test_ranks_with_shards_hold_the_state_of_one_process_with_the_whole_batch(
    together: Together, ranks: int, loop: Loop
) -> None:
    results = together(ranks, train, loop)
    assert_all_ranks_agree(results)
    assert_same_as_one_process(results[0], train(0, 1, loop))


def begin_elsewhere(rank: int, ranks: int, loop: Loop) -> tuple[Snapshots, list[float]]:
    """Weights change between two tasks; also the penalty and the total importance."""
    torch.manual_seed(0)
    network = make(loop)
    if ranks > 1:
        shard(network, loop, ranks)
    si = SynapticIntelligence(network)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    si.attach(optimizer)
    numbers, snapshots = [], []
    for task in range(2):
        train_task(si, optimizer, network, loop, task, rank, ranks)
        snapshots.append(snapshot(si, network))
        si.update_omega()
        snapshots.append(snapshot(si, network))
        with torch.no_grad():
            network.layers[2].bias.add_(1.0)
            numbers += [float(si.penalty()), float(si.total_importance())]
    return snapshots, numbers


def test_a_task_that_begins_away_from_its_anchor_and_the_penalty_as_a_number(
    together: Together,
) -> None:
    loop = Loop("attach", "narrow", sharded="layers")
    (found, numbers), (other, other_numbers) = together(2, begin_elsewhere, loop)
    alone, expected = begin_elsewhere(0, 1, loop)
    assert_all_ranks_agree([found, other])
    assert_same_as_one_process(found, alone)
    assert numbers == other_numbers
    assert all(number > 0 for number in numbers)
    assert_close(numbers, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "digits",
    [
        strategies.Digits(Network, sharded=True, evaluates=True),
        strategies.Digits(Network, sharded=True, adam=True, clips=True),
    ],
    ids=str,
)
def test_a_strategy_with_a_sharded_model_holds_the_state_of_one_process(
    together: Together, digits: strategies.Digits
) -> None:
    results = [noted for noted, _ in together(2, strategies.train, digits)]
    assert_all_ranks_agree(results)
    assert_same_as_one_process(results[0], strategies.train(0, 1, digits)[0])


@pytest.mark.parametrize("refusal", REFUSALS)
def test_what_is_wrong_with_the_shard_of_one_rank_is_the_same_error_on_all(
    together: Together, refusal: Callable[[int, int], str]
) -> None:
    messages = together(2, refusal)
    assert messages[0] == messages[1] != ""
