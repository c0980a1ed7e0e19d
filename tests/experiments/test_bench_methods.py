"""The peers' ways compute what they say they do; ours beside them."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel

from experiments.bench.method import Method
from experiments.bench.methods import METHODS, Ours
from experiments.bench.peers import XI, AvalanchesWay, Mammoth, ThreeCalls, VanDeVen

WITHOUT_SI = ("plain", "plain-fused", "ema", "least-traffic")
ACTING = [name for name in METHODS if name not in WITHOUT_SI]
ONE_PASS = ("one-pass", "one-pass-fused")
C, RATE = 3.0, 0.3


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2))


@dataclass
class Step:
    """All parameters in one row: before and after the step, and their gradients."""

    before: Tensor
    after: Tensor
    task: Tensor
    """The gradient of the task loss alone."""
    total: Tensor
    """The gradient that the optimiser got."""


class Training:
    """Training with a method, written out."""

    def __init__(self, name: str, c: float = C) -> None:
        self.model = network()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=RATE)
        self.method: Method = METHODS[name].make(self.model, self.optimizer, c)
        self._given = torch.empty(0)
        self.optimizer.register_step_pre_hook(self._look)
        self._noise = torch.Generator().manual_seed(1)

    def _look(self, *_: object) -> None:
        self._given = self._gradient()

    def flat(self) -> Tensor:
        return torch.cat([p.detach().reshape(-1) for p in self.model.parameters()])

    def _gradient(self) -> Tensor:
        parts = [p.grad.reshape(-1) for p in self.model.parameters() if p.grad is not None]
        return torch.cat(parts) if parts else torch.empty(0)

    def step(self) -> Step:
        inputs = torch.randn(6, 3, generator=self._noise)
        labels = torch.randint(2, (6,), generator=self._noise)
        self.model.zero_grad()
        functional.cross_entropy(self.model(inputs), labels).backward()
        task, before = self._gradient(), self.flat()
        self.optimizer.zero_grad()
        self.method.before_step()
        loss = functional.cross_entropy(self.model(inputs), labels)
        self.method.penalised(loss).backward()
        self.method.after_backward()
        self.optimizer.step()
        self.method.after_step()
        after = self.flat()
        # In one pass the optimiser is given nothing, and what moved tells.
        total = self._given if len(self._given) else (before - after) / RATE
        return Step(before, after, task, total)

    def task(self) -> list[Step]:
        return [self.step() for _ in range(4)]


def normalising(model: nn.Module) -> Tensor:
    """Tell which entries of the row belong to a normalisation layer."""
    layers = [model.get_submodule(n.rpartition(".")[0]) for n, _ in model.named_parameters()]
    pairs = zip(layers, model.parameters(), strict=True)
    return torch.cat(
        [torch.full((p.numel(),), isinstance(each, nn.BatchNorm1d)) for each, p in pairs]
    )


def path_of(steps: list[Step], *, total: bool) -> Tensor:
    terms = [-(s.total if total else s.task) * (s.after - s.before) for s in steps]
    return torch.stack(terms).sum(0)


def importance_of(name: str, training: Training, steps: list[Step]) -> Tensor:
    """Compute what the method's importance is after its first task, from eq. 3 and 5."""
    change = steps[-1].after - steps[0].before
    # Of the first task the total gradient is the task's.
    path = path_of(steps, total=False)
    if name == "avalanche":
        capped = (path / (change**2 + 1e-7)).clamp(max=1e-3)
        return capped.masked_fill(normalising(training.model), 0.0)
    if name.startswith("ours") or name in ONE_PASS:
        return (path / (change**2 + XI)).clamp(min=0.0)
    return path / (change**2 + XI)


@pytest.fixture(autouse=True)
def _in_double() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.mark.parametrize("name", ACTING)
def test_in_the_second_task_the_gradient_has_the_part_of_eq_4(name: str) -> None:
    training = Training(name)
    first = training.task()
    training.method.end_task()
    omega = importance_of(name, training, first)
    assert omega.abs().max() > 0
    training.step()
    step = training.step()
    expected = step.task + 2 * C * omega * (step.before - first[-1].after)
    torch.testing.assert_close(step.total, expected)
    assert not torch.equal(step.total, step.task)


def test_mammoth_clips_what_the_optimiser_gets_and_not_its_path_integral() -> None:
    training = Training("mammoth", c=1e6)
    training.task()
    training.method.end_task()
    training.step()
    method = training.method
    assert isinstance(method, Mammoth)
    before = method.small_omega.clone()
    step = training.step()
    assert step.total.abs().max() == 1.0
    torch.testing.assert_close(method.small_omega - before, path_of([step], total=False))


def joined(tensors: dict[str, Tensor]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors.values()])


@pytest.mark.parametrize("name", ["three-calls", "van-de-ven", "mammoth", "avalanche"])
def test_the_path_integral_of_the_second_task_is_that_of_the_peers_gradient(name: str) -> None:
    training = Training(name)
    training.task()
    training.method.end_task()
    steps = training.task()
    expected = path_of(steps, total=name != "mammoth")
    method = training.method
    if isinstance(method, ThreeCalls):
        found = joined(method.running_sum)
    elif isinstance(method, VanDeVen):
        found = joined(method.path)
    elif isinstance(method, Mammoth):
        found = method.small_omega
    else:
        assert isinstance(method, AvalanchesWay)
        found = -joined(method.held["path"])
        expected = expected[~normalising(training.model)]
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", METHODS)
def test_without_strength_no_method_touches_the_training(name: str) -> None:
    training = Training(name, c=0.0)
    for _ in range(2):
        for step in training.task():
            assert step.task.abs().max() < 1.0
            # In one pass it is computed back from what moved.
            close = 1e-12 if name in ONE_PASS else 0.0
            torch.testing.assert_close(step.total, step.task, rtol=close, atol=close)
        training.method.end_task()


def test_importance_adds_up_over_tasks() -> None:
    training = Training("three-calls")
    parts = []
    for _ in range(2):
        steps = training.task()
        training.method.end_task()
        change = steps[-1].after - steps[0].before
        parts.append(path_of(steps, total=True) / (change**2 + XI))
    assert isinstance(training.method, ThreeCalls)
    torch.testing.assert_close(joined(training.method.omega), parts[0] + parts[1])


def test_the_average_of_pytorch_follows_the_weights() -> None:
    training = Training("ema")
    first, *others = training.task()
    expected = first.after
    for step in others:
        expected = torch.lerp(expected, step.after, 1 - 0.999)
    average = next(v for v in vars(training.method).values() if isinstance(v, AveragedModel))
    found = torch.cat([p.detach().reshape(-1) for p in average.module.parameters()])
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", ["ours", "one-pass", "ours-three-calls"])
def test_our_own_way_is_the_package_itself(name: str) -> None:
    training = Training(name)
    training.task()
    training.method.end_task()
    assert isinstance(training.method, Ours)
    assert training.method.si.tasks == 1
    assert training.method.si.total_importance() > 0
