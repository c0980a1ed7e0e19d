"""Ways to do Synaptic Intelligence, each as what it does around a training step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from experiments.bench.method import Method
from experiments.bench.peers import AvalanchesWay, Mammoth, ThreeCalls, VanDeVen
from si_avalanche import SynapticIntelligence

STRENGTH = 1.0
"""c of every method: no time depends on it as long as it is not 0."""

# A kernel may be compiled after some steps; the peers' loops are from the first step on what they
# are, and a step of a large network takes most of a second.
STEPS_OF_A_KERNEL = 20
STEPS_OF_A_LOOP = 3


class Ours(Method):
    """Our own way, the penalty's gradient in closed form."""

    def __init__(self, model: nn.Module, c: float) -> None:
        super().__init__(model, c)
        self.si = SynapticIntelligence(model, c)

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
    :param warm_up: how many steps it trains before it is timed.
    :param first_task: whether it is still in its first task, without a penalty.
    """

    label: str
    make: Callable[[nn.Module, float], Method]
    warm_up: int = STEPS_OF_A_LOOP
    first_task: bool = False


PLAIN = "no SI"
OURS = "si-avalanche"

METHODS: dict[str, Entry] = {
    "plain": Entry(PLAIN, Method),
    "three-calls": Entry("three-call class", ThreeCalls),
    "van-de-ven": Entry("van de Ven's way", VanDeVen),
    "mammoth": Entry("mammoth's way", Mammoth),
    "avalanche": Entry("Avalanche's way", AvalanchesWay),
    "ours": Entry(OURS, Ours, STEPS_OF_A_KERNEL),
    "ours-three-calls": Entry(f"{OURS}, three calls", OursThreeCalls, STEPS_OF_A_KERNEL),
    "ours-first-task": Entry(f"{OURS}, first task", Ours, STEPS_OF_A_KERNEL, first_task=True),
}
"""All methods by name, in the order of the tables; the others are held against the first."""
