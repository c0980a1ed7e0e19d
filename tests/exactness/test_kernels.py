"""Every form of a step gives what the plain formulas give, in no more memory, without waiting."""

import copy
import io
import logging
import pickle
import weakref
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer
from torch.utils._python_dispatch import TorchDispatchMode

from si_avalanche import SynapticIntelligence
from si_avalanche.kernels import compiler
from si_avalanche.kernels.compiled import CompiledKernel
from si_avalanche.kernels.foreach import ForeachKernel, Kernel
from si_avalanche.kernels.lane import Lane, groups

KERNELS = [ForeachKernel, CompiledKernel]
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-13, torch.bfloat16: 1e-2}

# Two tensors that are worth compiling, and what goes along or does not fit: small and empty ones,
# one of a single entry, a transposed one, and one that has gaps.
SHAPES: list[tuple[int, ...]] = [(130, 70), (9000,), (5,), (1,), (0,), (), (3, 4, 2)]


def random_lane(dtype: torch.dtype, shapes: list[tuple[int, ...]], seed: int = 0) -> Lane:
    noise = torch.Generator().manual_seed(seed)
    state = torch.promote_types(dtype, torch.float32)

    def tensors(dtype: torch.dtype) -> list[Tensor]:
        return [torch.randn(shape, generator=noise).to(dtype) for shape in shapes]

    weights, before, path, anchor = tensors(dtype), tensors(state), tensors(state), tensors(state)
    return Lane(weights, before, path, anchor, [t.abs() for t in tensors(state)])


def laid_out(lane: Lane) -> Lane:
    """The same numbers, some of them in another order in memory or with gaps between them."""

    def other(tensor: Tensor) -> Tensor:
        if tensor.dim() == 2:
            return tensor.t().contiguous().t()
        return torch.stack([tensor, tensor], -1)[..., 0] if tensor.dim() == 3 else tensor

    columns = (lane.weights, lane.before, lane.path_integral, lane.anchor, lane.importance)
    return Lane(*([other(tensor) for tensor in column] for column in columns))


def copied(lane: Lane) -> Lane:
    columns = (lane.weights, lane.before, lane.path_integral, lane.anchor, lane.importance)
    return Lane(*([tensor.clone() for tensor in column] for column in columns))


def step_along(gradient: Tensor) -> Tensor:
    """What an optimiser takes off that leaves every third weight alone."""
    moves = torch.arange(gradient.numel()).reshape(gradient.shape) % 3 != 0
    return 0.01 * gradient * moves


def move(lane: Lane, gradients: list[Tensor]) -> None:
    for weights, gradient in zip(lane.weights, gradients, strict=True):
        weights.sub_(step_along(gradient))


def step_by_formulas(
    lane: Lane, gradients: list[Tensor], c: float, taken_off: float | None
) -> tuple[list[Tensor], list[Tensor]]:
    """Gradients with the penalty's, and the path integral after the step: eq. 3 and 4."""
    total, path = [], []
    rows = zip(
        lane.weights, lane.anchor, lane.importance, lane.path_integral, gradients, strict=True
    )
    for theta, star, omega, small, g in rows:
        start = theta.double().clone()
        pull = 2 * c * omega.double() * (start - star.double())
        total.append((g.double() + pull).to(g.dtype))
        after = theta - step_along(total[-1])
        integrand = total[-1].double()
        if taken_off is not None:
            integrand = integrand - pull * taken_off / c
        path.append(small.double() - integrand * (after.double() - start))
    return total, path


@pytest.mark.parametrize("taken_off", [0.7, None])
@pytest.mark.parametrize("layout", [copied, laid_out])
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("kind", KERNELS)
@torch.no_grad()
def test_a_step_is_that_of_the_formulas(
    kind: type[Any], dtype: torch.dtype, layout: Any, taken_off: float | None
) -> None:
    lane = layout(random_lane(dtype, SHAPES))
    gradients = [torch.randn_like(weights) for weights in lane.weights]
    total, path = step_by_formulas(copied(lane), [g.clone() for g in gradients], 0.7, taken_off)
    kernel: Kernel = kind(lane)
    kernel.begin(gradients, 0.7)
    for one, other in zip(gradients, total, strict=True):
        torch.testing.assert_close(one, other, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    move(lane, gradients)
    kernel.end(gradients, taken_off, moved_only=False)
    for one, other in zip(lane.path_integral, path, strict=True):
        tolerance = TOLERANCE[dtype]
        torch.testing.assert_close(one.double(), other, rtol=tolerance, atol=tolerance)


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40_000), min_size=1, max_size=15),
    c=st.floats(1e-3, 1e3),
    seed=st.integers(0, 100),
)
@torch.no_grad()
def test_a_compiled_step_is_a_foreach_step_for_any_sizes(
    sizes: list[int], c: float, seed: int
) -> None:
    plain = random_lane(torch.float64, [(n,) for n in sizes], seed)
    fast = copied(plain)
    gradients = [torch.randn_like(weights) for weights in plain.weights]
    others = [gradient.clone() for gradient in gradients]
    for lane, mine, kind in ((plain, gradients, ForeachKernel), (fast, others, CompiledKernel)):
        kernel: Kernel = kind(lane)
        for _ in range(2):
            kernel.begin(mine, c)
            move(lane, mine)
            kernel.end(mine, c, moved_only=False)
    # A hundredfold c makes a hundredfold of the penalty's part, which is rounded and taken off.
    for one, other in zip(fast.path_integral, plain.path_integral, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9 * c**2)
    for one, other in zip(others, gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KERNELS)
@torch.no_grad()
def test_where_a_weight_did_not_move_an_infinite_gradient_adds_nothing(kind: type[Any]) -> None:
    lane = random_lane(torch.float32, [(9000,)])
    kernel: Kernel = kind(lane)
    gradients = [torch.randn(9000)]
    kernel.begin(gradients, 0.5)
    gradients[0].fill_(float("inf"))
    path = lane.path_integral[0].clone()
    kernel.end(gradients, 0.5, moved_only=True)
    assert torch.equal(lane.path_integral[0], path)


@given(st.lists(st.integers(0, 50_000), min_size=1, max_size=30))
def test_no_group_is_larger_than_the_largest_tensor_if_that_is_large(sizes: list[int]) -> None:
    parts = groups(sizes)
    assert [place for part in parts for place in part] == list(range(len(sizes)))
    filled = [sum(sizes[place] for place in part) for part in parts]
    assert max(filled) <= max([8192, *sizes])
    assert all(one + other > max(sizes) for one, other in pairwise(filled))


def network(width: int = 120) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Linear(20, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 3))


def train(model: nn.Module, si: SynapticIntelligence, optimizer: Optimizer, steps: int = 3) -> None:
    for k in range(steps):
        noise = torch.Generator().manual_seed(k)
        inputs = torch.randn(8, 20, generator=noise)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), torch.arange(8) % 3).backward()
        si.add_penalty_gradient()
        optimizer.step()
        si.update_running_sum()


def protected(kernel: Any, **options: Any) -> tuple[nn.Sequential, SynapticIntelligence, Optimizer]:
    """A network in the middle of its second task."""
    model = network()
    si = SynapticIntelligence(model, c=10.0, kernel=kernel, **options)
    optimizer = SGD(model.parameters(), lr=0.05)
    train(model, si, optimizer)
    si.update_omega()
    train(model, si, optimizer)
    return model, si, optimizer


@pytest.mark.parametrize("gradient", ["task", "total"])
def test_the_choice_of_a_kernel_does_not_show_in_the_state(gradient: Any) -> None:
    _, plain, _ = protected("foreach", gradient=gradient)
    _, fast, _ = protected("compiled", gradient=gradient)
    for name in plain.omega:
        assert plain.running_sum[name].any()
        torch.testing.assert_close(fast.running_sum[name], plain.running_sum[name])
        torch.testing.assert_close(fast.omega[name], plain.omega[name])


@pytest.mark.parametrize("kernel", ["foreach", "compiled"])
@pytest.mark.parametrize("way", ["deepcopy", "torch.save", "pickle"])
def test_a_copy_goes_on_by_itself(kernel: Any, way: str) -> None:
    model, si, optimizer = protected(kernel)
    if way == "deepcopy":
        twin, twin_si = copy.deepcopy((model, si))
    elif way == "pickle":
        # Views and what they are views of come out of it as tensors of their own.
        twin, twin_si = pickle.loads(pickle.dumps((model, si)))
    else:
        file = io.BytesIO()
        torch.save((model, si), file)
        file.seek(0)
        twin, twin_si = torch.load(file, weights_only=False)
    path = {name: tensor.clone() for name, tensor in si.running_sum.items()}
    train(twin, twin_si, SGD(twin.parameters(), lr=0.05))
    assert all(torch.equal(si.running_sum[name], path[name]) for name in path)
    train(model, si, optimizer)
    for name in path:
        assert not torch.equal(si.running_sum[name], path[name])
        assert torch.equal(si.running_sum[name], twin_si.running_sum[name])


@pytest.mark.parametrize("kernel", ["foreach", "compiled"])
def test_weights_that_were_given_other_memory_are_followed(kernel: Any) -> None:
    results = []
    for swap in (False, True):
        model, si, optimizer = protected(kernel)
        if swap:
            for parameter in model.parameters():
                parameter.data = parameter.data.clone()
        train(model, si, optimizer)
        results.append(si.running_sum)
    for name in results[0]:
        assert torch.equal(results[0][name], results[1][name])


@pytest.mark.parametrize("kernel", ["foreach", "compiled"])
def test_gradients_are_not_kept_alive_after_the_step(kernel: Any) -> None:
    for gradient in ("task", "total"):
        model, _si, optimizer = protected(kernel, gradient=gradient)
        refs = [weakref.ref(parameter.grad) for parameter in model.parameters()]
        optimizer.zero_grad(set_to_none=True)
        assert all(ref() is None for ref in refs)


class Watcher(TorchDispatchMode):
    """Notes what is called, and the most bytes that new tensors hold at once."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: set[str] = set()
        self.largest = 0
        self._held = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls.add(func.overloadpacket.__name__)
        known = {t.untyped_storage().data_ptr() for t in _tensors(args)}
        result = func(*args, **(kwargs or {}))
        for tensor in _tensors([result]):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in known | self._known:
                self._known.add(storage.data_ptr())
                self._held += storage.nbytes()
                weakref.finalize(tensor, self._free, storage.data_ptr(), storage.nbytes())
        self.largest = max(self.largest, self._held)
        return result

    def _free(self, pointer: int, size: int) -> None:
        self._known.discard(pointer)
        self._held -= size


def _tensors(things: Any) -> list[Tensor]:
    found: list[Tensor] = []
    for thing in things:
        if isinstance(thing, Tensor):
            found.append(thing)
        elif isinstance(thing, list | tuple):
            found.extend(_tensors(thing))
    return found


# What makes a program wait for a GPU, or takes something from it to the host.
WAITS = {"_local_scalar_dense", "equal", "item", "nonzero", "is_nonzero", "_to_copy"}


@pytest.mark.parametrize("optimizer", [SGD, Adam])
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("kernel", ["foreach", "compiled"])
@pytest.mark.parametrize("first_task", [True, False])
def test_a_step_waits_for_nothing_and_takes_no_more_memory_than_the_largest_parameter(
    kernel: Any, first_task: bool, fused: bool, optimizer: Any
) -> None:
    model = network()
    si = SynapticIntelligence(model, kernel=kernel)
    steps = optimizer(model.parameters(), lr=0.05, fused=fused)
    train(model, si, steps)
    if not first_task:
        si.update_omega()
        train(model, si, steps)
    steps.zero_grad()
    nn.functional.cross_entropy(model(torch.randn(8, 20)), torch.arange(8) % 3).backward()
    with Watcher() as before_step:
        si.add_penalty_gradient()
    steps.step()
    with Watcher() as after_step:
        si.update_running_sum()
    largest = max(p.numel() * p.element_size() for p in model.parameters())
    if fused:
        # It moves weights unseen, so that those that stayed are looked for: a byte for each.
        largest += max(p.numel() for p in model.parameters())
    for watcher in (before_step, after_step):
        assert watcher.calls or kernel == "compiled"
        assert not watcher.calls & WAITS
        assert watcher.largest <= largest
    if first_task:
        assert before_step.calls == {"_foreach_copy_"}
        assert before_step.largest == 0


def test_a_classifier_that_grows_is_not_compiled_anew() -> None:
    model, si, _ = protected("compiled")
    compiled = compiler._compiled.cache_info().misses
    for classes in (4, 5, 6):
        head = model[4]
        assert isinstance(head, nn.Linear)
        wider = nn.Linear(120, classes)
        with torch.no_grad():
            wider.weight[: head.out_features] = head.weight
            wider.bias[: head.out_features] = head.bias
        model[4] = wider
        si.begin_task()
        train(model, si, SGD(model.parameters(), lr=0.05))
    assert compiler._compiled.cache_info().misses == compiled


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object, **_kwargs: object) -> None:
        raise RuntimeError("there is no compiler here")

    compiler._compiled.cache_clear()
    monkeypatch.setattr(torch, "compile", fail)
    monkeypatch.setattr(compiler._Compiler, "works", True)


@pytest.mark.usefixtures("no_compiler")
def test_without_a_compiler_the_numbers_are_the_same_and_it_is_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "si_avalanche"):
        _, fast, _ = protected("compiled")
        protected("compiled")
    (message,) = caplog.messages
    assert "RuntimeError" in message
    assert "foreach" in message
    _, plain, _ = protected("foreach")
    for name in plain.omega:
        assert torch.equal(fast.running_sum[name], plain.running_sum[name])


@pytest.mark.usefixtures("no_compiler")
@pytest.mark.parametrize(("width", "tries"), [(120, False), (500, True)])
def test_large_models_are_compiled_by_themselves(
    width: int, tries: bool, caplog: pytest.LogCaptureFixture
) -> None:
    model = network(width)
    si = SynapticIntelligence(model)
    optimizer = SGD(model.parameters(), lr=0.05)
    with caplog.at_level(logging.WARNING, "si_avalanche"):
        train(model, si, optimizer)
        assert not caplog.messages, "the first task has nothing to compile"
        si.update_omega()
        train(model, si, optimizer)
    assert bool(caplog.messages) == tries
