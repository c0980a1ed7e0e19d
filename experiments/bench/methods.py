"""Ways to do Synaptic Intelligence, each as what it does around a training step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from experiments.bench.method import Method
from experiments.bench.peers import AvalanchesWay, Mammoth, ThreeCalls, VanDeVen
from si_avalanche import SynapticIntelligence

STRENGTH = 1.0
"""c of every method: no time depends on it as long as it is not 0."""


class Ours(Method):
    """Our own way: attached to the optimiser, so that nothing is called in a step.

    :param model: what is trained.
    :param optimizer: what trains it.
    :param c: the strength of the penalty.
    :param fused: whether optimiser and method are one compiled pass; ``None`` attaches nothing.
    """

    def __init__(
        self, model: nn.Module, optimizer: Optimizer, c: float, fused: bool | None = False
    ) -> None:
        super().__init__(model, optimizer, c)
        self.si = SynapticIntelligence(model, c)
        if fused is not None:
            self.si.attach(optimizer, fused=fused)

    def end_task(self) -> None:
        """Consolidate."""
        self.si.update_omega()


class OursThreeCalls(Ours):
    """Our own way with the three calls of the original class, the penalty in the loss."""

    def __init__(self, model: nn.Module, optimizer: Optimizer, c: float) -> None:
        super().__init__(model, optimizer, c, fused=None)

    def penalised(self, loss: Tensor) -> Tensor:
        """Add the penalty."""
        return loss + self.si.penalty()

    def after_step(self) -> None:
        """Add to the path integral."""
        self.si.update_running_sum()


class Ema(Method):
    """No SI, but what users know: PyTorch's own exponential moving average of the weights."""

    def __init__(self, model: nn.Module, optimizer: Optimizer, c: float) -> None:
        super().__init__(model, optimizer, c)
        self._average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn())

    def after_step(self) -> None:
        """Add the weights to the average."""
        self._average.update_parameters(self._model)


class LeastTraffic(Method):
    """Nothing but the traffic that hooks cannot do without: 11 passes over the parameters.

    Before the optimiser's step weights, anchor, importance and gradient are read, the sum of both
    gradients and a copy of the weights written; after it weights, copy and gradient are read, and
    the path integral is read and written. Here as many numbers are copied, at the same two moments.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer, c: float) -> None:
        super().__init__(model, optimizer, c)
        count = sum(p.numel() for p in model.parameters())
        device = next(model.parameters()).device
        self._numbers = [torch.rand(count, device=device) for _ in range(6)]

    def after_backward(self) -> None:
        """Make six passes."""
        for target, source in zip(self._numbers[::2], self._numbers[1::2], strict=True):
            target.copy_(source)

    def after_step(self) -> None:
        """Make five."""
        first, second, third, fourth, fifth, sixth = self._numbers
        half = len(first) // 2
        first.copy_(second)
        third.copy_(fourth)
        fifth[:half].copy_(sixth[:half])


@dataclass(frozen=True)
class Entry:
    """A method as it is measured.

    :param label: its name in tables and pictures.
    :param make: makes it for a network, its optimiser and a strength.
    :param fused_adam: whether the optimiser is ``Adam(fused=True)``, not Adam as it is by default.
    :param first_task: whether it is still in its first task, without a penalty.
    :param is_method: whether it does anything, so that its memory is of interest.
    """

    label: str
    make: Callable[[nn.Module, Optimizer, float], Method]
    fused_adam: bool = False
    first_task: bool = False
    is_method: bool = True


PLAIN, PLAIN_FUSED = "no SI", "no SI, fused Adam"
OURS = "si-avalanche"
ONE_PASS = f"{OURS}, one pass"
ONE_PASS_FUSED = f"{ONE_PASS}, fused Adam"

_one_pass = partial(Ours, fused=True)
METHODS: dict[str, Entry] = {
    "plain": Entry(PLAIN, Method),
    "plain-fused": Entry(PLAIN_FUSED, Method, fused_adam=True),
    "ours": Entry(OURS, Ours),
    "ours-fused": Entry(f"{OURS}, fused Adam", Ours, fused_adam=True),
    "one-pass": Entry(ONE_PASS, _one_pass),
    "one-pass-fused": Entry(ONE_PASS_FUSED, _one_pass, fused_adam=True),
    "ours-three-calls": Entry(f"{OURS}, three calls", OursThreeCalls),
    "ours-first-task": Entry(f"{OURS}, first task", Ours, first_task=True),
    "three-calls": Entry("three-call class", ThreeCalls),
    "van-de-ven": Entry("van de Ven's way", VanDeVen),
    "mammoth": Entry("mammoth's way", Mammoth),
    "avalanche": Entry("Avalanche's way", AvalanchesWay),
    "ema": Entry("PyTorch's EMA", Ema),
    "least-traffic": Entry("least traffic, copied", LeastTraffic, is_method=False),
}
"""All methods by name, in the order of the tables; the others are held against the first two."""

GROWING = {name: METHODS[name] for name in ("plain", "plain-fused", "ours", "one-pass-fused")}
"""What is trained where networks grow."""
