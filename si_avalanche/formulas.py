"""The equations of Synaptic Intelligence on lists of tensors (Zenke, Poole & Ganguli 2017).

Every function takes parallel lists: entry k of each belongs to parameter k and has its shape.
Lists may not be empty; the tensors of one entry share device and floating dtype. A trailing
underscore marks a function that changes its first argument in place, as in PyTorch; call it with
gradients switched off. Nothing here knows a model, a task or an optimiser.
"""

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from si_avalanche.settings import Clamp

Tensors: TypeAlias = list[Tensor] | tuple[Tensor, ...]


def add_path_increment_(
    path_integral: Tensors,
    gradient: Tensors,
    before: Tensors,
    after: Tensors,
) -> None:
    """Add one optimiser step to the path integral, in place.

    Eq. 3, discretised: ``omega_k += g_k * (theta_k(before) - theta_k(after))``.

    :param path_integral: omega, changed in place.
    :param gradient: g, the gradient of the loss at the weights before the step.
    :param before: the weights before the step; used up: they become the step back, so that no
        memory is needed for it.
    :param after: the weights after the step.
    """
    torch._foreach_sub_(before, after)
    torch._foreach_addcmul_(path_integral, gradient, before)


def consolidate(
    importance: Tensors,
    path_integral: Tensors,
    displacement: Tensors,
    xi: float,
    clamp: Clamp = "accumulated",
    decay: float | None = None,
) -> list[Tensor]:
    """Return the importance after a task.

    Eq. 5: ``Omega_k + omega_k / (Delta_k**2 + xi)``. The numerator is the path integral itself,
    not its square. With ``decay`` d the sum becomes ``d * Omega_k + (1 - d) * new_k``.

    :param importance: Omega before the task.
    :param path_integral: omega of the task.
    :param displacement: Delta, weights at the end of the task minus weights at its start.
    :param xi: the damping, above zero.
    :param clamp: where negative values are set to zero: ``"accumulated"`` in the result,
        ``"per_task"`` in what the task adds, ``"none"`` nowhere.
    :param decay: ``None`` or d in [0, 1].
    :return: new tensors; no argument is changed.
    """
    damped_square = torch._foreach_mul(displacement, displacement)
    torch._foreach_add_(damped_square, xi)
    new = list(torch._foreach_div(path_integral, damped_square))
    if clamp == "per_task":
        torch._foreach_clamp_min_(new, 0.0)
    if decay is None:
        torch._foreach_add_(new, importance)
    else:
        torch._foreach_mul_(new, 1.0 - decay)
        torch._foreach_add_(new, importance, alpha=decay)
    if clamp == "accumulated":
        torch._foreach_clamp_min_(new, 0.0)
    return new


def penalty(weights: Tensors, anchor: Tensors, importance: Tensors, c: float) -> Tensor:
    """Return the surrogate loss, differentiable with respect to the weights.

    Eq. 4: ``c * sum_k Omega_k * (theta_k - theta*_k)**2``.

    :param weights: theta; gradients flow to them.
    :param anchor: theta*, the weights at the end of the last task.
    :param importance: Omega.
    :param c: the strength.
    :return: a scalar on the device of the first entry.
    """
    return c * total(
        [
            omega * (theta - star).square()
            for theta, star, omega in zip(weights, anchor, importance, strict=True)
        ]
    )


def add_penalty_gradient(
    gradient: Tensors,
    weights: Tensors,
    anchor: Tensors,
    importance: Tensors,
    c: float | Tensor,
) -> list[Tensor]:
    """Return gradients with that of the surrogate loss added in closed form.

    The derivative of eq. 4: ``g_k + 2 * c * Omega_k * (theta_k - theta*_k)``.

    :param gradient: g.
    :param weights: theta.
    :param anchor: theta*, the weights at the end of the last task.
    :param importance: Omega.
    :param c: the strength, a number or a 0-dimensional tensor.
    :return: new tensors, no others are made on the way; no argument is changed.
    """
    sums = []
    for g, theta, star, omega in zip(gradient, weights, anchor, importance, strict=True):
        pull = torch.sub(theta, star)
        if isinstance(c, Tensor):
            pull.mul_(c)
        value = 2.0 if isinstance(c, Tensor) else 2.0 * c
        sums.append(torch.addcmul(g, pull, omega, value=value, out=pull))
    return sums


def total(tensors: Tensors) -> Tensor:
    """Return the sum over all entries of all tensors, a scalar on the device of the first."""
    device = tensors[0].device
    return sum((t.sum().to(device) for t in tensors[1:]), start=tensors[0].sum())


def any_nonzero(tensors: Sequence[Tensor]) -> bool:
    """Return whether an entry of a tensor is not zero, NaN included; waits for the device once.

    :param tensors: any number of them, empty ones included.
    """
    full = [tensor for tensor in tensors if tensor.numel()]
    if not full:
        return False
    largest = torch._foreach_norm(full, float("inf"))
    return bool(torch.stack([(norm != 0).to(full[0].device) for norm in largest]).any())
