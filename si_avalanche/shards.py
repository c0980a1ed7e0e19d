"""Parameters that FSDP2 has sharded over several processes (``DTensor``), without importing them.

All that Synaptic Intelligence does in a step is elementwise: each process does it to its shard.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, distributed


def is_sharded(tensor: Tensor) -> bool:
    """Whether a tensor is a ``DTensor``, of which each process holds a part."""
    return hasattr(tensor, "device_mesh") and hasattr(tensor, "placements")


def local(tensor: Any) -> Tensor:
    """Return what this process holds of a tensor: a view of its shard, or the tensor itself."""
    return tensor.to_local() if is_sharded(tensor) else tensor


def whole(tensor: Any) -> Tensor:
    """Return a tensor as one, gathered from all processes if it is sharded; they wait for it."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor


def anywhere(flags: Sequence[bool], tensors: Sequence[Any]) -> list[bool]:
    """Return which flags are true in one of the processes that share the tensor they belong to.

    So these decide alike; they wait for each other.

    :param flags: what this process has found, one for each tensor.
    :param tensors: sharded or not.
    """
    found = list(flags)
    for places in places_alike(tensors):
        if not is_sharded(like := tensors[places[0]]):
            continue
        mesh = like.device_mesh
        votes = torch.tensor([float(found[k]) for k in places], device=mesh.device_type)
        for group in mesh.get_all_groups():
            distributed.all_reduce(votes, distributed.ReduceOp.MAX, group)
        for place, vote in zip(places, votes.tolist(), strict=True):
            found[place] = bool(vote)
    return found


def summed(value: Tensor, tensor: Any) -> Tensor:
    """Return the sum of what all processes made of their shards; they wait for each other.

    :param value: what this process made of its own, or of the whole; derivatives go only there.
    :param tensor: how it was shared, or a tensor that is not.
    """
    if not is_sharded(tensor):
        return value
    everywhere = value.detach().clone()
    for dimension, placement in enumerate(tensor.placements):
        if not placement.is_replicate():
            distributed.all_reduce(everywhere, group=tensor.device_mesh.get_group(dimension))
    return everywhere + (value - value.detach())


def places_alike(tensors: Sequence[Any]) -> list[list[int]]:
    """Return the places of tensors in groups that are shared alike."""
    groups: dict[Any, list[int]] = {}
    for place, tensor in enumerate(tensors):
        key = (tensor.device_mesh, tensor.placements) if is_sharded(tensor) else None
        groups.setdefault(key, []).append(place)
    return list(groups.values())


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
