"""The comparison of what SI may do about batch normalisation."""

import csv
from pathlib import Path

import pytest
from torch import nn

from experiments.cli import main
from experiments.models import make_model


def test_the_study_chooses_a_strength_for_each_policy_and_tells_accuracies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("experiments.normalisation.GRID", (0.1, 10.0))
    monkeypatch.setattr("experiments.normalisation.SEARCH_SEEDS", (100,))
    folder = tmp_path / "study"
    asked = ["--scenarios", "domain", "--epochs", "1", "--seeds", "0", "1", "--processes", "1"]
    assert main(["normalisation", *asked, "--results", str(folder)]) == 0
    with (folder / "normalisation.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["policy"] for line in lines] == ["naive", "protect", "exclude", "freeze"]
    assert {line["c"] for line in lines[1:]} <= {"0.1", "10"}
    assert all(line["n"] == "2" and " ± " in line["accuracy"] for line in lines)
    assert len({line["accuracy"] for line in lines}) > 1
    assert "freeze" in capsys.readouterr().out


@pytest.mark.parametrize("scenario", ["task", "domain"])
def test_networks_have_normalisation_layers_only_if_asked_for(scenario: str) -> None:
    for normalised in (False, True):
        model = make_model(scenario, 6, 5, 2, [], normalised)
        layers = [module for module in model.modules() if isinstance(module, nn.BatchNorm1d)]
        assert len(layers) == 2 * normalised
