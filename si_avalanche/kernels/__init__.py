"""The arithmetic of a step, in forms that give the same numbers at different speed."""

from si_avalanche.kernels.store import Kernels

__all__ = ["Kernels"]
