"""Which form of the arithmetic a lane gets."""

from si_avalanche.kernels.compiled import CompiledKernel
from si_avalanche.kernels.foreach import ForeachKernel, Kernel
from si_avalanche.kernels.lane import Lane
from si_avalanche.settings import KernelChoice

_WORTHWHILE = 2**18
"""Weights from which on a compiled step on the CPU makes up for being compiled."""


def make_kernel(lane: Lane, choice: KernelChoice) -> Kernel:
    """Choose the form in which the arithmetic of a lane is done.

    It depends on device and size alone, so that a training that is resumed chooses the same.

    :param lane: the parameters.
    :param choice: ``"foreach"`` or ``"compiled"``; ``"auto"`` compiles large lanes on the CPU. On
        other devices PyTorch's foreach functions are fused already.
    :return: a kernel.
    """
    on_cpu = all(weights.device.type == "cpu" for weights in lane.weights)
    pays = on_cpu and sum(lane.sizes) >= _WORTHWHILE
    if choice == "compiled" or (choice == "auto" and pays):
        return CompiledKernel(lane)
    return ForeachKernel(lane)
