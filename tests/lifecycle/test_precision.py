"""Small and mixed precision, scaled losses and skipped steps, through strategies as users write."""

from typing import Any

import pytest
import torch
from avalanche.training import Naive
from avalanche.training.plugins import SupervisedPlugin
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import SGD, Adam

from si_avalanche import CallOrderError, ConfigurationError, NonFiniteError, SIPlugin, compatibility
from si_avalanche.step import scale_of
from tests.digits import digits_benchmark, network, parts, same, train, weights, with_si
from tests.witness import Witness


class MixedPrecision(Naive):
    """Autocast in the forward pass and, if there is one, a GradScaler around the backward pass."""

    def __init__(self, *, scaler: GradScaler | None, dtype: torch.dtype, **more: Any) -> None:
        super().__init__(**more)
        self.scaler, self.dtype = scaler, dtype
        self.skip: set[int] = set()
        self.made = 0

    def forward(self) -> Tensor:
        with torch.autocast("cpu", dtype=self.dtype):
            return super().forward()

    def criterion(self) -> Tensor:
        return self._criterion(self.mb_output.float(), self.mb_y)

    def backward(self) -> None:
        scaled = self.scaler.scale(self.loss) if self.scaler else self.loss
        if self.clock.train_iterations in self.skip:
            scaled = scaled * float("inf")
        scaled.backward()

    def optimizer_step(self) -> None:
        if self.scaler is None:
            self.optimizer.step()
            return
        self.scaler.step(self.optimizer)
        self.scaler.update()


class Watch(SIPlugin):
    """Compares the path integral with a witness before each consolidation."""

    witness: Witness

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.witness.assert_seen_by(self.si, rtol=5e-3, atol=1e-6)
        self.witness.begin_anew()
        super().after_training_exp(strategy)


def mixed(plugin: SIPlugin, scaler: GradScaler | None, dtype: torch.dtype, **more: Any) -> Any:
    model = network()
    optimizer = more.pop("optimizer", SGD)(model.parameters(), lr=0.02)
    strategy = MixedPrecision(
        scaler=scaler, dtype=dtype, **parts(model, optimizer, plugins=[plugin], **more)
    )
    if isinstance(plugin, Watch):
        plugin.witness = Witness(
            model, optimizer, scaler.get_scale if scaler is not None else lambda: 1.0
        )
    return strategy


def scaler_of(scale: float = 1024.0, **more: Any) -> GradScaler:
    return GradScaler("cpu", init_scale=scale, growth_interval=7, **more)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_needs_nothing(dtype: torch.dtype) -> None:
    plugin = Watch(c=5.0)
    train(mixed(plugin, None, dtype), digits_benchmark().train_stream[:2])
    assert {omega.dtype for omega in plugin.si.omega.values()} == {torch.float32}
    assert plugin.si.total_importance() > 0


@pytest.mark.parametrize("scale", [1.0, 1000.0, 65536.0])
def test_gradients_are_unscaled_for_the_path_integral(scale: float) -> None:
    plugin = Watch(c=5.0)
    train(mixed(plugin, scaler_of(scale), torch.bfloat16), digits_benchmark().train_stream[:3])
    assert plugin.si.tasks == 3


def test_a_scaled_run_with_a_penalty_ends_where_the_plain_one_ends() -> None:
    ends = []
    for scaler in (None, scaler_of(4096.0)):
        strategy = mixed(SIPlugin(c=20.0), scaler, torch.bfloat16)
        train(strategy, digits_benchmark().train_stream[:3])
        ends.append((weights(strategy.model), strategy.plugins[0].si.omega))
    for name, plain in ends[0][0].items():
        torch.testing.assert_close(ends[1][0][name], plain, rtol=1e-3, atol=1e-4)
    for name, plain in ends[0][1].items():
        torch.testing.assert_close(ends[1][1][name], plain, rtol=2e-2, atol=1e-4)


@pytest.mark.parametrize("optimizer", [SGD, lambda p, lr: Adam(p, lr=lr, fused=True)])
def test_steps_that_the_scaler_skips_add_nothing(optimizer: Any) -> None:
    plugin = SIPlugin(c=5.0)
    strategy = mixed(plugin, scaler_of(), torch.bfloat16, optimizer=optimizer)
    strategy.skip = {3, 4, 17}
    recorded: list[dict[str, Tensor]] = []

    class Record(SupervisedPlugin):
        """Copies the path integral after each iteration."""

        def after_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
            recorded.append({n: o.clone() for n, o in plugin.si.path_integral.items()})

    strategy.plugins.append(Record())
    train(strategy, digits_benchmark().train_stream[:1])
    assert same(recorded[2], recorded[3])
    assert same(recorded[3], recorded[4])
    assert not same(recorded[4], recorded[5])
    assert all(omega.isfinite().all() for omega in plugin.si.omega.values())
    assert plugin.si.total_importance() > 0


def test_switched_off_beside_a_scaler_it_changes_nothing() -> None:
    ends = []
    for ours in (True, False):
        model = network()
        strategy = MixedPrecision(
            scaler=scaler_of(),
            dtype=torch.bfloat16,
            **parts(model, plugins=[SIPlugin(c=0)] if ours else []),
        )
        strategy.skip = {5}
        train(strategy, digits_benchmark().train_stream[:2])
        ends.append(weights(model))
    assert same(*ends)


class Clip(SupervisedPlugin):
    """Unscales, and clips the norm, as the documentation of GradScaler advises."""

    def after_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        strategy.scaler.unscale_(strategy.optimizer)
        nn.utils.clip_grad_norm_(strategy.model.parameters(), 0.1)


@pytest.mark.parametrize("place", [0, 1])
def test_unscaling_and_clipping_are_welcome_before_and_behind(place: int) -> None:
    plugin = Watch(c=5.0)
    strategy = mixed(plugin, scaler_of(), torch.bfloat16)
    strategy.plugins.insert(place, Clip())
    train(strategy, digits_benchmark().train_stream[:3])
    assert plugin.si.tasks == 3


class Unscale(SupervisedPlugin):
    """Unscales the gradients and leaves them as they are."""

    def after_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        strategy.scaler.unscale_(strategy.optimizer)


def test_it_does_not_matter_when_gradients_are_unscaled() -> None:
    ends = []
    for plugins in ([], [Unscale()]):
        for order in (1, -1):
            model = network()
            strategy = MixedPrecision(
                scaler=scaler_of(),
                dtype=torch.bfloat16,
                **parts(model, plugins=[*plugins, SIPlugin(c=20.0)][::order]),
            )
            train(strategy, digits_benchmark().train_stream[:3])
            ends.append(weights(model))
    for end in ends[1:]:
        for name, expected in ends[0].items():
            torch.testing.assert_close(end[name], expected, rtol=1e-4, atol=1e-6)


def test_a_scaler_that_is_switched_off_scales_nothing() -> None:
    plugin = Watch(c=5.0)
    train(
        mixed(plugin, scaler_of(enabled=False), torch.bfloat16), digits_benchmark().train_stream[:2]
    )
    assert plugin.si.tasks == 2


def test_a_scaled_loss_without_a_scaler_to_be_found_is_refused_before_weights_move() -> None:
    hidden = scaler_of()
    plugin = SIPlugin()
    strategy = mixed(plugin, None, torch.bfloat16)
    strategy.backward = lambda: hidden.scale(strategy.loss).backward()
    before = weights(strategy.model)
    with pytest.raises(CallOrderError, match=r"multiplied by 1024.*GradScaler as an attribute"):
        strategy.train(digits_benchmark().train_stream[0])
    assert same(before, weights(strategy.model))


def test_a_scaler_may_be_an_attribute_of_a_plugin_or_of_a_class() -> None:
    class Holder(SupervisedPlugin):
        """Keeps the scaler for the strategy."""

        scaler = scaler_of(512.0)

    plugin = SIPlugin()
    strategy = mixed(plugin, None, torch.bfloat16)
    strategy.plugins.append(Holder())
    assert scale_of(compatibility.scaler_of(strategy), []) is None
    Holder.scaler.scale(torch.ones(1))
    assert scale_of(compatibility.scaler_of(strategy), []) == 512.0
    strategy.plugins.pop()
    assert compatibility.scaler_of(strategy) is None


def test_several_scalers_are_refused() -> None:
    strategy = mixed(SIPlugin(), scaler_of(), torch.bfloat16)
    strategy.second = scaler_of()
    with pytest.raises(ConfigurationError, match="2 enabled GradScalers"):
        strategy.train(digits_benchmark().train_stream[0])


@pytest.mark.parametrize(
    ("dtype", "state"),
    [
        (torch.float64, torch.float64),
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
    ],
    ids=str,
)
def test_parameters_of_every_floating_precision(dtype: torch.dtype, state: torch.dtype) -> None:
    class Cast(nn.Module):
        """Takes float32 samples to the dtype of its network and back."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = network().to(dtype)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x.to(dtype)).to(torch.promote_types(dtype, torch.float32))

    model = Cast()
    optimizer = SGD(model.parameters(), lr=0.05)
    plugin = Watch(c=5.0)
    plugin.witness = Witness(model, optimizer)
    strategy = with_si(model, plugin, optimizer=optimizer)
    train(strategy, digits_benchmark().train_stream[:2])
    assert {t.dtype for t in (*plugin.si.omega.values(), *plugin.si.anchor.values())} == {state}
    assert plugin.si.total_importance() > 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_turns_non_finite_is_not_consolidated(value: float) -> None:
    class Spoil(SupervisedPlugin):
        """Lets the loss of one iteration diverge."""

        def before_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
            if plugin.experiences == 1 and strategy.clock.train_exp_iterations == 5:
                strategy.loss = strategy.loss * value

    plugin = SIPlugin(c=1.0)
    strategy = with_si(network(), plugin)
    strategy.plugins.insert(0, Spoil())
    stream = digits_benchmark().train_stream
    train(strategy, stream[:1])
    before = plugin.state_dict()["si"]
    with pytest.raises(NonFiniteError, match=r"classifier\.weight"):
        strategy.train(stream[1])
    after = plugin.state_dict()["si"]
    for kind in ("importance", "anchor"):
        assert same(before[kind], after[kind])
    assert after["tasks"] == plugin.experiences == 1
