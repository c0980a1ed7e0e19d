import pytest

from experiments.errors import StrengthsError
from experiments.strategies import STRATEGIES, with_strength
from experiments.streams import SCENARIOS, STREAMS
from experiments.strengths import read_strengths, strength_of, write_section

SECTIONS = [(stream, scenario) for stream in STREAMS for scenario in SCENARIOS]


@pytest.mark.parametrize(("stream", "scenario"), SECTIONS)
def test_every_method_has_a_strength_and_every_section_says_how_it_was_found(
    stream: str, scenario: str
) -> None:
    section = read_strengths()[stream][scenario]
    assert set(section) == {"note", *with_strength()}
    assert len(section["note"]) > 20
    for method in with_strength():
        found = strength_of(stream, scenario, method)
        assert found is not None
        assert found > 0


def test_strengths_were_not_searched_on_the_test_set() -> None:
    for stream, scenario in SECTIONS:
        note = read_strengths()[stream][scenario]["note"]
        assert ("training set" in note and "100" in note) or "not searched" in note


def test_a_method_without_strength_has_none() -> None:
    for method in set(STRATEGIES) - set(with_strength()):
        assert strength_of("digits", "task", method) is None


def test_a_strength_that_is_not_written_down_is_an_error_that_tells_where() -> None:
    with pytest.raises(StrengthsError, match=r"\[digits\.nowhere\].*tune"):
        strength_of("digits", "nowhere", "si")


def test_a_section_is_written_in_the_form_of_the_file() -> None:
    text = write_section("digits", "task", "how", {"si": "0.5  # told"})
    assert text == '[digits.task]\nnote = "how"\nsi = 0.5  # told\n'


def test_every_method_is_searched_with_the_same_budget() -> None:
    assert {len(set(STRATEGIES[method].grid)) for method in with_strength()} == {7}
    for method in set(STRATEGIES) - set(with_strength()):
        assert STRATEGIES[method].grid == ()
