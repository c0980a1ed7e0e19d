"""A training loop without a framework, as one process or as one rank of several runs it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD, Adam, Optimizer

from si_avalanche import SynapticIntelligence
from tests.cases import Heads, Plain, batch, mlp

Use = Literal["penalty", "attach"]


class MixedHeads(Heads):
    """Every pair of samples goes through a head of its own, so that ranks differ in theirs."""

    def forward(self, x: Tensor, task: Any) -> Tensor:
        forward = super().forward
        return torch.cat([forward(part, head) for part, head in zip(x.split(2), task, strict=True)])


def narrow() -> nn.Module:
    """A network with layers of one and of three units: in two parts, one is empty or smaller."""
    return Plain(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 1), nn.Linear(1, 3))


NETWORKS = {"mlp": mlp, "heads": Heads, "mixed": MixedHeads, "narrow": narrow}
OPTIMIZERS: dict[str, Any] = {
    "momentum": (SGD, {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.01}),
    "adam": (Adam, {"lr": 0.01, "eps": 1e-3}),
}
TASKS, STEPS = 3, 4


@dataclass(frozen=True)
class Loop:
    """What is trained and how.

    :param use: the three calls with the penalty in the loss, or an attached optimiser.
    :param fused: its update, the penalty and the path integral in one pass.
    :param passes: backward passes per step.
    :param exchange: whether all of them exchange gradients and have a share of the penalty, or the
        last one alone.
    :param clip: the largest norm of the task gradients; the raw ones are integrated.
    :param sharded: what ``fully_shard`` is called for: the model, or each of its layers before it;
        ``None`` wraps the model in ``DistributedDataParallel``.
    :param copies: whether two processes hold each part.
    :param evaluates: before the object is built, and between tasks.
    :param options: of ``SynapticIntelligence``.
    :param wrapper: options of ``DistributedDataParallel``.
    """

    use: Use
    network: str = "mlp"
    optimizer: str = "momentum"
    dtype: torch.dtype = torch.float64
    fused: bool = False
    passes: int = 1
    exchange: bool = False
    clip: float | None = None
    sharded: Literal["model", "layers"] | None = None
    copies: bool = False
    evaluates: bool = False
    protect_before_wrapping: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    wrapper: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        extra = [f"{self.passes} passes"] * (self.passes > 1) + ["clip"] * bool(self.clip)
        extra += [str(self.dtype).removeprefix("torch.")] * (self.dtype != torch.float64)
        for name in ("fused", "exchange", "copies", "evaluates"):
            extra += [name] * getattr(self, name)
        extra += ["early"] * self.protect_before_wrapping + ["layers"] * (self.sharded == "layers")
        return ", ".join(
            [self.use, self.network, self.optimizer, *extra, *self.options, *self.wrapper]
        )


Snapshots = list[dict[str, dict[str, Tensor]]]
"""At the end of each task, before and after consolidation: tensors by kind and name."""


def train(rank: int, ranks: int, loop: Loop) -> Snapshots:
    """Train several tasks on this rank's share of every batch, or on the whole as the only one."""
    # Wrapping makes the initial weights those of rank 0; sharding takes each rank's own.
    torch.manual_seed(0 if loop.sharded else rank)
    network = make(loop)
    early = SynapticIntelligence(network) if loop.protect_before_wrapping else None
    model = _in_parts(network, loop, ranks) if ranks > 1 else network
    if loop.evaluates:
        evaluate(model, loop)
    si = early or SynapticIntelligence(model, **loop.options)
    kind, hyper = OPTIMIZERS[loop.optimizer]
    optimizer = kind(model.parameters(), **hyper)
    if loop.use == "attach":
        si.attach(optimizer, fused=loop.fused)
    snapshots: Snapshots = []
    for task in range(TASKS):
        train_task(si, optimizer, model, loop, task, rank, ranks)
        snapshots.append(snapshot(si, network))
        if loop.evaluates:
            evaluate(model, loop)
        si.update_omega()
        snapshots.append(snapshot(si, network))
    return snapshots


def error_of(rank: int, ranks: int, loop: Loop) -> str:
    """Train, and return the error that ends it."""
    with pytest.raises(RuntimeError) as caught:
        train(rank, ranks, loop)
    return str(caught.value)


def make(loop: Loop) -> Any:
    """The network of a loop, not yet wrapped."""
    return NETWORKS[loop.network]().to(loop.dtype)


def train_task(
    si: SynapticIntelligence,
    optimizer: Optimizer,
    model: nn.Module,
    loop: Loop,
    task: int,
    rank: int,
    ranks: int,
    steps: range = range(STEPS),
) -> None:
    """Make steps of a task."""
    for step in steps:
        optimizer.zero_grad()
        for index in range(loop.passes):
            last = index == loop.passes - 1
            with _exchange(model, last or loop.exchange):
                loss = _loss(model, loop, task, step * loop.passes + index, rank, ranks)
                loss = loss / loop.passes
                if loop.use == "penalty" and (last or loop.exchange):
                    loss = loss + si.penalty() / (loop.passes if loop.exchange else 1)
                loss.backward()
        if loop.clip is not None:
            si.keep_gradient()
            nn.utils.clip_grad_norm_(model.parameters(), loop.clip)
        optimizer.step()
        if loop.use == "penalty":
            si.update_running_sum()


def evaluate(model: nn.Module, loop: Loop) -> None:
    """Look at a batch without training; a sharded model's parameters stay gathered then."""
    with torch.no_grad():
        model(batch(9, 0)[0].to(loop.dtype), 0)


def shard(network: nn.Module, loop: Loop, ranks: int) -> nn.Module:
    """Shard a network in place, and return it."""
    shape, names = ((2, ranks // 2), ("copies", "parts")) if loop.copies else ((ranks,), ("parts",))
    mesh = init_device_mesh("cpu", shape, mesh_dim_names=names)
    if loop.sharded == "layers":
        for layer in [each for each in network.modules() if isinstance(each, nn.Linear)]:
            fully_shard(layer, mesh=mesh)
    fully_shard(network, mesh=mesh)
    return network


def full(tensor: Any) -> Tensor:
    """A copy of a tensor, gathered from all ranks if it is sharded."""
    whole: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return whole.detach().clone()


def snapshot(si: SynapticIntelligence, network: nn.Module) -> dict[str, dict[str, Tensor]]:
    """All weights and what is remembered of them, as one process would hold them."""
    if isinstance(network, FSDPModule):
        # One that has been evaluated shows what was gathered.
        for module in network.modules():
            module.reshard() if isinstance(module, FSDPModule) else None
    state = si.state_dict()
    kinds = {kind: state[kind] for kind in ("importance", "path_integral", "anchor")}
    kinds["weights"] = dict(network.named_parameters())
    return {kind: {name: full(t) for name, t in tensors.items()} for kind, tensors in kinds.items()}


def _in_parts(network: nn.Module, loop: Loop, ranks: int) -> nn.Module:
    if loop.sharded:
        return shard(network, loop, ranks)
    return DistributedDataParallel(network, **loop.wrapper)


@contextmanager
def _exchange(model: nn.Module, exchanges: bool) -> Iterator[None]:
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(exchanges)
    if isinstance(model, DistributedDataParallel) and not exchanges:
        with model.no_sync():
            yield
    else:
        yield


def _loss(model: nn.Module, loop: Loop, task: int, index: int, rank: int, ranks: int) -> Tensor:
    """The mean loss over this rank's share of a batch."""
    x, y = (part.chunk(ranks)[rank] for part in batch(task, index))
    heads: Any = task
    if loop.network == "mixed":
        heads = [(task + pair) % 3 for pair in range(4)][
            rank * 4 // ranks : (rank + 1) * 4 // ranks
        ]
    return functional.cross_entropy(model(x.to(loop.dtype), heads), y)
