from pathlib import Path

import pytest
import torch

from experiments.models import make_model
from experiments.streams import make_benchmark


def test_a_multi_head_network_has_all_heads_and_has_seen_no_task() -> None:
    experiences = make_benchmark("digits", "task", data_root=Path("nowhere")).train_stream
    model = make_model("task", 64, 8, 2, experiences)
    assert model.training
    heads = {name.split(".")[2] for name in model.state_dict() if "classifiers" in name}
    assert heads == {"0", "1", "2", "3", "4"}
    inputs = torch.rand(3, 64)
    assert model(inputs, None) == {}
    for task in range(5):
        assert model(inputs, torch.full((3,), task)).shape == (3, 2)


@pytest.mark.parametrize(("scenario", "outputs"), [("domain", 2), ("class", 10)])
def test_a_single_head_network_has_one_head_for_everything(scenario: str, outputs: int) -> None:
    model = make_model(scenario, 64, 8, outputs, experiences=[])
    assert model(torch.rand(3, 64)).shape == (3, outputs)
