"""The independent record of a training run, as a plugin."""

from typing import Any

from avalanche.training.plugins import SupervisedPlugin
from torch import Tensor

from si_avalanche import SIPlugin
from tests.witness import Witness

ORDERS = ["before", "behind"]


def arranged(order: str, other: SupervisedPlugin, plugin: SIPlugin) -> list[SupervisedPlugin]:
    """The other plugin before or behind ours."""
    return [other, plugin] if order == "before" else [plugin, other]


class WitnessPlugin(SupervisedPlugin):
    """A witness that follows the strategy's model and optimiser, whatever becomes of them.

    List it before the SIPlugin, whose path integral it reads at the end of every experience.
    """

    def __init__(self, plugin: SIPlugin) -> None:
        super().__init__()
        self._plugin = plugin
        self._witness: Witness | None = None
        self.steps = 0
        self.experiences: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        if self._witness is not None:
            self._witness.begin_anew()

    def before_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        if self._witness is None:
            # Others make passes of their own between the forward pass and the loss's backward.
            self._witness = Witness(strategy.model, strategy.optimizer, accumulates=False)
        self._witness.follow(strategy.model, strategy.optimizer)

    def before_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        if self._witness is not None:
            self._witness.forget_gradients()

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        found = {name: omega.clone() for name, omega in self._plugin.si.running_sum.items()}
        expected = {} if self._witness is None else self._witness.path_integral
        self.steps += 0 if self._witness is None else self._witness.steps
        self.experiences.append((found, expected))

    def agrees(self, tolerance: float = 1e-4) -> bool:
        """Whether the path integral of every experience is the one that was witnessed."""
        return all(
            _close(omega, expected.get(name), tolerance)
            for found, expected in self.experiences
            for name, omega in found.items()
        )


def _close(found: Tensor, expected: Tensor | None, tolerance: float) -> bool:
    if expected is None:
        return not found.any()
    return bool((found - expected).abs().max() <= tolerance * expected.abs().max())
