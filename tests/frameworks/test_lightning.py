"""SI in Lightning, whose loop gives closures to ``step()`` and clips within them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn
from torch.optim import LBFGS, SGD, Adam, Optimizer

from si_avalanche import CallOrderError, SynapticIntelligence
from tests.frameworks.plain import (
    Told,
    assert_same,
    assert_something_learnt,
    code_in_section,
    copies,
    cross_entropy,
    differs,
    loaders,
    small_network,
    train_by_hand,
)
from tests.witness import Witness

pytestmark = [
    # Lightning asks torch for what torch renames.
    pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning"),
    # It advises workers for the loader; the data are tensors in memory.
    pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers"),
]


def adam(model: nn.Module) -> Optimizer:
    return Adam(model.parameters(), lr=0.02)


class Classifier(pl.LightningModule):
    """A LightningModule as its documentation shows them, and two lines for SI."""

    def __init__(self, c: float = 1.0, make: Callable[[nn.Module], Optimizer] = adam) -> None:
        super().__init__()
        self.network = small_network()
        self.si = SynapticIntelligence(self.network, c=c)
        self.make = make
        self.told = Told()

    def configure_optimizers(self) -> Optimizer:
        optimizer = self.make(self.network)
        self.si.detach()
        self.si.attach(optimizer)
        return optimizer

    def training_step(self, batch: Any, _: int) -> Tensor:
        return cross_entropy(self.network, batch)

    def on_train_batch_end(self, *_: Any) -> None:
        self.told.note_gradients(self.network, self.si.tasks)

    def on_train_end(self) -> None:
        self.told.end_task(self.si, self.network)


class KeepsGradient(Classifier):
    """One that integrates the gradient from before it is clipped."""

    def on_after_backward(self) -> None:
        self.si.keep_gradient(getattr(self.trainer.precision_plugin, "scaler", None))


def trainer(epochs: int = 1, **options: Any) -> pl.Trainer:
    quiet: dict[str, Any] = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return pl.Trainer(max_epochs=epochs, accelerator="cpu", **{**quiet, **options})


def fit(module: Classifier, dtype: torch.dtype = torch.float64, **options: Any) -> Told:
    for loader in loaders(dtype):
        trainer(**options).fit(module, loader)
    return module.told


@pytest.mark.parametrize("kind", [Classifier, KeepsGradient])
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("max_norm", [None, 0.05])
def test_two_fits_are_a_bare_loop_with_si_by_hand(
    kind: type[Classifier], accumulate: int, max_norm: float | None
) -> None:
    found = fit(
        kind(c=20.0),
        precision="64-true",
        accumulate_grad_batches=accumulate,
        gradient_clip_val=max_norm,
    )
    expected = train_by_hand(
        small_network().double(),
        [list(loader) for loader in loaders()],
        adam,
        cross_entropy,
        c=20.0,
        accumulate=accumulate,
        max_norm=max_norm,
        raw=kind is KeepsGradient,
    )
    assert_same(found, expected)


def test_the_penalty_changes_the_second_task_alone() -> None:
    with_it, without = (
        fit(Classifier(c=20.0), precision="64-true"),
        fit(Classifier(c=0.0), precision="64-true"),
    )
    torch.testing.assert_close(with_it.paths[0], without.paths[0], rtol=0, atol=0)
    assert differs(with_it.weights, without.weights)


def half_precision() -> MixedPrecision:
    """The precision that Lightning itself does not choose on a CPU, with its scaler."""
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    return MixedPrecision("16-mixed", device="cpu", scaler=scaler)


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "16-mixed"])
@pytest.mark.parametrize("max_norm", [None, 0.05])
def test_in_16_bits_the_path_integral_is_that_of_an_independent_record(
    precision: str, max_norm: float | None
) -> None:
    scaled = precision == "16-mixed"
    witness: list[Witness] = []

    def watched(network: nn.Module) -> Optimizer:
        optimizer = SGD(network.parameters(), lr=0.1, momentum=0.5)
        witness.append(Witness(network, optimizer, lambda: 1024.0 if scaled else 1.0))
        return optimizer

    module = KeepsGradient(c=1.0, make=watched)
    dtype = torch.bfloat16 if precision == "bf16-true" else torch.float32
    for loader in loaders(dtype):
        how = {"plugins": half_precision()} if scaled else {"precision": precision}
        module.on_train_end = lambda: None  # type: ignore[method-assign]
        trainer(gradient_clip_val=max_norm, **how).fit(module, loader)
        witness[-1].assert_seen_by(module.si, rtol=1e-3, atol=1e-7)
        module.si.update_omega()
    assert module.si.tasks == 2
    assert_something_learnt(module.si.importance)


class Manual(Classifier):
    """One that makes its steps itself and attaches to the optimiser as Lightning hands it out."""

    def __init__(self, c: float) -> None:
        super().__init__(c)
        self.automatic_optimization = False

    def configure_optimizers(self) -> Optimizer:
        return self.make(self.network)

    def on_train_start(self) -> None:
        self.si.detach()
        self.si.attach(self.optimizers())  # type: ignore[arg-type]

    def training_step(self, batch: Any, _: int) -> Tensor:
        optimizer: Any = self.optimizers()
        loss = cross_entropy(self.network, batch)
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        return loss

    def on_train_end(self) -> None:
        super().on_train_end()
        self.si.detach(self.optimizers())  # type: ignore[arg-type]


def test_the_optimiser_may_be_given_as_lightning_wraps_it() -> None:
    assert_same(
        fit(Manual(c=20.0), precision="64-true"), fit(Classifier(c=20.0), precision="64-true")
    )


def test_an_optimiser_that_evaluates_its_closure_again_is_refused_by_name() -> None:
    def lbfgs(network: nn.Module) -> Optimizer:
        return LBFGS(network.parameters(), max_iter=4)

    module = Classifier(make=lbfgs)
    before = copies(dict(module.network.named_parameters()))
    with pytest.raises(CallOrderError, match="LBFGS was given a closure"):
        fit(module, torch.float32)
    assert not differs(before, copies(dict(module.network.named_parameters())))


class Saved(Classifier):
    """One whose checkpoints hold SI."""

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["si"] = self.si.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.si.load_state_dict(checkpoint["si"])


# The resumed one saves beside the checkpoint that it has read, as meant.
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_a_fit_that_is_resumed_within_the_second_task_goes_on_bit_for_bit(tmp_path: Path) -> None:
    whole, stopped = Saved(c=20.0), Saved(c=20.0)
    first, second = loaders(torch.float32)
    trainer().fit(whole, first)
    trainer(epochs=2).fit(whole, second)

    def keeping(epochs: int) -> pl.Trainer:
        keep = ModelCheckpoint(tmp_path, filename=f"after-{epochs}")
        return trainer(epochs, enable_checkpointing=True, callbacks=keep)

    trainer().fit(stopped, first)
    keeping(epochs=1).fit(stopped, second)
    resumed = Saved(c=20.0)
    keeping(epochs=2).fit(resumed, second, ckpt_path=tmp_path / "after-1.ckpt")

    assert resumed.si.tasks == whole.si.tasks == 2
    torch.testing.assert_close(resumed.told.paths[-1], whole.told.paths[-1], rtol=0, atol=0)
    torch.testing.assert_close(resumed.told.importance, whole.told.importance, rtol=0, atol=0)


def test_the_code_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"tasks": loaders(torch.float32)}
    exec(compile(code_in_section("Lightning"), "docs/loops.md", "exec"), names)
    assert names["module"].si.tasks == 2
    assert_something_learnt(names["module"].si.importance)
