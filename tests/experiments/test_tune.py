import math
from pathlib import Path

import pytest

from experiments import strengths
from experiments.records import Choice, Description
from experiments.strategies import STRATEGIES, with_strength
from experiments.strengths import read_strengths, strength_of, write_strengths
from experiments.tune import make_targets, tune
from tests.experiments.invented import Machine, Surface, describe_chosen

CHOICE = Choice(
    streams=("digits",),
    scenarios=("task", "class"),
    strategies=("si", "ewc"),
    seeds=(100, 101),
    epochs=None,
    device="cpu",
)


@pytest.fixture(autouse=True)
def _own_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.tune.describe", describe_chosen)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in place of that of the strengths which the project keeps."""
    folder = tmp_path / "kept"
    monkeypatch.setattr("experiments.strengths.FOLDER", folder)
    return folder


def peak_at(exponent: float) -> Surface:
    def surface(description: Description) -> float:
        assert description.strength is not None
        return 0.9 - 0.02 * (math.log10(description.strength) - exponent) ** 2

    return surface


def flat(_description: Description) -> float:
    return 0.5


def test_all_that_is_tried_is_tried_on_validation_data(tmp_path: Path) -> None:
    machine = Machine(peak_at(2))
    assert tune(CHOICE, machine, tmp_path, trials=5, keep=False) == 0
    assert {each.data.evaluation for each in machine.ran} == {"validation"}
    assert {each.seed for each in machine.ran} == {100, 101}
    assert len(machine.ran) == 2 * 2 * 5 * 2


def test_every_method_with_a_strength_has_a_range() -> None:
    targets = make_targets(Choice(("digits",), ("task",), tuple(STRATEGIES), (100,), None, "cpu"))
    assert [method for *_, method in targets] == with_strength()
    assert all(0 < target.low < target.high for target in targets.values())


def test_the_strengths_and_the_record_of_the_search_are_written(kept: Path, tmp_path: Path) -> None:
    tune(CHOICE, Machine(peak_at(2)), tmp_path / "out", trials=9, keep=True)
    entry = read_strengths("digits")["task"]["si"]
    assert strength_of("digits", "task", "si") == entry["strength"] == pytest.approx(100, rel=0.3)
    assert [entry["strength"], entry["accuracy"]] in entry["tried"]
    assert len(entry["tried"]) == 9
    assert entry["range"] == list(STRATEGIES["si"].search)
    assert (entry["evaluation"], entry["seeds"], entry["n"]) == ("validation", [100, 101], 2)
    assert entry["training"]["epochs"] == 2
    assert {"torch", "date", "optuna"} <= set(entry["versions"])
    assert not entry["at_edge"]
    out = (tmp_path / "out" / "digits.toml").read_text()
    assert out == (kept / "digits.toml").read_text()


def test_nothing_is_kept_unless_asked_for(kept: Path, tmp_path: Path) -> None:
    tune(CHOICE, Machine(flat), tmp_path / "out", trials=3, keep=False)
    assert not kept.exists()


def test_what_was_not_searched_stays_as_it_was(kept: Path, tmp_path: Path) -> None:
    old = {"strength": 7.0, "note": "old"}
    write_strengths(
        kept, "digits", {(s, m): old for s in ("task", "domain") for m in ("mas", "si")}
    )
    tune(CHOICE, Machine(flat), tmp_path / "out", trials=3, keep=True)
    found = read_strengths("digits")
    assert found["domain"] == {"mas": old, "si": old}
    assert found["task"]["mas"] == old
    assert "note" not in found["task"]["si"]
    assert set(found["class"]) == {"si", "ewc"}


def test_the_same_search_again_changes_nothing_in_the_file(kept: Path, tmp_path: Path) -> None:
    tune(CHOICE, Machine(peak_at(2)), tmp_path / "out", trials=3, keep=True)
    first = (kept / "digits.toml").read_text()
    tune(CHOICE, Machine(peak_at(2)), tmp_path / "out", trials=3, keep=True)
    assert (kept / "digits.toml").read_text() == first


def test_an_edge_a_flat_range_and_failures_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def surface(description: Description) -> float:
        if description.strategy == "ewc" and description.data.scenario == "task":
            return 0.5
        if description.strength == STRATEGIES[description.strategy].search[0]:
            raise ValueError("too weak")
        return 0.1 if description.strength != STRATEGIES[description.strategy].search[1] else 0.2

    tune(CHOICE, Machine(surface), tmp_path, trials=3, keep=False)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "digits class si 1e+06 (edge)" in " ".join(lines)
    assert "digits task ewc 31600 (flat)" in " ".join(lines)
    edge = "failed at 1 of 3 strengths (ValueError: too weak), at the edge of the range"
    assert f"digits, class, si: {edge}" in lines
    assert "digits, task, ewc: the same at every strength" in lines


def test_a_method_that_always_fails_keeps_its_old_strength_and_is_told(
    kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def surface(description: Description) -> float:
        if description.strategy == "ewc":
            raise ValueError("never")
        return 0.5

    write_strengths(kept, "digits", {("task", "ewc"): {"strength": 7.0}})
    assert tune(CHOICE, Machine(surface), tmp_path / "out", trials=3, keep=True) == 0
    assert strengths.strength_of("digits", "task", "ewc") == 7.0
    assert "failed at 3 of 3 strengths" in capsys.readouterr().out
    only = Choice(("digits",), ("task",), ("ewc",), (100,), None, "cpu")
    assert tune(only, Machine(surface), tmp_path / "out", trials=3, keep=True) == 1
