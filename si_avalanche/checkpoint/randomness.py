"""The random states that a training draws from."""

import random
import warnings
from typing import Any

import numpy as np
import torch

from si_avalanche.checkpoint.document import Value
from si_avalanche.checkpoint.nodes import malformed

_KEYS = {"torch", "cuda", "numpy", "python"}


def random_states() -> dict[str, Any]:
    """Return copies of the states of PyTorch (CPU and all CUDA devices), NumPy and ``random``."""
    # Asking for CUDA states would start CUDA; where it has not started nothing was drawn.
    started = torch.cuda.is_initialized()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if started else [],
        "numpy": np.random.get_state(),
        "python": random.getstate(),
    }


def check_random_states(states: Value) -> None:
    """Refuse what cannot be put back, by trying it on generators of our own.

    :raises CheckpointError: if a state is malformed.
    """
    if type(states) is not dict or states.keys() != _KEYS or type(states["cuda"]) is not list:
        raise malformed("random", f"just the states {', '.join(sorted(_KEYS))} were expected")
    try:
        torch.Generator().set_state(states["torch"])
        np.random.RandomState().set_state(states["numpy"])
        random.Random().setstate(states["python"])
        devices = torch.cuda.device_count() if states["cuda"] else 0
        for index, state in enumerate(states["cuda"][:devices]):
            torch.Generator(f"cuda:{index}").set_state(state)
    except Exception as error:
        raise malformed("random", str(error)) from error


def set_random_states(states: dict[str, Any]) -> None:
    """Put states back that :func:`random_states` gave.

    States of CUDA devices that this machine lacks are left out with a warning.
    """
    torch.set_rng_state(states["torch"])
    np.random.set_state(states["numpy"])
    random.setstate(states["python"])
    devices = torch.cuda.device_count() if states["cuda"] else 0
    if devices < len(states["cuda"]):
        warnings.warn(
            f"The checkpoint holds random states of {len(states['cuda'])} CUDA devices, this "
            f"machine has {devices}: what the others would draw cannot go on as before.",
            stacklevel=2,
        )
    for index, state in enumerate(states["cuda"][:devices]):
        torch.cuda.set_rng_state(state, index)
