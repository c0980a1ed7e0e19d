"""SI and the adapters of peft, on a tiny language model."""

import gc
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import Trainer, TrainingArguments

from si_avalanche import ModelChangedError, SynapticIntelligence
from tests.frameworks.plain import (
    Told,
    assert_same,
    assert_something_learnt,
    code_in_section,
    copies,
    differs,
    sentences,
    train_by_hand,
)
from tests.frameworks.transformers_models import adamw, llama, own_loss

pytestmark = [
    # peft asks transformers for what that has renamed.
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
]


def lora() -> LoraConfig:
    return LoraConfig(r=2, target_modules=["q_proj", "v_proj"], lora_alpha=4)


def adapted() -> Any:
    """A language model with adapters of which both halves have weights, so that both learn."""
    model = get_peft_model(llama().double(), lora())
    fill_adapters(model)
    return model


def fill_adapters(model: Any) -> None:
    for name, parameter in model.named_parameters():
        if "lora_" in name and parameter.requires_grad:
            with torch.no_grad():
                parameter.copy_(torch.randn(parameter.shape, dtype=torch.float64) / 10)


def batches(task: int) -> list[dict[str, Tensor]]:
    return [{"input_ids": words, "labels": words} for words in sentences(task).split(4)]


def train(model: Any, optimizer: Any, task: int) -> None:
    for batch in batches(task):
        optimizer.zero_grad()
        own_loss(model, batch).backward()
        optimizer.step()


def learnt(c: float = 20.0, **options: Any) -> tuple[Any, SynapticIntelligence, Any]:
    """A model after its first task, with SI and the optimiser."""
    model = adapted()
    si, optimizer = SynapticIntelligence(model, c=c, **options), adamw(model)
    si.attach(optimizer)
    train(model, optimizer, 0)
    si.update_omega()
    return model, si, optimizer


def test_just_the_adapters_are_protected_and_the_base_is_told_as_frozen() -> None:
    model, si, _ = learnt()
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert si.importance.keys() == trained
    assert all(".lora_A." in name or ".lora_B." in name for name in trained)
    assert len(trained) == 8
    assert si.skipped.keys() == {name for name, _ in model.named_parameters()} - trained
    assert set(si.skipped.values()) == {"frozen (requires_grad is False)"}


def test_two_tasks_are_a_bare_loop_with_si_by_hand() -> None:
    told = []
    for by_hand in (True, False):
        model = adapted()
        base = copies({name: p for name, p in model.named_parameters() if not p.requires_grad})
        if by_hand:
            tasks = [batches(0), batches(1)]
            told.append(train_by_hand(model, tasks, adamw, own_loss, c=20.0))
        else:
            told.append(with_si(model, 20.0))
        after = dict(model.named_parameters())
        assert all(torch.equal(weights, after[name]) for name, weights in base.items())
    expected, found = told
    assert_same(found, expected)
    assert differs(found.weights, with_si(adapted(), 0.0).weights)


def with_si(model: Any, c: float) -> Told:
    si, told = SynapticIntelligence(model, c=c), Told()
    for task in range(2):
        optimizer = adamw(model)
        si.detach()
        si.attach(optimizer)
        train(model, optimizer, task)
        told.note_gradients(model, task)
        told.end_task(si, model)
    return told


def held_bytes() -> int:
    """What all tensors that Python knows hold."""
    gc.collect()
    tensors = [each for each in gc.get_objects() if issubclass(type(each), Tensor)]
    storages = {each.untyped_storage().data_ptr(): each.untyped_storage() for each in tensors}
    return sum(storage.nbytes() for storage in storages.values())


def test_what_is_kept_is_at_most_four_times_the_adapters() -> None:
    model = adapted()
    size = sum(p.numel() * 8 for p in model.parameters() if p.requires_grad)
    assert size < 0.3 * sum(p.numel() * 8 for p in model.parameters())
    optimizer = adamw(model)
    train(model, optimizer, 0)
    without = held_bytes()
    si = SynapticIntelligence(model, c=20.0)
    si.attach(optimizer)
    for task in range(2):
        train(model, optimizer, task)
        # In mid-task, with the weights from before the last step still there.
        kept = held_bytes() - without
        assert 3 * size <= kept <= 4 * size
        si.update_omega()
    state = si.importance, si.path_integral, si.anchor
    assert sum(t.numel() * 8 for kind in state for t in kind.values()) == 3 * size


def test_merging_between_two_steps_changes_nothing() -> None:
    found = []
    for merges in (False, True):
        model, si, optimizer = learnt()
        train(model, optimizer, 1)
        if merges:
            model.merge_adapter()
            si.begin_task()
            model.unmerge_adapter()
        train(model, optimizer, 1)
        si.update_omega()
        found.append(si.importance)
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("same_optimizer", [True, False])
def test_another_adapter_starts_unprotected_while_the_first_keeps_what_it_has(
    same_optimizer: bool,
) -> None:
    model, si, optimizer = learnt()
    first = copies({name: p for name, p in model.named_parameters() if name in si.importance})
    earned = copies(si.importance)
    model.add_adapter("second", lora())
    model.set_adapter("second")
    fill_adapters(model)
    second = [p for p in model.parameters() if p.requires_grad]
    if same_optimizer:
        optimizer.add_param_group({"params": second})
    else:
        optimizer = adamw(model)
        si.detach()
        si.attach(optimizer)
    train(model, optimizer, 1)
    si.update_omega()

    parameters = dict(model.named_parameters())
    assert all(torch.equal(weights, parameters[name]) for name, weights in first.items())
    new = {name: omega for name, omega in si.importance.items() if ".second." in name}
    assert len(new) == len(first) == 8
    assert_something_learnt(new)
    torch.testing.assert_close({n: si.importance[n] for n in earned}, earned, rtol=0, atol=0)
    assert {name for name in si.skipped if "lora_" in name} == first.keys()


def test_back_at_the_first_adapter_its_penalty_is_felt() -> None:
    found = []
    for c in (0.0, 20.0):
        model, si, optimizer = learnt()
        model.add_adapter("second", lora())
        model.set_adapter("second")
        si.begin_task()
        model.set_adapter("default")
        si.c = c
        train(model, optimizer, 1)
        si.update_omega()
        found.append({name: si.anchor[name] for name in si.importance if ".default." in name})
    assert differs(*found)


@pytest.mark.parametrize("leave", ["merge_and_unload", "unload", "delete_adapter"])
def test_adapters_that_are_gone_are_told_by_name(
    leave: str, caplog: pytest.LogCaptureFixture
) -> None:
    for replaced in ("error", "drop"):
        model, si, optimizer = learnt(replaced=replaced)
        train(model, optimizer, 1)
        steps, names = si.steps, [*si.importance]
        if leave == "delete_adapter":
            model.add_adapter("second", lora())
            model.set_adapter("second")
            model.delete_adapter("default")
            rest = model
        else:
            rest = getattr(model, leave)()
        if replaced == "error":
            for call in (si.update_omega, lambda s=si, r=rest: s.begin_task(r)):
                with pytest.raises(ModelChangedError, match=names[0]):
                    call()
            assert (si.tasks, si.steps, [*si.importance]) == (1, steps, names)
        else:
            with caplog.at_level(logging.WARNING, logger="si_avalanche"):
                si.begin_task(rest)
            assert names[0] in caplog.text
            assert not si.importance.keys() & set(names)


def test_the_adapters_of_the_hugging_face_trainer_are_protected(tmp_path: Path) -> None:
    model = adapted()
    si = SynapticIntelligence(model)
    for task in range(2):
        rows = [{"input_ids": words, "labels": words} for words in sentences(task)]
        arguments = TrainingArguments(
            output_dir=str(tmp_path),
            num_train_epochs=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
        )
        trainer = Trainer(model, arguments, train_dataset=rows)
        si.attach(trainer.create_optimizer())
        trainer.train()
        assert si.steps == 2
        si.update_omega()
        si.detach()
    assert_something_learnt(si.importance)
    assert len(si.importance) == 8


def test_the_code_of_the_page_runs() -> None:
    names: dict[str, Any] = {"tasks": [sentences(task).split(4) for task in range(2)]}
    exec(compile(code_in_section("LoRA with peft"), "docs/loops.md", "exec"), names)
    assert names["si"].tasks == 2
    assert_something_learnt(names["si"].importance)
    assert all("lora_" in name for name in names["si"].importance)
