"""The end of a task: importance, new anchor, path integral back to zero."""

from collections.abc import Sequence

import torch
from torch import Tensor

from si_avalanche import formulas
from si_avalanche.errors import CallOrderError, NonFiniteError
from si_avalanche.live import LiveParameters
from si_avalanche.settings import Settings
from si_avalanche.state import State, pick


@torch.no_grad()
def end_task(live: LiveParameters, state: State, settings: Settings, sees_every_step: bool) -> None:
    """Consolidate a task in which steps were recorded (eq. 5).

    :param live: the protected parameters at the end of the task; they are only read.
    :param state: changed in place: importance, anchor, path integral and counters.
    :param settings: damping, clamp and decay.
    :param sees_every_step: whether no step can have been missed.
    :raises CallOrderError: if weights moved but no recorded step shows it; nothing has changed.
    :raises NonFiniteError: if weights or importance are not finite; nothing has changed.
    """
    names = live.names
    weights, anchor = live.weights(names), pick(state.anchor, names)
    displacement = state.displacement(names, weights)
    importance, path_integral = pick(state.importance, names), pick(state.path_integral, names)
    doubtful = not sees_every_step and (state.tasks > 0 or settings.first_anchor == "initial")
    moved = doubtful and formulas.any_nonzero(displacement)
    if moved and not formulas.any_nonzero(path_integral):
        raise CallOrderError(
            f"Weights moved, but none of the {state.steps} recorded steps shows it: call "
            "update_running_sum() after the optimiser's step, and penalty() in the loss or "
            "add_penalty_gradient() before it."
        )
    new = formulas.consolidate(
        importance, path_integral, displacement, settings.xi, settings.clamp, settings.decay
    )
    _refuse_non_finite(names, weights, new)
    torch._foreach_copy_(importance, new)
    torch._foreach_copy_(anchor, weights)
    torch._foreach_zero_(path_integral)
    state.start.clear()
    state.tasks += 1
    state.steps = 0


def _refuse_non_finite(
    names: Sequence[str], weights: Sequence[Tensor], importance: Sequence[Tensor]
) -> None:
    broken = [
        name
        for name, theta, omega in zip(names, weights, importance, strict=True)
        if not (theta.isfinite().all() and omega.isfinite().all())
    ]
    if broken:
        raise NonFiniteError(
            f"The task made weights or importance non-finite in {', '.join(broken)}: the loss has "
            "diverged. Importance and anchor are left as they were. Load weights and state from "
            "before it, and train with a smaller learning rate or strength c."
        )
