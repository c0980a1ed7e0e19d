"""Parameters that FSDP2 has sharded over several processes (``DTensor``), without importing them.

All that Synaptic Intelligence does in a step is elementwise: each process does it to its shard.
What it decides, it decides like the others.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, distributed


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

            place = parameter.device_mesh, placements
            tensor = distribute_tensor(tensor.to(parameter.device), *place)
    return tensor.to(parameter.device, dtype)


def anywhere(flags: Sequence[bool], tensors: Sequence[Any]) -> list[bool]:
    """Return which flags are true in one of the processes that share the tensors they belong to."""
    found = list(flags)
    for places in places_alike(tensors):
        if is_sharded(like := tensors[places[0]]):
            mesh = like.device_mesh
            votes = torch.tensor([float(found[k]) for k in places], device=mesh.device_type)
            for group in mesh.get_all_groups():
                distributed.all_reduce(votes, distributed.ReduceOp.MAX, group)
            for place, vote in zip(places, votes.tolist(), strict=True):
                found[place] = bool(vote)
    return found


def summed(value: Tensor, tensor: Any) -> Tensor:  # noqa: ANN401
    """Return the sum of what all processes made of their shards; derivatives go only there."""
    if not is_sharded(tensor):
        return value
    everywhere = value.detach().clone()
    for dimension, placement in enumerate(tensor.placements):
        if not placement.is_replicate():
            distributed.all_reduce(everywhere, group=tensor.device_mesh.get_group(dimension))
    return everywhere + (value - value.detach())


def places_alike(tensors: Sequence[Any]) -> list[list[int]]:
    """Return the places of tensors in groups that are sharded alike."""
    groups: dict[Any, list[int]] = {}
    for place, tensor in enumerate(tensors):
        key = (tensor.device_mesh, tensor.placements) if is_sharded(tensor) else None
        groups.setdefault(key, []).append(place)
    return list(groups.values())
