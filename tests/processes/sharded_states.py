"""Training that is saved by some processes and goes on in others."""

from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    get_state_dict,
    set_optimizer_state_dict,
    set_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load as read
from torch.distributed.checkpoint.state_dict_saver import save as write
from torch.optim import Optimizer

from si_avalanche import SynapticIntelligence
from tests.processes.loops import (
    OPTIMIZERS,
    STEPS,
    Loop,
    Snapshots,
    full,
    make,
    shard,
    snapshot,
    train_task,
)
from tests.saving import through_file

FIRST, SECOND = range(STEPS // 2), range(STEPS // 2, STEPS)


class Training:
    """A model, sharded if there are several ranks, its optimiser and what is remembered."""

    def __init__(self, rank: int, ranks: int, loop: Loop, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.loop, self.rank, self.ranks = loop, rank, ranks
        self.network = make(loop)
        if ranks > 1:
            shard(self.network, loop, ranks)
        kind, hyper = OPTIMIZERS[loop.optimizer]
        self.optimizer: Optimizer = kind(self.network.parameters(), **hyper)
        self.si = SynapticIntelligence(self.network)
        self.si.attach(self.optimizer, fused=loop.fused)

    def until_the_middle(self) -> None:
        """Train one task, and half of another one."""
        self._steps(0, range(STEPS))
        self.si.update_omega()
        self._steps(1, FIRST)

    def to_the_end(self) -> Snapshots:
        """Train the other half and one more task."""
        before = snapshot(self.si, self.network)
        self._steps(1, SECOND)
        self.si.update_omega()
        self._steps(2, range(STEPS))
        return [before, snapshot(self.si, self.network)]

    def _steps(self, task: int, steps: range) -> None:
        ranks = self.rank, self.ranks
        train_task(self.si, self.optimizer, self.network, self.loop, task, *ranks, steps)

    def state(self) -> dict[str, Any]:
        """What a user saves: tensors sharded as the model is."""
        return {
            "si": self.si.state_dict(),
            "model": self.network.state_dict(),
            "optimizer": get_optimizer_state_dict(self.network, self.optimizer),
        }

    def load(self, folder: Path) -> None:
        """Load what any number of processes have saved."""
        state = self.state()
        read(state, checkpoint_id=folder)
        self.network.load_state_dict(state["model"])
        set_optimizer_state_dict(self.network, self.optimizer, state["optimizer"])
        self.si.load_state_dict(state["si"])


def save(rank: int, ranks: int, loop: Loop, folder: Path) -> Snapshots:
    """Train until the middle, save, go on."""
    training = Training(rank, ranks, loop)
    training.until_the_middle()
    write(training.state(), checkpoint_id=folder)
    return training.to_the_end()


def resume(rank: int, ranks: int, loop: Loop, folder: Path) -> Snapshots:
    """Load into a model with other weights, and go on."""
    training = Training(rank, ranks, loop, seed=1)
    training.load(folder)
    return training.to_the_end()


def save_whole(rank: int, ranks: int, loop: Loop) -> tuple[dict[str, Any], Snapshots]:
    """Return what is saved by a user who gathers every tensor, and what comes after it."""
    training = Training(rank, ranks, loop)
    training.until_the_middle()
    whole = StateDictOptions(full_state_dict=True)
    model, optimizer = get_state_dict(training.network, training.optimizer, options=whole)
    si = training.si.state_dict()
    for kind in ("importance", "path_integral", "anchor", "start"):
        si[kind] = {name: full(tensor) for name, tensor in si[kind].items()}
    saved = through_file({"si": si, "model": model, "optimizer": optimizer})
    return saved, training.to_the_end()


def load_whole(rank: int, ranks: int, loop: Loop, saved: dict[str, Any]) -> Snapshots:
    """Load whole tensors into a model, sharded or not, and go on."""
    training = Training(rank, ranks, loop, seed=1)
    set_state_dict(
        training.network,
        training.optimizer,
        model_state_dict=saved["model"],
        optim_state_dict=saved["optimizer"],
        options=StateDictOptions(full_state_dict=True),
    )
    training.si.load_state_dict(saved["si"])
    return training.to_the_end()
