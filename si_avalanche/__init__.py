"""Synaptic Intelligence (Zenke, Poole & Ganguli 2017) for PyTorch and Avalanche."""

from si_avalanche.errors import (
    CallOrderError,
    ConfigurationError,
    ModelChangedError,
    NonFiniteError,
    ParameterSelectionError,
    SIError,
    StateDictError,
)
from si_avalanche.metrics import si_metrics
from si_avalanche.plugin import SIPlugin
from si_avalanche.strategy import SI
from si_avalanche.synaptic_intelligence import SynapticIntelligence

__version__ = "0.1.0"

__all__ = [
    "SI",
    "CallOrderError",
    "ConfigurationError",
    "ModelChangedError",
    "NonFiniteError",
    "ParameterSelectionError",
    "SIError",
    "SIPlugin",
    "StateDictError",
    "SynapticIntelligence",
    "si_metrics",
]
