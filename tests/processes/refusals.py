"""What is wrong with the shard of one rank alone; each function returns the error's text."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import SGD

from si_avalanche import SynapticIntelligence
from si_avalanche.errors import CallOrderError, NonFiniteError, StateDictError
from tests.processes.loops import Loop, full, narrow, shard, train_task

LOOP = Loop("attach", "narrow", sharded="model")


def _model(ranks: int) -> Any:
    torch.manual_seed(0)
    return shard(narrow().double(), LOOP, ranks)


def _spoil(tensor: torch.Tensor, rank: int, value: float) -> None:
    """Set the entries that rank 0 holds; the others hold none."""
    with torch.no_grad():
        tensor.to_local().fill_(value)  # type: ignore[attr-defined]
    assert tensor.to_local().numel() == (rank == 0)  # type: ignore[attr-defined]


def diverged(rank: int, ranks: int) -> str:
    """A weight that is not finite, at the end of a task; nothing has changed after it."""
    model = _model(ranks)
    si, optimizer = SynapticIntelligence(model), SGD(model.parameters(), lr=0.1)
    si.attach(optimizer)
    train_task(si, optimizer, model, LOOP, 0, rank, ranks)
    _spoil(model.layers[2].bias, rank, float("nan"))
    with pytest.raises(NonFiniteError) as caught:
        si.update_omega()
    assert not any(full(omega).any() for omega in si.importance.values())
    return str(caught.value)


def moved_unseen(rank: int, ranks: int) -> str:
    """A weight that moved, though not in the step that was recorded."""
    model = _model(ranks)
    si = SynapticIntelligence(model)
    (model(torch.ones(2, 6).double(), 0).sum() + si.penalty()).backward()
    si.update_running_sum()
    _spoil(model.layers[2].bias, rank, 3.0)
    with pytest.raises(CallOrderError) as caught:
        si.update_omega()
    return str(caught.value)


def not_recorded(rank: int, ranks: int) -> str:
    """A step of the three calls whose end was not told, which moved one weight."""
    model = _model(ranks)
    si = SynapticIntelligence(model)
    (model(torch.ones(2, 6).double(), 0).sum() + si.penalty()).backward()
    _spoil(model.layers[2].bias, rank, 3.0)
    with pytest.raises(CallOrderError) as caught:
        si.state_dict()
    return str(caught.value)


def not_finite_in_the_file(rank: int, ranks: int) -> str:
    """A state of which one entry is not finite."""
    si = SynapticIntelligence(_model(ranks))
    state = si.state_dict()
    _spoil(state["anchor"]["layers.2.bias"], rank, float("inf"))
    with pytest.raises(StateDictError) as caught:
        si.load_state_dict(state)
    return str(caught.value)


REFUSALS: list[Callable[[int, int], str]] = [
    diverged,
    moved_unseen,
    not_recorded,
    not_finite_in_the_file,
]
