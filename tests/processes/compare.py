"""Whether states are the same, bit for bit or within the tolerance of a dtype."""

from typing import Any

import torch
from torch.testing import assert_close

from tests.processes.loops import Snapshots

TOLERANCE: dict[torch.dtype, dict[str, Any]] = {
    # Sums over ranks are taken in another order than sums over a batch.
    torch.float64: {"rtol": 1e-9, "atol": 1e-12},
    torch.float32: {"rtol": 1e-4, "atol": 1e-6},
}


def assert_all_ranks_agree(results: list[Snapshots]) -> None:
    """Importance, path integral, anchor and weights are bitwise equal, at every stage."""
    for result in results[1:]:
        assert_close(result, results[0], rtol=0.0, atol=0.0)


def assert_same_as_one_process(result: Snapshots, alone: Snapshots) -> None:
    """A rank has learnt what one process learns from whole batches, and learnt something."""
    dtype = next(iter(alone[0]["weights"].values())).dtype
    assert_close(result, alone, **TOLERANCE[dtype])
    for kind in ("path_integral", "importance"):
        assert any(tensor.any() for stage in alone for tensor in stage[kind].values())
