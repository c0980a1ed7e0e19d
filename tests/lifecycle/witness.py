"""An independent record of a training run, to hold the path integral against."""

from typing import Any

import torch
from avalanche.training.plugins import SupervisedPlugin
from torch import Tensor

from si_avalanche import SIPlugin

ORDERS = ["before", "behind"]


def arranged(order: str, other: SupervisedPlugin, plugin: SIPlugin) -> list[SupervisedPlugin]:
    """The other plugin before or behind ours."""
    return [other, plugin] if order == "before" else [plugin, other]


class Witness(SupervisedPlugin):
    """Sums ``-g * dtheta`` in float64, from hooks of its own on parameters and optimiser.

    Gradients are taken as autograd hands them to each parameter, before they are accumulated and
    before any plugin can reach them; weights right before and right after each optimiser step.
    List it before the SIPlugin, whose path integral it reads at the end of every experience.
    """

    def __init__(self, plugin: SIPlugin) -> None:
        super().__init__()
        self._plugin = plugin
        self._hooked: dict[Any, Any] = {}
        self._gradients: dict[int, Tensor] = {}
        self._before: dict[str, Tensor] = {}
        self._expected: dict[str, Tensor] = {}
        self.steps = 0
        self.experiences: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self._expected = {}

    def before_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        for parameter in strategy.model.parameters():
            if parameter not in self._hooked and parameter.requires_grad:
                self._hooked[parameter] = parameter.register_hook(self._catch(parameter))
        if strategy.optimizer not in self._hooked:
            self._hooked[strategy.optimizer] = (
                strategy.optimizer.register_step_pre_hook(lambda *_: self._look(strategy.model)),
                strategy.optimizer.register_step_post_hook(lambda *_: self._add(strategy.model)),
            )

    def before_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self._gradients = {}

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        found = {name: omega.clone() for name, omega in self._plugin.si.running_sum.items()}
        self.experiences.append((found, self._expected))

    def agrees(self, tolerance: float = 1e-4) -> bool:
        """Whether the path integral of every experience is the one that was witnessed."""
        return all(
            _close(omega, expected.get(name), tolerance)
            for found, expected in self.experiences
            for name, omega in found.items()
        )

    def _catch(self, parameter: Tensor) -> Any:
        def hook(gradient: Tensor) -> None:
            self._gradients[id(parameter)] = gradient.detach().double()

        return hook

    def _look(self, model: torch.nn.Module) -> None:
        self._before = {name: p.detach().double() for name, p in model.named_parameters()}

    def _add(self, model: torch.nn.Module) -> None:
        self.steps += 1
        for name, parameter in model.named_parameters():
            gradient = self._gradients.get(id(parameter))
            if gradient is not None:
                moved = parameter.detach().double() - self._before[name]
                self._expected[name] = self._expected.get(name, 0.0) - gradient * moved


def _close(found: Tensor, expected: Tensor | None, tolerance: float) -> bool:
    if expected is None:
        return not found.any()
    return bool((found - expected).abs().max() <= tolerance * expected.abs().max())
