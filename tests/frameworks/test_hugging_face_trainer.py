"""SI in the Trainer of transformers, attached to its own optimiser or to one that it is given."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import ConstantLR
from transformers import Trainer, TrainerCallback, TrainingArguments

from si_avalanche import SynapticIntelligence
from tests.frameworks.plain import (
    Told,
    assert_same,
    assert_something_learnt,
    code_in_section,
    differs,
    sentences,
    train_by_hand,
)
from tests.frameworks.transformers_models import adamw, bert, own_loss
from tests.witness import Witness


def data(task: int) -> list[dict[str, Tensor]]:
    """Random words in two classes; another word tells the class in each task."""
    return [{"input_ids": words, "labels": (words[task] > 15).long()} for words in sentences(task)]


def batches(task: int) -> list[dict[str, Tensor]]:
    rows = data(task)
    parts = [rows[first : first + 4] for first in range(0, len(rows), 4)]
    return [{name: torch.stack([row[name] for row in part]) for name in part[0]} for part in parts]


class Attaches(TrainerCallback):
    """The callback of the page, which also tells what there is to see."""

    def __init__(self, si: SynapticIntelligence) -> None:
        self.si, self.told = si, Told()

    def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        self.si.detach()
        self.si.attach(others["optimizer"])

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        self.told.note_gradients(others["model"], self.si.tasks)

    def on_train_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        self.told.end_task(self.si, others["model"])


class KeepsGradient(Trainer):
    """One that integrates the gradient from before it is clipped."""

    si: SynapticIntelligence

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        loss = super().training_step(*args, **kwargs)
        self.si.keep_gradient(self.accelerator.scaler)
        return loss


def trainer(
    folder: Path,
    model: nn.Module,
    task: int,
    callback: Attaches,
    kind: type[Trainer] = Trainer,
    optimizers: Any = (None, None),
    **options: Any,
) -> Trainer:
    chosen: dict[str, Any] = {
        "learning_rate": 0.02,
        "weight_decay": 0.01,
        "num_train_epochs": 1,
        "save_strategy": "no",
        **options,
    }
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=4,
        train_sampling_strategy="sequential",
        lr_scheduler_type="constant",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        **chosen,
    )
    made = kind(
        model, arguments, train_dataset=data(task), callbacks=[callback], optimizers=optimizers
    )
    if isinstance(made, KeepsGradient):
        made.si = callback.si
    return made


@pytest.mark.parametrize("kind", [Trainer, KeepsGradient])
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("max_norm", [0.0, 0.05])
def test_two_trainings_are_a_bare_loop_with_si_by_hand(
    tmp_path: Path, kind: type[Trainer], accumulate: int, max_norm: float
) -> None:
    model = bert().double()
    callback = Attaches(SynapticIntelligence(model, c=20.0))
    for task in range(2):
        # Trainer leaves biases without weight decay, in groups of its own; so all go without.
        options = {"gradient_accumulation_steps": accumulate, "max_grad_norm": max_norm}
        optimizer = adamw(model)
        optimizers = optimizer, ConstantLR(optimizer, 1.0)
        trainer(tmp_path, model, task, callback, kind, optimizers, **options).train()
    expected = train_by_hand(
        bert().double(),
        [batches(0), batches(1)],
        adamw,
        # It accumulates the sum of the losses of a model of this kind, not their mean.
        lambda model, batch: accumulate * own_loss(model, batch),
        c=20.0,
        accumulate=accumulate,
        max_norm=max_norm or None,
        raw=kind is KeepsGradient,
    )
    assert_same(callback.told, expected)


def test_with_its_own_optimiser_the_path_integral_is_that_of_an_independent_record(
    tmp_path: Path,
) -> None:
    model = bert().double()
    callback = Attaches(SynapticIntelligence(model, c=20.0))
    for task in range(2):
        made = trainer(tmp_path, model, task, callback, KeepsGradient)
        optimizer = made.create_optimizer()
        witness = Witness(model, optimizer)
        callback.told.end_task = lambda *_: None  # type: ignore[method-assign]
        made.train()
        assert len(optimizer.param_groups) == 2
        witness.assert_seen_by(callback.si, rtol=1e-9, atol=1e-15)
        callback.si.update_omega()
    assert_something_learnt(callback.si.importance)


def test_an_optimiser_that_it_is_given_may_be_attached_before(tmp_path: Path) -> None:
    found = []
    for early in (False, True):
        model = bert().double()
        callback = Attaches(SynapticIntelligence(model, c=20.0))
        for task in range(2):
            optimizer = adamw(model)
            if early:
                callback.si.detach()
                callback.si.attach(optimizer)
                callback.on_train_begin = lambda *_, **__: None  # type: ignore[method-assign]
            optimizers = optimizer, ConstantLR(optimizer, 1.0)
            trainer(tmp_path, model, task, callback, optimizers=optimizers).train()
        found.append(callback.told)
    late, before = found
    assert_same(late, before, rtol=0)


def test_the_penalty_changes_the_second_task_alone(tmp_path: Path) -> None:
    found = []
    for c in (0.0, 20.0):
        model = bert()
        callback = Attaches(SynapticIntelligence(model, c=c))
        for task in range(2):
            trainer(tmp_path, model, task, callback).train()
        found.append(callback.told)
    without, with_it = found
    torch.testing.assert_close(with_it.paths[0], without.paths[0], rtol=0, atol=0)
    assert differs(with_it.weights, without.weights)


def test_in_bf16_the_path_integral_is_that_of_an_independent_record(tmp_path: Path) -> None:
    model = bert()
    callback = Attaches(SynapticIntelligence(model))
    callback.told.end_task = lambda *_: None  # type: ignore[method-assign]
    for task in range(2):
        optimizer = SGD(model.parameters(), lr=0.1, momentum=0.5)
        witness = Witness(model, optimizer)
        optimizers = optimizer, ConstantLR(optimizer, 1.0)
        trainer(tmp_path, model, task, callback, KeepsGradient, optimizers, bf16=True).train()
        witness.assert_seen_by(callback.si, rtol=1e-3, atol=1e-7)
        callback.si.update_omega()
    assert_something_learnt(callback.si.importance)


def test_the_code_of_the_page_runs_and_what_it_saves_goes_on_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"model": bert(), "tasks": [data(0), data(1)]}
    exec(compile(code_in_section("Hugging Face Trainer"), "docs/loops.md", "exec"), names)
    assert names["si"].tasks == 2
    assert_something_learnt(names["si"].importance)

    # The checkpoint was written before the second task was consolidated.
    model = type(names["model"]).from_pretrained("task-1/checkpoint-4")
    si = SynapticIntelligence(model)
    si.load_state_dict(torch.load("task-1/checkpoint-4/si.pt"))
    assert (si.tasks, si.steps) == (1, 4)
    si.attach(adamw(model))
    si.update_omega()
    torch.testing.assert_close(si.importance, names["si"].importance, rtol=0, atol=0)
