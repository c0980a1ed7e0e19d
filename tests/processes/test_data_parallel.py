"""DistributedDataParallel in a loop of one's own: every rank holds what one process would."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.processes.compare import assert_all_ranks_agree, assert_same_as_one_process
from tests.processes.loops import Loop, error_of, train

UNUSED = {"find_unused_parameters": True}
VIEWS = {"gradient_as_bucket_view": True}
STATIC = {"static_graph": True}

TWO = [
    *(Loop(use, optimizer=o) for use in ("penalty", "attach") for o in ("momentum", "adam")),
    *(Loop(use, passes=2, wrapper=VIEWS) for use in ("penalty", "attach")),
    Loop("attach", optimizer="adam", fused=True),
    Loop("attach", dtype=torch.float32, wrapper=STATIC),
    Loop("attach", optimizer="adam", passes=2, exchange=True, clip=0.05, wrapper=VIEWS),
    Loop("attach", "heads", "adam", wrapper=UNUSED),
    Loop("attach", "mixed", passes=3, clip=0.05, wrapper=UNUSED | VIEWS),
]
FOUR = [
    Loop("penalty"),
    Loop("attach", passes=2, clip=0.05, wrapper=VIEWS),
    Loop("attach", "heads", "adam", wrapper=UNUSED),
    Loop("attach", "mixed", wrapper=UNUSED),
]
MORE = [
    Loop("penalty", dtype=torch.float32),
    Loop("penalty", passes=2, exchange=True),
    Loop("penalty", optimizer="adam", wrapper=STATIC),
    Loop("attach", clip=0.05, wrapper=STATIC),
    Loop("attach", passes=3, wrapper=VIEWS),
    Loop("attach", "heads", passes=2, wrapper=UNUSED | VIEWS),
    Loop("attach", "mixed", "adam", wrapper=UNUSED),
    Loop("attach", "mixed", "adam", passes=2, exchange=True, wrapper=UNUSED),
]
SLOW = [pytest.param(ranks, loop, marks=pytest.mark.slow) for ranks in (2, 4) for loop in MORE]
Together = Callable[..., list[Any]]


@pytest.mark.parametrize(
    ("ranks", "loop"), [*((2, loop) for loop in TWO), *((4, loop) for loop in FOUR), *SLOW], ids=str
)
def test_all_ranks_hold_the_state_of_one_process_with_the_whole_batch(
    together: Together, ranks: int, loop: Loop
) -> None:
    results = together(ranks, train, loop)
    assert_all_ranks_agree(results)
    assert_same_as_one_process(results[0], train(0, 1, loop))


def test_an_object_built_before_wrapping_has_the_same_state_from_the_first_consolidation_on(
    together: Together,
) -> None:
    """Ranks begin with different weights; wrapping gives all of them those of rank 0."""
    loop = Loop("attach", protect_before_wrapping=True)
    results = together(2, train, loop)
    assert_all_ranks_agree([result[1:] for result in results])
    assert_all_ranks_agree([[{"omega": r[0]["path_integral"]}] for r in results])
    assert_same_as_one_process(results[0], train(0, 1, loop))


def test_the_penalty_in_the_loss_beside_heads_not_in_use_ends_in_an_error_on_every_rank(
    together: Together,
) -> None:
    """PyTorch refuses a gradient for what the forward pass did not use; nothing hangs."""
    for error in together(2, error_of, Loop("penalty", "heads", wrapper=UNUSED)):
        assert "Expected to mark a variable ready only once" in error
