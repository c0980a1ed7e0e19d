"""The plugin with update, penalty and path integral as one pass, and optimisers that come along."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from avalanche.training import Naive
from avalanche.training.plugins import SupervisedPlugin
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from si_avalanche import SI, ConfigurationError, SIPlugin
from tests.digits import digits_benchmark, naive, network, parts, same, train, weights, with_si
from tests.lifecycle.test_heads import Incremental, MultiHead

Make = Callable[[nn.Module], Optimizer]
OPTIMIZERS: dict[str, Make] = {
    "adam": lambda model: Adam(model.parameters(), lr=0.005, eps=1e-3),
    "fused adam": lambda model: Adam(model.parameters(), lr=0.005, eps=1e-3, fused=True),
    "adamw": lambda model: AdamW(model.parameters(), lr=0.005, eps=1e-3),
    "nesterov": lambda model: SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True),
}
MODELS: dict[str, tuple[Callable[[], nn.Module], bool]] = {
    "one head": (network, False),
    "growing head": (Incremental, False),
    "many heads": (MultiHead, True),
}


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_one_pass_gives_what_hooks_give(optimizer: str, kind: str) -> None:
    make, task_labels = MODELS[kind]
    stream = digits_benchmark(task_labels=task_labels).train_stream[:3]
    plugins = SIPlugin(c=2.0), SIPlugin(c=2.0, fused=True)
    for plugin in plugins:
        torch.manual_seed(0)
        model = make()
        train(with_si(model, plugin, optimizer=OPTIMIZERS[optimizer](model)), stream)
    hooks, one_pass = (plugin.si.omega for plugin in plugins)
    for name, omega in hooks.items():
        torch.testing.assert_close(one_pass[name], omega, rtol=2e-2, atol=2e-3)
    assert one_pass.keys() == hooks.keys()


def test_the_strategy_passes_the_switch_on() -> None:
    model = network()
    strategy = SI(**parts(model, RMSprop(model.parameters())), fused=True)
    with pytest.raises(ConfigurationError, match="only Adam, AdamW and SGD"):
        strategy.train(digits_benchmark().train_stream[0])


class TwoOptimizers(Naive):
    """Steps the trunk by one optimiser and the output layer by another, held out of sight."""

    def __init__(self, *, other: Optimizer, **more: Any) -> None:
        super().__init__(**more)
        self.hidden = {"others": [other]}

    def make_optimizer(self, *_: Any, **__: Any) -> None:
        """Leave both as they are."""

    def optimizer_step(self) -> None:
        for optimizer in (self.optimizer, *self.hidden["others"]):
            optimizer.step()
        self.hidden["others"][0].zero_grad()


@pytest.mark.parametrize("fused", [False, True])
def test_a_second_optimiser_in_a_strategy_is_followed_too(fused: bool) -> None:
    found = []
    for two in (False, True):
        plugin, model = SIPlugin(c=1.0, fused=fused), network()
        if two:
            trunk = SGD(model.features.parameters(), lr=0.05)
            output = SGD(model.classifier.parameters(), lr=0.05)
            options = parts(model, trunk, plugins=[plugin])
            strategy: Naive = TwoOptimizers(other=output, **options)
        else:
            options = parts(model, SGD(model.parameters(), lr=0.05), plugins=[plugin])
            strategy = Naive(**options)
        train(strategy, digits_benchmark().train_stream[:2])
        found.append(plugin.si.omega)
    assert all(omega.any() for omega in found[1].values())
    for name, omega in found[0].items():
        torch.testing.assert_close(found[1][name], omega, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("first", [False, True], ids=["later", "from the start"])
def test_a_task_in_which_only_what_is_excluded_is_trained_goes_by(
    first: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Linear probing: the head is left out, the trunk frozen for a task."""
    model, plugin = network(), SIPlugin(exclude=["classifier"])
    strategy = with_si(model, plugin)
    stream = digits_benchmark().train_stream
    if not first:
        train(strategy, stream[:1])
    model.features.requires_grad_(False)
    before = {} if first else {n: omega.clone() for n, omega in plugin.si.omega.items()}
    start = weights(model)
    train(strategy, stream[1:2])
    assert "Nothing that is protected is trained now" in caplog.text
    assert not torch.equal(model.classifier.weight, start["classifier.weight"])
    assert same(dict(plugin.si.omega), before)
    model.features.requires_grad_(True)
    train(strategy, stream[2:3])
    assert all(omega.any() for omega in plugin.si.omega.values())


class Hook(SupervisedPlugin):
    """Counts the hooks of an optimiser when an experience has ended."""

    def __init__(self) -> None:
        super().__init__()
        self.left: list[int] = []

    def after_training(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.left.append(len(strategy.optimizer._optimizer_step_pre_hooks))


def test_an_optimiser_is_let_go_when_the_experience_ends() -> None:
    hook = Hook()
    train(naive(network(), [SIPlugin(), hook]), digits_benchmark().train_stream[:2])
    assert hook.left == [0, 0]
