"""SI in loops with Accelerate, which wraps the optimiser and holds its step back."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from torch import nn
from torch.optim import SGD, Adam

from si_avalanche import SynapticIntelligence
from tests.frameworks.plain import (
    Told,
    assert_same,
    assert_something_learnt,
    code_in_section,
    copies,
    cross_entropy,
    differs,
    gradients_of,
    loaders,
    small_network,
    train_by_hand,
)
from tests.witness import Witness


@pytest.fixture(autouse=True)
def _each_test_has_its_own_accelerator() -> Iterator[None]:
    """The precision of the first one would be that of all that follow."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def adam(model: nn.Module) -> Adam:
    return Adam(model.parameters(), lr=0.02)


class Run:
    """A model, an optimiser and SI with Accelerate, and their loop.

    :param when: whether SI is attached before or after ``prepare``.
    """

    def __init__(self, when: str, c: float = 20.0, accumulate: int = 1) -> None:
        self.accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulate)
        self.model, self.told = small_network().double(), Told()
        self.si = SynapticIntelligence(self.model, c=c)
        self.when = when

    def train(self, loader: Any, max_norm: float | None = None, raw: bool = False) -> None:
        """One task, up to its end."""
        accelerator = self.accelerator
        optimizer: Any = adam(self.model)
        self.si.detach()
        if self.when == "before":
            self.si.attach(optimizer)
        model, optimizer, prepared = accelerator.prepare(self.model, optimizer, loader)
        if self.when == "after":
            self.si.attach(optimizer)
        for batch in prepared:
            with accelerator.accumulate(model):
                accelerator.backward(cross_entropy(model, batch))
                if raw:
                    self.si.keep_gradient(accelerator.scaler)
                if max_norm is not None and accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), max_norm)
                optimizer.step()
                self.told.note_gradients(self.model, self.si.tasks)
                optimizer.zero_grad()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize(("max_norm", "raw"), [(None, False), (0.05, False), (0.05, True)])
def test_two_tasks_are_a_bare_loop_with_si_by_hand(
    when: str, accumulate: int, max_norm: float | None, raw: bool
) -> None:
    run = Run(when, accumulate=accumulate)
    for loader in loaders():
        run.train(loader, max_norm, raw)
        assert run.si.steps == 4 // accumulate
        run.told.end_task(run.si, run.model)
    expected = train_by_hand(
        small_network().double(),
        [list(loader) for loader in loaders()],
        adam,
        cross_entropy,
        c=20.0,
        accumulate=accumulate,
        max_norm=max_norm,
        raw=raw,
    )
    assert_same(run.told, expected)


def test_the_penalty_changes_the_second_task_alone() -> None:
    found = []
    for c in (0.0, 20.0):
        run = Run("after", c)
        for loader in loaders():
            run.train(loader)
            run.told.end_task(run.si, run.model)
        found.append(run.told)
    without, with_it = found
    torch.testing.assert_close(with_it.paths[0], without.paths[0], rtol=0, atol=0)
    assert differs(with_it.weights, without.weights)


def test_a_backward_pass_without_a_step_is_left_alone() -> None:
    """The gradients that are accumulated have no penalty in them, and no step is counted."""
    run = Run("after", accumulate=3)
    run.train(loaders()[0])
    run.si.update_omega()
    optimizer = run.accelerator.prepare(adam(run.model))
    run.si.attach(optimizer)
    batch = next(iter(loaders()[1]))
    for passes in (1, 2):
        with run.accelerator.accumulate(run.model):
            run.accelerator.backward(cross_entropy(run.model, batch))
            optimizer.step()
        found = gradients_of(dict(run.model.named_parameters()))
        expected = torch.autograd.grad(
            cross_entropy(run.model, batch) * passes / 3, list(run.model.parameters())
        )
        torch.testing.assert_close(list(found.values()), list(expected))
    assert run.si.steps == 0


def half_precision() -> Accelerator:
    """An accelerator with the scaler that it makes on a GPU alone, here of a CPU."""
    accelerator = Accelerator(cpu=True, mixed_precision="fp16")
    accelerator.native_amp = True
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20)
    return accelerator


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_in_16_bits_the_path_integral_is_that_of_an_independent_record(precision: str) -> None:
    scaled = precision == "fp16"
    accelerator = half_precision() if scaled else Accelerator(cpu=True, mixed_precision=precision)
    network = small_network()
    si = SynapticIntelligence(network)
    plain = SGD(network.parameters(), lr=0.1, momentum=0.5)
    model, optimizer = accelerator.prepare(network, plain)
    si.attach(optimizer)
    scaler = accelerator.scaler
    witness = Witness(network, plain, scaler.get_scale if scaled else lambda: 1.0)
    skipped = 0
    for loader in loaders(torch.float32):
        for batch in accelerator.prepare(loader):
            accelerator.backward(cross_entropy(model, batch))
            si.keep_gradient(scaler)
            accelerator.clip_grad_norm_(model.parameters(), 0.05)
            optimizer.step()
            if accelerator.optimizer_step_was_skipped:
                skipped += 1
                witness.forget_gradients()
            optimizer.zero_grad()
        witness.assert_seen_by(si, rtol=1e-3, atol=1e-7)
        witness.begin_anew()
        si.update_omega()
    assert (skipped > 0) == scaled
    assert_something_learnt(si.importance)


def test_a_saved_state_goes_on_bit_for_bit(tmp_path: Path) -> None:
    run = Run("after")
    run.accelerator.register_for_checkpointing(run.si)
    first, second = loaders()
    run.train(first)
    run.si.update_omega()
    run.train(second)
    run.accelerator.save_state(str(tmp_path))
    path = copies(run.si.path_integral)
    run.si.update_omega()
    importance = copies(run.si.importance)

    with torch.no_grad():
        for parameter in run.model.parameters():
            parameter.zero_()
    run.accelerator.load_state(str(tmp_path))
    assert (run.si.tasks, run.si.steps) == (1, 4)
    torch.testing.assert_close(run.si.path_integral, path, rtol=0, atol=0)
    run.si.update_omega()
    torch.testing.assert_close(run.si.importance, importance, rtol=0, atol=0)


def test_the_code_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"tasks": loaders(torch.float32)}
    exec(compile(code_in_section("Accelerate"), "docs/loops.md", "exec"), names)
    assert names["si"].tasks == 2
    assert_something_learnt(names["si"].importance)
