"""What one pass compiles and when, what it refuses, and what happens without a compiler."""

import logging
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from si_avalanche import ConfigurationError, SynapticIntelligence
from tests.cases import Heads, task_loss
from tests.exactness.optimizers import Scaling
from tests.exactness.steps import consolidated, go, loss_of, snapshot


class OwnAdam(Adam):
    """A subclass, whose arithmetic may be another."""


REFUSED: list[tuple[Any, dict[str, Any], str]] = [
    (RMSprop, {}, "only Adam, AdamW and SGD of torch.optim"),
    (OwnAdam, {}, "steps of this OwnAdam can't be one pass: only Adam, AdamW and SGD"),
    (Scaling, {}, "only Adam, AdamW and SGD"),
    (Adam, {"amsgrad": True}, "it has amsgrad=True"),
    (AdamW, {"amsgrad": True}, "it has amsgrad=True"),
    (SGD, {"differentiable": True}, "it has differentiable=True"),
    (Adam, {"differentiable": True}, "it has differentiable=True"),
]


@pytest.mark.parametrize(
    ("kind", "more", "reason"), REFUSED, ids=lambda x: getattr(x, "__name__", x)
)
def test_what_cannot_be_one_pass_is_refused_with_the_reason_and_the_remedy(
    network: nn.Module, kind: Any, more: dict[str, Any], reason: str
) -> None:
    si = SynapticIntelligence(network)
    optimizer: Optimizer = kind(network.parameters(), lr=0.01, **more)
    with pytest.raises(ConfigurationError, match=f"{reason}.*Leave fused=True out"):
        si.attach(optimizer, fused=True)
    assert not optimizer._optimizer_step_pre_hooks
    si.attach(optimizer)


def test_an_adamw_of_an_older_pytorch_is_refused_because_its_weight_decay_would_be_another(
    network: nn.Module,
) -> None:
    si, optimizer = SynapticIntelligence(network), AdamW(network.parameters(), lr=0.01)
    del optimizer.param_groups[0]["decoupled_weight_decay"]
    with pytest.raises(ConfigurationError, match="in this version of PyTorch"):
        si.attach(optimizer, fused=True)


def test_a_switch_set_after_attach_is_refused_before_anything_moves(network: nn.Module) -> None:
    si = consolidated(network)
    optimizer = Adam(network.parameters(), lr=0.01)
    si.attach(optimizer, fused=True)
    go(network, optimizer)
    optimizer.zero_grad()
    loss_of(network).backward()
    optimizer.param_groups[0]["amsgrad"] = True
    before = [*snapshot(si), *(p.detach().clone() for p in network.parameters())]
    gradients = [p.grad for p in network.parameters()]
    with pytest.raises(ConfigurationError, match="amsgrad=True"):
        optimizer.step()
    after = [*snapshot(si), *network.parameters()]
    assert all(map(torch.equal, before, after))
    assert [p.grad for p in network.parameters()] == gradients


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bit_weights_are_refused_by_name(dtype: torch.dtype) -> None:
    network = nn.Linear(3, 2).to(dtype)
    si = SynapticIntelligence(network)
    optimizer = SGD(network.parameters(), lr=0.01)
    si.attach(optimizer, fused=True)
    network(torch.ones(1, 3, dtype=dtype)).sum().backward()
    before = network.weight.detach().clone()
    with pytest.raises(ConfigurationError, match=r"'weight' is torch.*16, not float32 or float64"):
        optimizer.step()
    assert torch.equal(network.weight, before)
    assert network.weight.grad is not None


class Compilations:
    """Counts the graphs that ``torch.compile`` has made."""

    def __init__(self) -> None:
        self.before = self.so_far()

    @staticmethod
    def so_far() -> int:
        from torch._dynamo.utils import counters

        return int(counters["stats"]["unique_graphs"])

    def __int__(self) -> int:
        return self.so_far() - self.before


def steps(model: nn.Module, optimizer: Optimizer, task: int, count: int = 2) -> None:
    for step in range(count):
        optimizer.zero_grad()
        task_loss(model, task, step).backward()
        optimizer.step()


def test_a_new_strength_rate_group_head_task_or_optimiser_compiles_nothing_anew() -> None:
    torch.manual_seed(0)
    model = Heads().double()
    si = SynapticIntelligence(model)
    optimizer = Adam(model.trunk.parameters(), lr=0.01)
    si.attach(optimizer, fused=True)
    steps(model, optimizer, task=0)
    compilations = Compilations()
    for task in range(3):
        si.c = 0.5 + task
        optimizer.add_param_group({"params": list(model.heads[task].parameters()), "lr": 0.1})
        optimizer.param_groups[0]["weight_decay"] = 0.1 * task
        for rate in (0.01, 0.003):
            optimizer.param_groups[0]["lr"] = rate
            steps(model, optimizer, task)
        si.update_omega()
    model.heads.append(nn.Linear(5, 3).double())
    model.heads[0] = wider(model.heads[0])
    other = AdamW(model.parameters(), lr=0.02, betas=(0.5, 0.9))
    si.detach()
    si.attach(other, fused=True)
    for task in (3, 0, 1):
        steps(model, other, task)
    assert int(compilations) == 0
    assert si.tasks == 3


def wider(head: Any) -> nn.Module:
    """The same head with a fourth unit."""
    new = nn.Linear(5, 4).double()
    with torch.no_grad():
        new.weight[:3], new.bias[:3] = head.weight, head.bias
    return new


def test_many_parameters_of_many_sizes_compile_nothing_anew() -> None:
    torch.manual_seed(0)
    small = nn.Linear(3, 2).double()
    layers = [nn.Linear(n + 3, n + 4) for n in range(12)]
    large = nn.Sequential(*layers).double()
    compilations = Compilations()
    found = []
    for model in (small, large):
        si = SynapticIntelligence(model)
        optimizer = SGD(model.parameters(), lr=0.01, momentum=0.9)
        si.attach(optimizer, fused=True)
        go(model, optimizer)
        found.append(int(compilations))
        assert all(path.isfinite().all() for path in si.running_sum.values())
    assert found[1] == found[0] <= 1


def test_without_fused_nothing_is_compiled(network: nn.Module) -> None:
    compilations = Compilations()
    si = SynapticIntelligence(network)
    optimizer = Adam(network.parameters(), lr=0.01)
    si.attach(optimizer)
    go(network, optimizer)
    si.update_omega()
    go(network, optimizer)
    assert int(compilations) == 0


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a compiler, for a process that has not compiled yet."""
    from si_avalanche import compiler

    def fail(*_args: object, **_kwargs: object) -> None:
        raise RuntimeError("there is no compiler here")

    compiler._compiled.cache_clear()
    monkeypatch.setattr(torch, "compile", fail)
    monkeypatch.setattr(compiler._Compiler, "works", True)


@pytest.mark.usefixtures("no_compiler")
@pytest.mark.parametrize("kind", [SGD, Adam])
def test_without_a_compiler_it_is_told_once_and_hooks_give_the_same_numbers(
    kind: Any, caplog: pytest.LogCaptureFixture
) -> None:
    found = []
    with caplog.at_level(logging.WARNING, "si_avalanche"):
        for fused in (True, True, False):
            torch.manual_seed(0)
            network = nn.Linear(3, 2)
            si = SynapticIntelligence(network, c=5.0)
            optimizer = kind(network.parameters(), lr=0.05)
            si.attach(optimizer, fused=fused)
            for _ in range(2):
                go(network, optimizer)
                si.update_omega()
            go(network, optimizer)
            found.append([*snapshot(si), *network.parameters()])
    (message,) = caplog.messages
    assert "RuntimeError" in message
    assert "by hooks" in message
    for one, two, three in zip(*found, strict=True):
        assert torch.equal(one, two)
        assert torch.equal(one, three)
