"""What is trained: networks on random tensors, small enough to time and as large as users' own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor, nn
from torchvision.models import resnet18, vit_b_16


@dataclass(frozen=True)
class Workload:
    """A network and the shape of what it is trained on.

    :param name: its name in tables and files.
    :param make: makes the network.
    :param shape: the shape of one input.
    :param batch: samples in a batch.
    :param classes: how many classes the labels are drawn from.
    :param threads: PyTorch's threads, where it is always trained on as many.
    """

    name: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    batch: int
    classes: int
    threads: int | None = None

    def draw(self, device: str) -> tuple[nn.Module, Tensor, Tensor]:
        """Make the network and a batch, the same whenever it is asked for.

        :param device: where they lie.
        :return: the network; inputs, shape ``(batch, *shape)``; labels, shape ``(batch,)``.
        """
        torch.manual_seed(0)
        inputs = torch.randn(self.batch, *self.shape)
        labels = torch.randint(self.classes, (self.batch,))
        return self.make().to(device), inputs.to(device), labels.to(device)


class Bank(nn.Module):
    """Square matrices side by side: as many parameters in as many tensors as are asked for.

    Side by side, not one after the other, so that two thousand of them still pass a gradient on.

    :param parameters: about how many parameters in all.
    :param tensors: in how many tensors.
    """

    def __init__(self, parameters: int, tensors: int) -> None:
        super().__init__()
        width = self.width(parameters, tensors)
        self.layers = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(tensors))

    @staticmethod
    def width(parameters: int, tensors: int) -> int:
        """Tell the width of one matrix."""
        return max(1, round((parameters / tensors) ** 0.5))

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute the sum of all products.

        :param inputs: shape ``(batch, width)``.
        :return: the same shape.
        """
        first, *rest = self.layers
        total: Tensor = first(inputs)
        for layer in rest:
            total = total + layer(inputs)
        return total


_SAMPLES_OF_A_BANK = 8


def bank(name: str, parameters: int, tensors: int) -> Workload:
    """Describe a network whose step is little more than the traffic of its parameters.

    :param name: its name in tables and files.
    :param parameters: about how many parameters.
    :param tensors: in how many tensors.
    :return: the workload.
    """
    width = Bank.width(parameters, tensors)
    return Workload(
        name, lambda: Bank(parameters, tensors), (width,), _SAMPLES_OF_A_BANK, classes=width
    )


def mlp(*widths: int) -> nn.Module:
    """Make a perceptron with ReLU between its layers.

    :param widths: of the input, the hidden layers and the output.
    :return: the network.
    """
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def small_resnet() -> nn.Module:
    """Make torchvision's ResNet-18 for ten classes.

    With a first layer that does not shrink small pictures, a step computes ten times as much for
    the same parameters, and hardly shows what a method costs.
    """
    return resnet18(num_classes=10)


ON_CPU = (
    Workload("MLP 256, batch 64", lambda: mlp(784, 256, 256, 10), (784,), 64, 10),
    Workload("MLP 2000, batch 256", lambda: mlp(784, 2000, 2000, 10), (784,), 256, 10),
    Workload("ResNet-18, batch 32", small_resnet, (3, 32, 32), 32, 10),
    Workload("MLP 100, batch 32", lambda: mlp(64, 100, 100, 10), (64,), 32, 10, threads=1),
)
ON_GPU = (
    Workload("ResNet-18, batch 128", resnet18, (3, 224, 224), 128, 1000),
    Workload("ViT-B/16, batch 128", vit_b_16, (3, 224, 224), 128, 1000),
)


@dataclass(frozen=True)
class Extent:
    """How far the bench goes.

    :param workloads: networks for the step, the memory and Avalanche.
    :param parameters: numbers of parameters, growing, in ``few`` tensors.
    :param few: how many tensors those have.
    :param tensors: numbers of tensors, growing, with ``spread`` parameters in all.
    :param spread: how many parameters those have.
    :param life: what is trained on one task after the other.
    :param tasks: how many tasks that learns.
    """

    workloads: tuple[Workload, ...]
    parameters: tuple[int, ...] = (10**4, 10**5, 10**6, 10**7, 10**8)
    few: int = 4
    tensors: tuple[int, ...] = (4, 20, 100, 500, 2000)
    spread: int = 10**6
    life: Workload = field(default=ON_CPU[0])
    tasks: int = 100


def extent_on(device: str) -> Extent:
    """Choose how far to go on a device.

    :param device: ``"cpu"``, ``"cuda"`` or ``"cuda:<number>"``.
    :return: the workloads that are of a user's size there.
    """
    return Extent(ON_CPU if device == "cpu" else ON_GPU)
