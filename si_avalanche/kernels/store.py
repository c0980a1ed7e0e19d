"""The kernels of a model, made once for each set of parameters that a step treats alike."""

from typing import Any

from si_avalanche.kernels.choice import make_kernel
from si_avalanche.kernels.foreach import Kernel
from si_avalanche.kernels.lane import Lane
from si_avalanche.live import LiveParameters
from si_avalanche.settings import KernelChoice
from si_avalanche.state import State, pick

_MOST = 64
"""Sets that are remembered: heads come and go, and a kernel is cheap to make again."""


class Kernels:
    """Kernels by the names of their parameters.

    :param live: the protected parameters.
    :param state: what is kept of them; the tensors are taken as they are now.
    :param choice: in which form they are computed.
    """

    def __init__(self, live: LiveParameters, state: State, choice: KernelChoice) -> None:
        self._live = live
        self._state = state
        self._choice = choice
        self._made: dict[tuple[str, ...], Kernel] = {}

    def of(self, names: tuple[str, ...]) -> Kernel:
        """Return the kernel of these parameters; their order is that of its gradients."""
        kernel = self._made.get(names)
        if kernel is None:
            if len(self._made) >= _MOST:
                self._made.clear()
            kernel = self._made[names] = make_kernel(self._lane(names), self._choice)
        return kernel

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is made: views of tensors would be tensors of their own in a copy."""
        return {**self.__dict__, "_made": {}}

    def _lane(self, names: tuple[str, ...]) -> Lane:
        state = self._state
        return Lane(
            self._live.parameters(names),
            self._live.before(names),
            pick(state.path_integral, names),
            pick(state.anchor, names),
            pick(state.importance, names),
        )
