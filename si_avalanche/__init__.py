"""Synaptic Intelligence (Zenke, Poole & Ganguli 2017) for PyTorch and Avalanche.

``SynapticIntelligence`` needs PyTorch alone: Avalanche, which takes seconds to import, is loaded
when anything else of the package (``SI``, ``SIPlugin``, ``resume_training``, ...) is asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from si_avalanche.errors import (
    CallOrderError,
    CheckpointError,
    ConfigurationError,
    ModelChangedError,
    NonFiniteError,
    ParameterSelectionError,
    SIError,
    StateDictError,
    UnknownOptionError,
)
from si_avalanche.synaptic_intelligence import SynapticIntelligence

if TYPE_CHECKING:
    from si_avalanche.checkpoint import resume_training, save_training
    from si_avalanche.metrics import si_metrics
    from si_avalanche.plugin import SIPlugin
    from si_avalanche.strategy import SI

__version__ = "0.1.0"

__all__ = [
    "SI",
    "CallOrderError",
    "CheckpointError",
    "ConfigurationError",
    "ModelChangedError",
    "NonFiniteError",
    "ParameterSelectionError",
    "SIError",
    "SIPlugin",
    "StateDictError",
    "SynapticIntelligence",
    "UnknownOptionError",
    "resume_training",
    "save_training",
    "si_metrics",
]

_NEEDS_AVALANCHE = {
    "SI": "strategy",
    "SIPlugin": "plugin",
    "resume_training": "checkpoint",
    "save_training": "checkpoint",
    "si_metrics": "metrics",
}


def __getattr__(name: str) -> object:
    if name not in _NEEDS_AVALANCHE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_NEEDS_AVALANCHE[name]}"), name)


def __dir__() -> list[str]:
    return __all__
