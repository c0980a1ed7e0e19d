"""The fast code and the slow reference, step by step, over the table of cases."""

import copy

import pytest
import torch
from torch import Tensor

from si_avalanche import SynapticIntelligence
from tests.cases import CASES, Case, task_loss
from tests.reference import ReferenceSI, floats

TASKS, STEPS = 3, 5


DTYPES = {torch.float64: 1e-12, torch.float32: 1e-5}
ROWS = [
    (case, use)
    for case in CASES
    for use in ("attach", "three calls", *(["fused"] if case.can_be_one_pass else []))
]


@pytest.mark.parametrize("dtype", DTYPES, ids=["64", "32"])
@pytest.mark.parametrize(("case", "use"), ROWS, ids=str)
def test_fast_code_equals_the_reference_after_every_step(
    case: Case, use: str, dtype: torch.dtype
) -> None:
    tolerance = DTYPES[dtype]
    torch.manual_seed(7)
    network = case.network().to(dtype)
    slow_network = copy.deepcopy(network).double()
    si = SynapticIntelligence(network, exclude=case.exclude, **case.settings)
    slow = ReferenceSI(slow_network, skip=case.exclude, **case.settings)
    optimizer = case.optimizer(network.parameters(), **case.hyper)
    slow_optimizer = case.optimizer(slow_network.parameters(), **case.hyper)
    if use != "three calls":
        si.attach(optimizer, fused=use == "fused")

    for task in range(TASKS):
        for step in range(STEPS):
            assert si.penalty().item() == pytest.approx(slow.penalty(), abs=tolerance)
            optimizer.zero_grad()
            loss = task_loss(network, task, step)
            (loss + si.penalty() if use == "three calls" else loss).backward()
            optimizer.step()
            if use == "three calls":
                si.update_running_sum()
            slow_loss = task_loss(slow_network, task, step)
            slow.train_step(slow_loss, slow_optimizer, through_graph=use == "three calls")

            for name, parameter in network.named_parameters():
                expected = dict(slow_network.named_parameters())[name]
                assert_close(parameter, floats(expected), tolerance)
            for name, path_integral in slow.path_integral.items():
                assert_close(si.running_sum[name], path_integral, tolerance)
        si.update_omega()
        slow.end_task()
        assert si.omega.keys() == slow.importance.keys()
        for name in slow.importance:
            assert_close(si.omega[name], slow.importance[name], tolerance)
            assert_close(si.prev_params[name], slow.anchor[name], tolerance)
            assert not si.running_sum[name].any()

    assert any(omega.abs().sum() > 0 for omega in si.omega.values())


def assert_close(tensor: Tensor, expected: list[float], tolerance: float) -> None:
    wanted = torch.tensor(expected, dtype=torch.float64).reshape(tensor.shape)
    torch.testing.assert_close(tensor.detach().double(), wanted, rtol=tolerance, atol=tolerance)
