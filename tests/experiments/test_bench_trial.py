from pathlib import Path

import pytest

from experiments.bench.bare import bare_trial
from experiments.bench.whole import Spent, tell_trials
from experiments.cli import main
from experiments.parser import OFFLINE
from experiments.phases import Phases
from experiments.quiet import quiet
from experiments.records import Place
from experiments.streams import make_benchmark
from experiments.trial import EVALUATION, TRAINING, run_trial
from tests.experiments.tiny import describe


@pytest.mark.parametrize("scenario", OFFLINE)
def test_the_bare_loop_ends_with_the_accuracies_of_the_trial(
    scenario: str, data_root: Path
) -> None:
    trial = describe("naive", scenario=scenario)
    streams = make_benchmark(trial.data, 0, data_root, global_labels=scenario != "task")
    theirs, ours = Phases(), Phases()
    with quiet():
        measured = run_trial(trial, Place(str(data_root)), theirs).accuracy
    bare = bare_trial(trial, streams, ours)
    for own, other in zip(bare, measured, strict=True):
        assert own == pytest.approx(other, abs=1e-12)
    # Neither side has forgotten to say what it spent on what.
    assert min(each.seconds(part) for each in (theirs, ours) for part in (TRAINING, EVALUATION)) > 0


def test_the_bench_times_three_ways_to_train_and_whole_trials(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["bench", "--parts", "trial", "--rounds", "1", "--threads", "1"]) == 0
    epoch, trials = capsys.readouterr().out.split("one trial")
    for way in ("Avalanche's loader", "batches from memory", "bare PyTorch loop"):
        assert way in epoch
    for way in ("Naive", "SI", "bare loop"):
        assert way in trials


def test_an_online_stream_has_no_bare_loop(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--scenario", "online"]) == 2
    assert "task, domain, class" in capsys.readouterr().err


def test_trials_are_told_round_by_round_against_the_bare_loop(
    capsys: pytest.CaptureFixture[str],
) -> None:
    # A machine that is slow for a while is slow for both.
    naive = [Spent(1.0, 0.5, 2.0), Spent(10.0, 5.0, 30.0), Spent(1.0, 0.5, 4.0)]
    bare = [Spent(0.5, 0.25, 1.0), Spent(5.0, 2.5, 10.0), Spent(0.5, 0.25, 1.0)]
    tell_trials({"Naive": naive, "bare loop": bare}, "three rounds")
    row = next(line for line in capsys.readouterr().out.splitlines() if "Naive" in line)
    assert row.split() == ["Naive", "1.000", "0.500", "2.500", "4.000", "3.00", "2.00", "4.00"]
