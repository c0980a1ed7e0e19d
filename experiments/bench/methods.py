"""Ways to do Synaptic Intelligence, each as what it does around a training step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

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


@dataclass(frozen=True)
class Entry:
    """A method as it is measured.

    :param label: its name in tables and pictures.
    :param make: makes it for a network and a strength.
    :param first_task: whether it is still in its first task, without a penalty.
    """

    label: str
    make: Callable[[nn.Module, float], Method]
    first_task: bool = False


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
}
"""All methods by name, in the order of the tables; the others are held against the first."""
