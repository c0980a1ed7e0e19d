from pathlib import Path

import pytest

from experiments.errors import StrengthsError
from experiments.strategies import COMPARED, STRATEGIES, with_strength
from experiments.streams import SCENARIOS, STREAMS
from experiments.strengths import FOLDER, read_strengths, strength_of, write_strengths

SEARCHED = sorted(path.stem for path in FOLDER.glob("*.toml"))


def test_only_streams_that_exist_have_strengths() -> None:
    assert {"digits", "split_mnist"} <= set(SEARCHED) <= set(STREAMS)


@pytest.mark.parametrize("stream", SEARCHED)
def test_all_that_is_compared_has_a_strength_in_every_scenario_of_a_searched_stream(
    stream: str,
) -> None:
    for scenario, methods in read_strengths(stream).items():
        assert scenario in SCENARIOS
        assert set(COMPARED) & set(with_strength()) <= set(methods) <= set(with_strength())
        for method in methods:
            found = strength_of(stream, scenario, method)
            assert found is not None
            assert found > 0


@pytest.mark.parametrize("stream", SEARCHED)
def test_a_strength_is_the_best_of_what_was_tried_on_validation_data(stream: str) -> None:
    for methods in read_strengths(stream).values():
        for entry in methods.values():
            if "tried" not in entry:
                assert "not searched" in entry["note"]
                continue
            best = max(accuracy for _, accuracy in entry["tried"])
            assert [entry["strength"], best] in entry["tried"]
            assert entry["accuracy"] == best
            assert entry["evaluation"] == "validation"
            assert min(entry["seeds"]) >= 100


def test_a_method_without_strength_has_none() -> None:
    for method in set(STRATEGIES) - set(with_strength()):
        assert strength_of("digits", "task", method) is None


@pytest.mark.parametrize(("stream", "scenario"), [("digits", "nowhere"), ("nothing", "task")])
def test_a_strength_that_is_not_written_down_is_an_error_that_tells_how_to_find_it(
    stream: str, scenario: str
) -> None:
    with pytest.raises(StrengthsError, match=rf"tune --streams {stream} --scenarios {scenario}"):
        strength_of(stream, scenario, "si")


def test_what_is_written_is_read_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.strengths.FOLDER", tmp_path)
    entry = {"strength": 1e7, "tried": [[1.0, 0.5], [1e7, 0.75]], "training": {"epochs": 2}}
    write_strengths(tmp_path, "digits", {("task", "si-avalanche"): entry})
    assert read_strengths("digits") == {"task": {"si-avalanche": entry}}
    assert strength_of("digits", "task", "si-avalanche") == 1e7
    write_strengths(tmp_path, "digits", {("task", "si-avalanche"): {"strength": 2.0}})
    assert strength_of("digits", "task", "si-avalanche") == 2.0
