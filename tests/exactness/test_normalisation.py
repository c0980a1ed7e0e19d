"""Normalisation layers: protected, left out, or with running statistics that stay."""

from typing import Any

import pytest
import torch
from avalanche.models.batch_renorm import BatchRenorm2D
from torch import Tensor, nn
from torch.optim import SGD

from si_avalanche import CallOrderError, ConfigurationError, SIPlugin, SynapticIntelligence
from tests.digits import digits_benchmark, train, with_si


class Home(nn.Module):
    """A hidden layer with one normalisation layer behind it."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.features = nn.Linear(64, 20)
        self.norm = norm
        self.classifier = nn.Linear(20, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.relu(self.norm(self.features(x))))


class TinyRMSNorm(nn.Module):
    """A normalisation layer that is none of PyTorch's."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(20))

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * x / x.square().mean(dim=1, keepdim=True).sqrt()


LAYERS: list[nn.Module] = [
    nn.BatchNorm1d(20),
    nn.LayerNorm(20),
    nn.GroupNorm(4, 20),
    TinyRMSNorm(),
    BatchRenorm2D(20),
]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
def test_affine_parameters_are_protected_by_default_and_left_out_on_request(
    layer: nn.Module,
) -> None:
    affine = {f"norm.{name}" for name, _ in layer.named_parameters()}
    assert affine
    protected = SynapticIntelligence(Home(layer))
    assert affine < set(protected.omega)
    excluding = SynapticIntelligence(Home(layer), normalisation="exclude")
    assert not affine & set(excluding.omega)
    assert {excluding.skipped[name] for name in affine} == {"of a normalisation layer"}
    assert set(excluding.omega) | affine == set(protected.omega)


@pytest.mark.parametrize("normalisation", ["protect", "freeze"])
def test_running_statistics_stay_after_the_first_task_if_frozen(normalisation: Any) -> None:
    torch.manual_seed(0)
    model: Any = Home(nn.BatchNorm1d(20))
    strategy = with_si(model, SIPlugin(normalisation=normalisation))
    stream = digits_benchmark().train_stream
    seen = [model.norm.running_mean.clone()]
    for experience in stream[:3]:
        train(strategy, [experience])
        strategy.eval(stream[:1])
        seen.append(model.norm.running_mean.clone())
    assert not torch.equal(seen[0], seen[1])
    frozen = normalisation == "freeze"
    assert torch.equal(seen[1], seen[2]) == torch.equal(seen[2], seen[3]) == frozen


def test_affine_parameters_go_on_learning_while_statistics_are_frozen() -> None:
    torch.manual_seed(0)
    model: Any = Home(nn.BatchNorm1d(20))
    strategy = with_si(model, SIPlugin(normalisation="freeze"))
    stream = digits_benchmark().train_stream
    train(strategy, stream[:1])
    before = model.norm.weight.detach().clone()
    train(strategy, stream[1:2])
    assert not torch.equal(before, model.norm.weight)
    assert strategy.plugins[0].si.omega["norm.weight"].any()


@pytest.mark.parametrize("use", ["three calls", "attach"])
def test_a_loop_that_lets_frozen_statistics_drift_is_refused(use: str) -> None:
    torch.manual_seed(0)
    model: Any = Home(nn.BatchNorm1d(20))
    si = SynapticIntelligence(model, normalisation="freeze")
    optimizer = SGD(model.parameters(), lr=0.1)
    if use == "attach":
        si.attach(optimizer)

    def step(freeze: bool) -> None:
        model.train()
        if freeze:
            si.freeze_statistics()
        optimizer.zero_grad()
        loss = model(torch.randn(8, 64)).square().mean()
        (loss + si.penalty() if use == "three calls" else loss).backward()
        optimizer.step()
        if use == "three calls":
            si.update_running_sum()

    step(freeze=True)
    assert model.norm.training
    step(freeze=False)
    si.update_omega()
    mean = model.norm.running_mean.clone()
    step(freeze=True)
    assert torch.equal(model.norm.running_mean, mean)
    with pytest.raises(CallOrderError, match=r"call freeze_statistics\(\) after every model.train"):
        step(freeze=False)


def test_a_model_of_normalisation_layers_alone_leaves_nothing_to_protect() -> None:
    with pytest.raises(ConfigurationError, match="of a normalisation layer"):
        SynapticIntelligence(nn.BatchNorm1d(3), normalisation="exclude")


@pytest.mark.parametrize("value", ["none", None, 1])
def test_a_bad_choice_is_refused(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="normalisation must be one of"):
        SIPlugin(normalisation=value)
