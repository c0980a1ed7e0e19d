"""Parameters that FSDP2 has sharded over several processes (``DTensor``), without importing them.

All that Synaptic Intelligence does in a step is elementwise: each process does it to its shard.
"""

from typing import Any

import torch
from torch import Tensor


def is_sharded(tensor: Tensor) -> bool:
    """Whether a tensor is a ``DTensor``, of which each process holds a part."""
    return hasattr(tensor, "device_mesh") and hasattr(tensor, "placements")


def local(tensor: Any) -> Tensor:
    """Return what this process holds of a tensor: a view of its shard, or the tensor itself."""
    return tensor.to_local() if is_sharded(tensor) else tensor


def whole(tensor: Any) -> Tensor:
    """Return a tensor as one, gathered from all processes if it is sharded; they wait for it."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor


def placed_like(tensor: Tensor, parameter: Any, dtype: torch.dtype) -> Tensor:
    """Return a tensor on a parameter's device, sharded as that is.

    :param tensor: of the parameter's shape, sharded or not.
    :param parameter: sharded or not.
    :param dtype: of the result.
    :return: the tensor itself if it lies there already.
    """
    if is_sharded(tensor) != is_sharded(parameter) or (
        is_sharded(parameter) and tensor.placements != parameter.placements  # type: ignore[attr-defined]
    ):
        tensor = whole(tensor)
        if is_sharded(parameter):
            from torch.distributed.tensor import distribute_tensor

            at = parameter.device_mesh, parameter.placements
            tensor = distribute_tensor(tensor.to(parameter.device), *at)
    return tensor.to(parameter.device, dtype)
