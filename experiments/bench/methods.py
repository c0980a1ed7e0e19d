"""Ways to do Synaptic Intelligence, each as what it does around a training step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from experiments.bench.method import Method
from experiments.bench.peers import AvalanchesWay, Mammoth, ThreeCalls, VanDeVen
from si_avalanche import SynapticIntelligence

STRENGTH = 1.0
"""c of every method: no time depends on it as long as it is not 0."""

Kernel = Literal["auto", "foreach", "compiled"]


class Ours(Method):
    """Our own way, the penalty's gradient in closed form.

    :param model: what is trained.
    :param c: the strength of the penalty.
    :param kernel: in which form a step is computed.
    """

    def __init__(self, model: nn.Module, c: float, kernel: Kernel = "auto") -> None:
        super().__init__(model, c)
        self.si = SynapticIntelligence(model, c, kernel=kernel)

    def after_backward(self) -> None:
        """Add the penalty's gradient."""
        self.si.add_penalty_gradient()

    def after_step(self) -> None:
        """Add to the path integral."""
        self.si.update_running_sum()

    def end_task(self) -> None:
        """Consolidate."""
        self.si.update_omega()


class OursThreeCalls(Ours):
    """Our own way, the penalty in the loss."""

    def penalised(self, loss: Tensor) -> Tensor:
        """Add the penalty."""
        return loss + self.si.penalty()

    def after_backward(self) -> None:
        """Leave the gradient as it is: the penalty's is in it."""


class LeastTraffic(Method):
    """Nothing but the traffic that a step cannot do without: 13 passes over the parameters.

    Before the optimiser's step weights, anchor, importance and gradient are read, gradient and a
    copy of the weights written; after it these are read, and the path integral is read and
    written. Here as many numbers are copied, at the same two moments.

    :param model: what is trained.
    :param c: not used.
    """

    def __init__(self, model: nn.Module, c: float) -> None:
        super().__init__(model, c)
        count = sum(p.numel() for p in model.parameters())
        device = next(model.parameters()).device
        self._numbers = [torch.rand(count, device=device) for _ in range(6)]

    def after_backward(self) -> None:
        """Make six passes."""
        self._copy_all()

    def after_step(self) -> None:
        """Make seven."""
        self._copy_all()
        first, second, *_ = self._numbers
        half = len(first) // 2
        first[:half].copy_(second[:half])

    def _copy_all(self) -> None:
        for target, source in zip(self._numbers[::2], self._numbers[1::2], strict=True):
            target.copy_(source)


@dataclass(frozen=True)
class Entry:
    """A method as it is measured.

    :param label: its name in tables and pictures.
    :param make: makes it for a network and a strength.
    :param first_task: whether it is still in its first task, without a penalty.
    :param is_method: whether it does anything, so that its memory is of interest.
    """

    label: str
    make: Callable[[nn.Module, float], Method]
    first_task: bool = False
    is_method: bool = True


PLAIN = "no SI"
OURS = "si-avalanche"

METHODS: dict[str, Entry] = {
    "plain": Entry(PLAIN, Method),
    "three-calls": Entry("three-call class", ThreeCalls),
    "van-de-ven": Entry("van de Ven's way", VanDeVen),
    "mammoth": Entry("mammoth's way", Mammoth),
    "avalanche": Entry("Avalanche's way", AvalanchesWay),
    "ours": Entry(OURS, Ours),
    "ours-foreach": Entry(f"{OURS}, foreach", partial(Ours, kernel="foreach")),
    "ours-three-calls": Entry(f"{OURS}, three calls", OursThreeCalls),
    "ours-first-task": Entry(f"{OURS}, first task", Ours, first_task=True),
    "least-traffic": Entry("least traffic, copied", LeastTraffic, is_method=False),
}
"""All methods by name, in the order of the tables; the others are held against the first."""
