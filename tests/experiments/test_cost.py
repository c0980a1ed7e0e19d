from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from experiments.quiet import quiet
from experiments.records import Result
from tests.experiments.tiny import describe, run

FEATURES, HIDDEN, OUTPUTS = 784, 8, 2
PARAMETERS = FEATURES * HIDDEN + HIDDEN + HIDDEN * HIDDEN + HIDDEN + HIDDEN * OUTPUTS + OUTPUTS
SAMPLE = 4 * FEATURES + 8
SAMPLES = 24
EPOCHS = 2

# Passes beyond the epochs, mean over five experiences of 24 samples at two epochs; bytes at the
# end, in the domain-incremental scenario with one head.
PASSES = {
    "naive": 0.0,
    "si": 0.0,
    "si-avalanche": 0.0,
    # A pass after training on each experience.
    "ewc": 1.0,
    "ewc-online": 1.0,
    "mas": 1.0,
    # The copy looks at every batch, from the second experience on.
    "lwf": EPOCHS * 4 / 5,
    # A second forward pass at every iteration.
    "rwalk": float(EPOCHS),
    # As many old samples as new ones, from the second experience on.
    "replay": EPOCHS * 4 / 5,
    # One to five experiences' samples instead of one.
    "cumulative": EPOCHS * (1 + 2 + 3 + 4 + 5) / 5 - EPOCHS,
    "joint": 0.0,
}
BYTES = {
    "naive": 0,
    # Importance and anchor for each of the five experiences, or once.
    "ewc": 4 * PARAMETERS * 2 * 5,
    "ewc-online": 4 * PARAMETERS * 2,
    "mas": 4 * PARAMETERS * 2,
    "lwf": 4 * PARAMETERS,
    # Twelve samples; and for each of five reservoirs the weights of all samples it chose from:
    # Avalanche keeps a view of them.
    "replay": 12 * SAMPLE + 5 * SAMPLES * 4,
    "cumulative": 5 * SAMPLES * SAMPLE,
    "joint": 5 * SAMPLES * SAMPLE,
}


@pytest.fixture(scope="module")
def costs(data_root: Path) -> dict[str, Result]:
    return {name: run(describe(name, strength=1.0, epochs=EPOCHS), data_root) for name in PASSES}


@pytest.mark.parametrize("strategy", PASSES)
def test_extra_passes_are_what_the_method_does(strategy: str, costs: dict[str, Result]) -> None:
    assert costs[strategy].extra_passes == pytest.approx(PASSES[strategy])


@pytest.mark.parametrize("strategy", BYTES)
def test_extra_bytes_are_what_the_method_holds(strategy: str, costs: dict[str, Result]) -> None:
    assert costs[strategy].extra_bytes == BYTES[strategy]


def test_si_is_charged_for_what_it_holds_and_nothing_else(costs: dict[str, Result]) -> None:
    found = costs["si"].extra_bytes
    # Importance, path integral and anchor at least; the snapshot of a step at most besides.
    assert 3 * 4 * PARAMETERS <= found <= 4 * 4 * PARAMETERS


def test_storages_are_counted_once() -> None:
    with quiet():
        from avalanche.core import SupervisedPlugin
        from avalanche.training.supervised import Naive

        from experiments.cost import extra_bytes

    class Holder(SupervisedPlugin):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            whole = torch.zeros(100)
            self.held = {"whole": whole, "views": [whole[:10], whole.view(10, 10)]}
            self.models_own = [model, *model.parameters(), next(model.parameters()).data[0]]
            self.myself = self

    model = nn.Linear(3, 2)
    with quiet():
        strategy = Naive(
            model=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
            criterion=nn.CrossEntropyLoss(),
            plugins=[Holder(model)],
            evaluator=None,
        )
        assert extra_bytes(strategy) == 400


def test_what_lies_beside_network_and_optimiser_is_all_that_a_method_is_charged_for() -> None:
    with quiet():
        from experiments.cost import bytes_beside

    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(4, 3)).sum().backward()
    optimizer.step()
    held = {
        "model": model,
        "optimizer": optimizer,
        "gradients": [p.grad for p in model.parameters()],
        "own": torch.zeros(7),
    }
    assert bytes_beside(held, model, optimizer) == 28


def test_an_iteration_is_what_is_done_with_a_batch_and_not_the_making_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with quiet():
        from experiments.cost import IterationTimer
    now = 0.0

    def batches() -> Iterator[float]:
        nonlocal now
        for work in (1.0, 5.0, 2.0):
            now += 100.0
            yield work

    monkeypatch.setattr("experiments.cost.time.perf_counter", lambda: now)
    timer = IterationTimer(torch.device("cpu"))
    for work in timer.each(batches()):
        assert isinstance(work, float)
        now += work
    assert timer.median() == 2.0
