"""A bare loop with SI written out by hand, to hold other people's loops against, and its data."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer
from torch.utils.data import DataLoader, TensorDataset

Batch = tuple[Tensor, Tensor]


@dataclass
class Told:
    """What there is to see of a training, by parameter name.

    :param paths: the path integral at the end of each task.
    :param importance: after the last task.
    :param weights: after the last task.
    :param gradients: ``p.grad`` right after the last step of each task.
    """

    paths: list[dict[str, Tensor]] = field(default_factory=list)
    importance: dict[str, Tensor] = field(default_factory=dict)
    weights: dict[str, Tensor] = field(default_factory=dict)
    gradients: list[dict[str, Tensor]] = field(default_factory=list)

    def end_task(self, si: Any, model: nn.Module) -> None:
        """Note what SI has, and let it consolidate the task."""
        self.paths.append(copies(si.path_integral))
        si.update_omega()
        self.importance = copies(si.importance)
        self.weights = copies(dict(model.named_parameters()))

    def note_gradients(self, model: nn.Module, task: int) -> None:
        """Note the gradients as a step leaves them, in place of those noted in this task."""
        found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        self.gradients[task:] = [copies(found)]


def train_by_hand(
    model: nn.Module,
    tasks: Sequence[Sequence[Any]],
    make_optimizer: Callable[[nn.Module], Optimizer],
    loss_of: Callable[[nn.Module, Any], Tensor],
    *,
    c: float,
    xi: float = 0.1,
    accumulate: int = 1,
    max_norm: float | None = None,
    raw: bool = False,
) -> Told:
    """Train on one task after the other, a pass over each, with eq. 3, 4 and 5 as printed.

    :param raw: integrate the gradient from before it is clipped.
    """
    live = {name: p for name, p in model.named_parameters() if p.requires_grad}
    importance = {name: torch.zeros_like(p) for name, p in live.items()}
    anchor, told = copies(live), Told()
    for number, batches in enumerate(tasks):
        optimizer = make_optimizer(model)
        path = {name: torch.zeros_like(p) for name, p in live.items()}
        for first in range(0, len(batches), accumulate):
            model.zero_grad()
            for batch in batches[first : first + accumulate]:
                (loss_of(model, batch) / accumulate).backward()
            integrand = gradients_of(live)
            if max_norm is not None:
                nn.utils.clip_grad_norm_(list(live.values()), max_norm)
            told.note_gradients(model, number)
            before, given = copies(live), gradients_of(live)
            for name, p in live.items():
                if p.grad is not None:
                    p.grad += 2 * c * importance[name] * (before[name] - anchor[name])
            optimizer.step()
            for name, gradient in (integrand if raw else given).items():
                path[name] -= gradient * (live[name].detach() - before[name])
        for name, p in live.items():
            new = path[name] / ((p.detach() - anchor[name]) ** 2 + xi)
            importance[name] = (importance[name] + new).clamp(min=0)
        anchor = copies(live)
        told.paths.append(path)
    told.importance, told.weights = importance, copies(dict(model.named_parameters()))
    return told


def assert_same(one: Told, other: Told, rtol: float = 1e-9) -> None:
    """Compare two trainings of two tasks, in which each weight that is told of has learnt."""
    assert len(one.paths) == len(other.paths) == len(one.gradients) == len(other.gradients) == 2
    pairs = [
        *zip(one.paths, other.paths, strict=True),
        *zip(one.gradients, other.gradients, strict=True),
        (one.importance, other.importance),
        (one.weights, other.weights),
    ]
    for mine, its in pairs:
        torch.testing.assert_close(mine, its, rtol=rtol, atol=1e-12)
    assert_something_learnt(one.importance)


def assert_something_learnt(importance: dict[str, Tensor]) -> None:
    """There is importance, and it is finite everywhere."""
    assert all(bool(omega.isfinite().all()) for omega in importance.values())
    assert sum(float(omega.sum()) for omega in importance.values()) > 0


def differs(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether some weight is another."""
    return any(not torch.allclose(one[name], other[name], rtol=1e-6) for name in one)


def copies(tensors: dict[str, Any]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def gradients_of(parameters: dict[str, Any]) -> dict[str, Tensor]:
    return copies({name: p.grad for name, p in parameters.items() if p.grad is not None})


# Something to learn


def small_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 2))


def points(task: int, size: int = 16, dtype: torch.dtype = torch.float64) -> TensorDataset:
    """Random points, two classes, told by one coordinate, another one in each task."""
    x = torch.randn(size, 8, generator=torch.Generator().manual_seed(task), dtype=dtype)
    return TensorDataset(x, (x[:, task] > 0).long())


def loaders(dtype: torch.dtype = torch.float64) -> list[DataLoader[Any]]:
    """Two tasks of four batches, always in the same order."""
    return [DataLoader(points(task, dtype=dtype), batch_size=4) for task in range(2)]


def cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    return functional.cross_entropy(model(batch[0]), batch[1])


def sentences(task: int, size: int = 16) -> Tensor:
    """Random words."""
    return torch.randint(0, 32, (size, 6), generator=torch.Generator().manual_seed(task))


def code_in_section(title: str) -> str:
    """The one block of code below a title of docs/loops.md."""
    page = (Path(__file__).parents[2] / "docs" / "loops.md").read_text()
    section = page.split(f"\n## {title}\n")[1].split("\n## ")[0]
    (block,) = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
    return str(block)
