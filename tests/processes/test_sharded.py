"""Parameters sharded by FSDP2 are refused by name, at once and on every rank."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.optim import SGD

from si_avalanche import ParameterSelectionError, SIPlugin, SynapticIntelligence
from tests.digits import Network, digits_benchmark, with_si

Together = Callable[..., list[Any]]


def sharded(ranks: int) -> nn.Module:
    model = Network()
    fully_shard(model, mesh=init_device_mesh("cpu", (ranks,)))
    return model


def protect(rank: int, ranks: int, evaluated: bool) -> str:
    model = sharded(ranks)
    if evaluated:
        # Its parameters stay gathered, and look like any other, until the next backward pass.
        with torch.no_grad():
            model(torch.zeros(2, 64))
    with pytest.raises(ParameterSelectionError) as caught:
        SynapticIntelligence(model)
    return str(caught.value)


def train_with_plugin(rank: int, ranks: int) -> str:
    model = sharded(ranks)
    strategy = with_si(model, SIPlugin(), optimizer=SGD(model.parameters(), lr=0.1))
    with pytest.raises(ParameterSelectionError) as caught:
        strategy.train(digits_benchmark().train_stream[0])
    return str(caught.value)


@pytest.mark.parametrize("evaluated", [False, True])
def test_a_sharded_model_is_refused_with_what_to_use_instead(
    together: Together, evaluated: bool
) -> None:
    for message in together(2, protect, evaluated):
        assert "fully_shard" in message
        assert "Use DistributedDataParallel" in message


def test_a_plugin_refuses_a_sharded_model_before_the_first_iteration(together: Together) -> None:
    for message in together(2, train_with_plugin):
        assert "fully_shard" in message
