"""Parameters that FSDP2 has sharded over several processes (``DTensor``), without importing them.

All that Synaptic Intelligence does in a step is elementwise: each process does it to its shard.
"""

from typing import Any

import torch
from torch import Tensor


def is_sharded(tensor: Tensor) -> bool:
    """Whether a tensor is a ``DTensor``, of which each process holds a part."""
    return hasattr(tensor, "device_mesh") and hasattr(tensor, "placements")


def local(tensor: Any) -> Tensor:  # noqa: ANN401
    """Return what this process holds of a tensor: its shard, not copied, or the tensor itself."""
    return tensor.to_local() if is_sharded(tensor) else tensor


def whole(tensor: Any) -> Tensor:  # noqa: ANN401
    """Return a tensor as one, gathered from all processes if it is sharded; they wait for it."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor


def placed_like(tensor: Any, parameter: Any, dtype: torch.dtype) -> Tensor:  # noqa: ANN401
    """Return a tensor on a parameter's device and sharded as that is; itself if it lies there."""
    placements = getattr(parameter, "placements", None)
    if getattr(tensor, "placements", None) != placements:
        tensor = whole(tensor)
        if placements is not None:
            from torch.distributed.tensor import distribute_tensor

            tensor = distribute_tensor(
                tensor.to(parameter.device), parameter.device_mesh, placements
            )
    return tensor.to(parameter.device, dtype)
