"""A training that is killed and resumed ends bit for bit as one that was not."""

import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from si_avalanche import resume_training, save_training
from tests.interruption.deaths import Death, in_process
from tests.interruption.trainings import TRAININGS, equal, index_of_si, streams_of

DEATHS = {
    "in the first experience": [Death("after_backward", 0, 3)],
    "after a backward pass": [Death("after_backward", 2, 4)],
    "after a backward pass, penalty added": [Death("after_backward", 2, 4, late=True)],
    "between the optimiser's step and its record": [Death("after_update", 1, 6)],
    "before consolidation": [Death("after_training_exp", 1)],
    "after consolidation": [Death("after_training_exp", 1, late=True)],
    "in evaluation": [Death("after_eval_forward", 2, 2)],
    "before the save": [Death("trained", 2)],
    "in the middle of the temporary file": [Death("write", 2, 2)],
    "in the first write of the first save": [Death("write", 1)],
    "before the new file takes its place": [Death("replace", 2)],
    "when the new file has taken its place": [Death("replaced", 2)],
    "again and again": [
        Death("after_backward", 0, 2),
        Death("replaced", 1),
        Death("write", 2, 2),
        Death("after_training_exp", 1, late=True),
        Death("after_update", 2, 5),
    ],
}


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the trainings come to when nobody kills or even saves them."""
    outcomes = {}
    for name in TRAININGS:
        folder = tmp_path_factory.mktemp("uninterrupted")
        assert in_process(name, folder, None, keeping=False) == 0
        outcomes[name] = torch.load(folder / "outcome", weights_only=True)
    return outcomes


@pytest.mark.parametrize("deaths", DEATHS.values(), ids=DEATHS.keys())
@pytest.mark.parametrize("name", TRAININGS)
def test_a_killed_training_resumes_bit_for_bit(
    name: str, deaths: list[Death], tmp_path: Path, uninterrupted: dict[str, Any]
) -> None:
    for death in deaths:
        assert in_process(name, tmp_path, death) == -signal.SIGKILL
    assert in_process(name, tmp_path, None) == 0
    resumed = torch.load(tmp_path / "outcome", weights_only=True)
    for part, expected in uninterrupted[name].items():
        assert equal(expected, resumed[part]), part
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["outcome", "run.checkpoint"]


def test_what_was_protected_can_be_read_as_soon_as_a_training_is_resumed(tmp_path: Path) -> None:
    build, _ = TRAININGS["growing, AdamW"]
    stream, _ = streams_of("growing, AdamW")
    strategy = build()
    strategy.train(stream[0])
    save_training(tmp_path / "run", strategy)
    fresh = build()
    assert resume_training(tmp_path / "run", fresh, stream) == 1
    fresh.plugins[index_of_si(fresh)].meet(fresh.model)
    before, now = (s.plugins[index_of_si(s)].si.omega for s in (strategy, fresh))
    assert any(omega.any() for omega in now.values())
    assert equal(dict(before), dict(now))
