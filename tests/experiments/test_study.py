import csv
import inspect
import math
from dataclasses import asdict
from pathlib import Path

import pytest

from experiments.errors import BadValueError
from experiments.records import Choice, Description
from experiments.si_options import DEFAULT, FAMILIES, NORMALISED, PLAIN, in_family, variants_of
from experiments.study import NAIVE, Line, compare_options, study
from si_avalanche import SI
from tests.experiments.invented import Machine, describe, describe_chosen

CHOICE = Choice(
    streams=("digits",),
    scenarios=("domain",),
    strategies=(),
    seeds=(0, 1, 2),
    epochs=None,
    device="cpu",
)
SEARCH_SEEDS = (100, 101)
TRIAL = describe("si", strength=1.0)


@pytest.fixture(autouse=True)
def _own_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.study.describe", describe_chosen)


def surface(description: Description) -> float:
    """The options move the peak, so that one strength for all would be unfair."""
    if description.strategy == "naive":
        return 0.2 + 0.1 * description.seed
    assert description.strength is not None
    chosen = dict(description.options)
    exponent = 6.0 if chosen.get("clamp") == "none" else 2.0
    if chosen.get("gradient") == "total" and description.strength > 1e3:
        raise ValueError("diverged")
    top = 0.6 if chosen.get("clamp") == "none" else 0.5
    return (
        top + 0.1 * description.seed % 1 - 0.01 * (math.log10(description.strength) - exponent) ** 2
    )


def lines(machine: Machine) -> dict[tuple[str, str], Line]:
    found = compare_options(CHOICE, machine, 3, SEARCH_SEEDS)
    return {(line.key[2], line.key[3]): line for line in found}


def leaves(description: Description) -> set[tuple[str, str]]:
    written = asdict(description)
    parts = {**written["data"], **written["network"], **written["training"]}
    return {(k, str(v)) for k, v in parts.items()} | {(k, str(v)) for k, v in written["options"]}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_variant_differs_from_the_default_in_one_thing(family: str) -> None:
    variants = variants_of(TRIAL, family)
    assert next(iter(variants)) == DEFAULT
    default = variants.pop(DEFAULT)
    assert default == in_family(TRIAL, family)
    assert len({each.name for each in variants.values()}) == len(variants)
    for label, each in variants.items():
        (changed,) = leaves(each) - leaves(default)
        assert label == " = ".join(changed)


def test_the_variants_are_all_of_sis_own_options() -> None:
    assert set(variants_of(TRIAL, PLAIN)) == {
        DEFAULT,
        "clamp = per_task",
        "clamp = none",
        "decay = 0.5",
        "decay = 0.9",
        "gradient = total",
        "first_anchor = zero",
        "xi = 0.001",
        "reset = moments",
        "reset = nothing",
    }
    normalised = variants_of(TRIAL, NORMALISED)
    assert set(normalised) == {DEFAULT, "normalisation = exclude", "normalisation = freeze"}
    assert all(each.network.normalised for each in normalised.values())


def test_what_is_taken_for_the_default_is_sis_default() -> None:
    parameters = inspect.signature(SI.__init__).parameters
    for varied in FAMILIES.values():
        for name, values in varied.items():
            assert parameters[name].default == values[0]


def test_each_variant_is_compared_at_its_own_best_strength() -> None:
    found = lines(Machine(surface))
    assert found[PLAIN, DEFAULT].strength == 1e2
    assert found[PLAIN, "clamp = none"].strength == 1e6
    assert found[PLAIN, NAIVE].strength is None


def test_strengths_are_searched_on_validation_data_with_other_seeds_than_those_compared() -> None:
    machine = Machine(surface)
    lines(machine)
    parts = {(each.data.evaluation, each.seed) for each in machine.ran}
    assert parts == {("validation", 100), ("validation", 101)} | {("test", s) for s in (0, 1, 2)}


def test_seeds_in_both_search_and_comparison_are_refused() -> None:
    with pytest.raises(BadValueError, match=r"\[1, 2\]"):
        compare_options(CHOICE, Machine(surface), 3, (1, 2, 100))


def test_differences_to_the_default_are_paired_by_seed() -> None:
    found = lines(Machine(surface))
    better = found[PLAIN, "clamp = none"]
    assert better.accuracy is not None
    assert better.accuracy.half_width is not None
    assert better.accuracy.half_width > 0.1
    assert better.to_default is not None
    assert better.to_default.mean == pytest.approx(0.1)
    assert better.to_default.half_width == pytest.approx(0.0, abs=1e-9)
    assert better.to_default.n == 3
    assert found[PLAIN, DEFAULT].to_default is None


def test_failures_are_told_beside_the_variant() -> None:
    remark = lines(Machine(surface))[PLAIN, "gradient = total"].remark
    assert "ValueError: diverged" in remark


def test_a_variant_that_always_fails_is_a_line_without_numbers() -> None:
    def broken(description: Description) -> float:
        if dict(description.options).get("clamp") == "none":
            raise ValueError("never")
        return surface(description)

    line = lines(Machine(broken))[PLAIN, "clamp = none"]
    assert (line.strength, line.accuracy, line.to_default) == (None, None, None)
    assert "never" in line.remark


def test_the_study_is_told_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert study(CHOICE, Machine(surface), tmp_path / "out", 3, SEARCH_SEEDS) == 0
    with (tmp_path / "out" / "options.csv").open(encoding="utf-8") as file:
        written = {(line["network"], line["variant"]): line for line in csv.DictReader(file)}
    line = written[PLAIN, "clamp = none"]
    assert (line["accuracy_n"], line["to_default_n"]) == ("3", "3")
    assert float(line["to_default"]) == pytest.approx(0.1)
    assert written[NORMALISED, "Naive"]["c"] == ""
    told = [" ".join(each.split()) for each in capsys.readouterr().out.splitlines()]
    (row,) = (each for each in told if each.startswith("clamp = none 1e+06"))
    assert f" 3 - {100 * float(line['to_default']):.1f} ± 0.0 3" in row
    assert any(each.startswith("gradient = total: failed at") for each in told)
