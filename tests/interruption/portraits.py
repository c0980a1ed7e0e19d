"""What an object consists of, all through, to see that nothing of it has changed."""

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from tests.interruption.trainings import bits

_ATOMS = (str, int, float, bool, bytes, type(None), torch.dtype, torch.device, torch.Size)


def portrait(value: Any, seen: dict[int, int] | None = None) -> Any:
    """A copy as nested tuples, with the identity of every object that can change."""
    seen = {} if seen is None else seen
    if isinstance(value, _ATOMS):
        return type(value).__name__, repr(value)
    if id(value) in seen:
        return "again", seen[id(value)]
    seen[id(value)] = len(seen)
    parts: list[Any] = []
    if isinstance(value, Tensor):
        flags = (str(value.dtype), tuple(value.shape), value.requires_grad)
        parts.append((flags, bits(value).numpy().tobytes()))
    elif isinstance(value, np.ndarray):
        parts.append(value.tobytes())
    elif isinstance(value, torch.Generator):
        parts.append(value.get_state().numpy().tobytes())
    elif isinstance(value, dict):
        parts += [(portrait(k, seen), portrait(v, seen)) for k, v in value.items()]
    elif isinstance(value, list | tuple | set | frozenset):
        parts += [portrait(item, seen) for item in value]
    if not isinstance(value, type | Dataset) and hasattr(value, "__dict__"):
        parts += [(name, portrait(part, seen)) for name, part in vars(value).items()]
    return type(value).__name__, id(value), tuple(parts)


def whole(strategy: Any) -> Any:
    """The portrait of a strategy and of everything random."""
    drawn = [np.asarray(part).tolist() for part in np.random.get_state()]
    states = (torch.get_rng_state().tolist(), random.getstate(), drawn)
    return portrait(strategy), states
