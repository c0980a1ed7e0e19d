"""A training loop without a framework, as one process or as one rank of several runs it."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD, Adam, Optimizer

from si_avalanche import SynapticIntelligence
from tests.cases import Heads, batch, mlp

Use = Literal["penalty", "gradient", "watch"]


class MixedHeads(Heads):
    """Every pair of samples goes through a head of its own, so that ranks differ in theirs."""

    def forward(self, x: Tensor, task: Any) -> Tensor:
        forward = super().forward
        return torch.cat([forward(part, head) for part, head in zip(x.split(2), task, strict=True)])


NETWORKS = {"mlp": mlp, "heads": Heads, "mixed": MixedHeads}
OPTIMIZERS: dict[str, Any] = {
    "momentum": (SGD, {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.01}),
    "adam": (Adam, {"lr": 0.01, "eps": 1e-3}),
}
TASKS, STEPS = 3, 4


@dataclass(frozen=True)
class Loop:
    """What is trained and how.

    :param use: the penalty in the loss, its gradient in closed form, or that with a watched loss
        and a followed optimiser.
    :param passes: backward passes per step; all but the last one without exchange.
    :param clip: the largest norm of the gradients, penalty included.
    :param wrapper: options of ``DistributedDataParallel``.
    """

    use: Use
    network: str = "mlp"
    optimizer: str = "momentum"
    dtype: torch.dtype = torch.float64
    passes: int = 1
    clip: float | None = None
    protect_before_wrapping: bool = False
    wrapper: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        extra = [f"{self.passes} passes"] * (self.passes > 1) + ["clip"] * bool(self.clip)
        extra += [str(self.dtype).removeprefix("torch.")] * (self.dtype != torch.float64)
        extra += ["early"] * self.protect_before_wrapping
        return ", ".join([self.use, self.network, self.optimizer, *extra, *self.wrapper])


Snapshots = list[dict[str, dict[str, Tensor]]]
"""At the end of each task, before and after consolidation: tensors by kind and name."""


def train(rank: int, ranks: int, loop: Loop) -> Snapshots:
    """Train several tasks on this rank's shard of every batch, or on the whole as the only one."""
    # Wrapping makes the initial weights those of rank 0.
    torch.manual_seed(rank)
    network = NETWORKS[loop.network]().to(loop.dtype)
    early = SynapticIntelligence(network) if loop.protect_before_wrapping else None
    model = DistributedDataParallel(network, **loop.wrapper) if ranks > 1 else network
    si = early or SynapticIntelligence(model)
    kind, hyper = OPTIMIZERS[loop.optimizer]
    optimizer = kind(model.parameters(), **hyper)
    snapshots: Snapshots = []
    for task in range(TASKS):
        for step in range(STEPS):
            optimizer.zero_grad()
            for index in range(loop.passes):
                last = index == loop.passes - 1
                with nullcontext() if last else _exchange_waits(model):
                    loss = _loss(model, loop, task, step * loop.passes + index, rank, ranks)
                    _backward(si, loss / loop.passes, optimizer, loop.use, last)
            if loop.clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), loop.clip)
            optimizer.step()
            si.update_running_sum()
        snapshots.append(_snapshot(si, network))
        si.update_omega()
        snapshots.append(_snapshot(si, network))
    return snapshots


def _exchange_waits(model: nn.Module) -> AbstractContextManager[None]:
    if isinstance(model, DistributedDataParallel):
        return model.no_sync()
    return nullcontext()


def _loss(model: nn.Module, loop: Loop, task: int, index: int, rank: int, ranks: int) -> Tensor:
    """The mean loss over this rank's shard of a batch."""
    x, y = (part.chunk(ranks)[rank] for part in batch(task, index))
    heads: Any = task
    if loop.network == "mixed":
        heads = [(task + pair) % 3 for pair in range(4)][
            rank * 4 // ranks : (rank + 1) * 4 // ranks
        ]
    return functional.cross_entropy(model(x.to(loop.dtype), heads), y)


def _backward(
    si: SynapticIntelligence, loss: Tensor, optimizer: Optimizer, use: Use, last: bool
) -> None:
    if use == "watch":
        si.watch(loss, optimizer)
    elif use == "penalty" and last:
        loss = loss + si.penalty()
    loss.backward()
    if use == "watch" or (use == "gradient" and last):
        si.add_penalty_gradient()


def _snapshot(si: SynapticIntelligence, network: nn.Module) -> dict[str, dict[str, Tensor]]:
    weights = {name: p.detach().clone() for name, p in network.named_parameters()}
    kinds = ("importance", "path_integral", "anchor")
    state = si.state_dict()
    return {"weights": weights, **{kind: state[kind] for kind in kinds}}
