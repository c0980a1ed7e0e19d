from pathlib import Path

import pytest
import torch

from experiments.records import Place, Result
from experiments.statistics import backward_transfer, forgetting
from experiments.strategies import STRATEGIES
from experiments.streams import SCENARIOS
from experiments.sweep import Engine, run_trials
from tests.experiments.tiny import NOT_ONLINE, describe, run


@pytest.fixture(scope="module")
def naive(data_root: Path) -> dict[str, Result]:
    return {
        scenario: run(describe("naive", scenario=scenario), data_root) for scenario in SCENARIOS
    }


@pytest.mark.parametrize(
    ("strategy", "scenario"),
    [
        (strategy, scenario)
        for strategy in STRATEGIES
        for scenario in SCENARIOS
        if (scenario, strategy) not in {("online", refused) for refused in NOT_ONLINE}
    ],
)
def test_every_strategy_runs_in_every_scenario(
    strategy: str, scenario: str, data_root: Path
) -> None:
    strength = 1.0 if STRATEGIES[strategy].strength else None
    description = describe(strategy, scenario=scenario, strength=strength, epochs=1)
    outcome = run(description, data_root)
    assert len(outcome.accuracy) == (1 if STRATEGIES[strategy].trains_once else 5)
    for row in outcome.accuracy:
        assert len(row) == 5
        assert all(0 <= value <= 1 for value in row)
    assert outcome.seconds_per_iteration > 0


def test_the_same_description_gives_the_same_result(
    naive: dict[str, Result], data_root: Path
) -> None:
    # Whatever state the generators were left in.
    torch.rand(3)
    again = run(describe("naive"), data_root)
    assert again.accuracy == naive["domain"].accuracy


def test_another_seed_gives_another_result(naive: dict[str, Result], data_root: Path) -> None:
    assert run(describe("naive", seed=1), data_root).accuracy != naive["domain"].accuracy


# At strength 0 a method is Naive if, and only if, weights and batches are the same, although
# each of these draws differently between experiences.
@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("strategy", ["si", "ewc-online", "lwf"])
def test_at_strength_zero_a_method_is_naive(
    strategy: str, scenario: str, naive: dict[str, Result], data_root: Path
) -> None:
    off = run(describe(strategy, scenario=scenario, strength=0.0), data_root)
    assert off.accuracy == naive[scenario].accuracy


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_avalanches_own_si_does_nothing_on_the_cpu(
    scenario: str, naive: dict[str, Result], data_root: Path
) -> None:
    builtin = run(describe("si-avalanche", scenario=scenario, strength=1e4), data_root)
    assert builtin.accuracy == naive[scenario].accuracy


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_si_differs_from_naive(scenario: str, naive: dict[str, Result], data_root: Path) -> None:
    si = run(describe("si", scenario=scenario, strength=1e3), data_root)
    assert si.accuracy != naive[scenario].accuracy


def test_backward_transfer_is_what_avalanche_says(naive: dict[str, Result]) -> None:
    for outcome in naive.values():
        found = backward_transfer(outcome.accuracy)
        assert found == pytest.approx(outcome.avalanche_backward_transfer)


def test_forgetting_is_at_least_what_avalanche_says(naive: dict[str, Result]) -> None:
    # Avalanche measures from the accuracy just after learning, the paper from the best one.
    for outcome in naive.values():
        found = forgetting(outcome.accuracy)
        assert found is not None
        assert found >= outcome.avalanche_forgetting - 1e-9


def test_the_optimiser_forgets_its_state_at_each_experience(
    data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[float] = []
    step = torch.optim.Adam.step

    def spy(self: torch.optim.Adam, *args: object) -> object:
        returned = step(self, *args)
        trunk = self.param_groups[0]["params"][0]
        steps.append(float(self.state[trunk]["step"]))
        return returned

    monkeypatch.setattr(torch.optim.Adam, "step", spy)
    run(describe("naive", epochs=2), data_root)
    # 24 samples an experience in batches of 6, twice: eight steps, five times over.
    assert steps == [*range(1, 9)] * 5


def test_loggers_write_only_on_request(data_root: Path, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    run(describe("si", strength=1.0, epochs=1), data_root)
    assert not logs.exists()
    place = Place(str(data_root), str(logs), ("tensorboard", "csv"))
    (row,) = run_trials([describe("si", strength=1.0, epochs=1)], place, Engine())
    assert row.failure is None
    written = {path.name.split(".")[0] for path in logs.rglob("*") if path.is_file()}
    assert written == {"events", "training_results", "eval_results"}
