import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tomlkit

from experiments import strategies
from experiments.cli import main

ROOT = Path(__file__).parents[2]


def ask(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "experiments", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False
    )


BAD_REQUESTS = [
    (["--strategies", "ewc", "sii"], ["strategy 'sii'", "nearest name is 'si'", "rwalk"]),
    (["--strategies", "EWC-onlin"], ["strategy 'EWC-onlin'", "nearest name is 'ewc-online'"]),
    (["--streams", "digit"], ["stream 'digit'", "nearest name is 'digits'", "split_fmnist"]),
    (["--scenarios", "clas"], ["scenario 'clas'", "nearest name is 'class'", "domain"]),
    (["--loggers", "csvv"], ["logger 'csvv'", "nearest name is 'csv'", "tensorboard"]),
    (["--device", "gpu"], ["device 'gpu'", "cuda"]),
    (["--device", "cuda:x"], ["device 'cuda:x'"]),
    (["--device", "cuda:99"], ["device 'cuda:99' is not available"]),
    (["--seeds"], ["no seed given"]),
    (["--seeds", ""], ["no seed given"]),
    (["--seeds", "0", "1", "0"], ["seed 0 is given more than once"]),
    (["--seeds", "0,0"], ["seed 0 is given more than once"]),
    (["--seeds", "-1"], ["seed '-1'"]),
    (["--seeds", "1.5"], ["seed '1.5'"]),
    (["--epochs", "0"], ["number of epochs '0'", "at least 1"]),
    (["--epochs", "many"], ["number of epochs 'many'"]),
    (["--processes", "0"], ["number of processes '0'", "at least 1"]),
    (["--threads", "two"], ["number of threads 'two'", "at least 1"]),
    (["--engine", "dusk"], ["engine 'dusk'", "nearest name is 'dask'"]),
    (["--scheduler", "tcp://host:8786"], ["'tcp://host:8786'", "choose the engine dask"]),
    (["--strategies"], ["no strategy given"]),
    (["--strategies", "si", "si"], ["strategy 'si' is given more than once"]),
    (
        ["--streams", "split_fmnist", "--data-root", "/nowhere"],
        ["FashionMNIST/raw/t10k-labels"],
    ),
]


@pytest.mark.parametrize(
    ("command", "arguments", "named"),
    [
        (command, arguments, named)
        for command in ("compare", "tune", "options")
        for arguments, named in BAD_REQUESTS
        # A search writes no logs, and the study of SI's options knows one strategy.
        if command == "compare" or "--loggers" not in arguments
        if command != "options" or "--strategies" not in arguments
    ],
)
def test_what_cannot_be_run_is_one_clear_error_before_any_work(
    command: str,
    arguments: list[str],
    named: list[str],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([command, *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    for part in named:
        assert part in captured.err
    assert list(tmp_path.iterdir()) == []


def test_a_search_refuses_what_has_no_strength(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", "--strategies", "replay"]) == 2
    assert "unknown strategy 'replay'" in capsys.readouterr().err


# What takes longer to import than the command line may take to answer.
SLOW = {"torch", "avalanche", "numpy", "scipy", "sklearn", "matplotlib", "joblib", "dask", "optuna"}
ANSWER_AND_TELL_MODULES = """
import sys
from experiments.cli import main
try:
    status = main(sys.argv[1:])
except SystemExit as exit:
    status = exit.code
print(status, *sys.modules)
"""


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--help"], "0"),
        (["compare", "--help"], "0"),
        (["list"], "0"),
        (["compare", "--strategies", "sii"], "2"),
        (["reproduce", "zenke"], "2"),
        (["tune", "--streams", "split_cifar10"], "2"),
        (["bench", "--scenario", "online"], "2"),
        (["report", "nowhere"], "2"),
    ],
)
def test_help_list_and_errors_wait_for_nothing_that_is_slow_to_import(
    arguments: list[str], status: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", ANSWER_AND_TELL_MODULES, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    answer = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, check=True, env=environment
    )
    told, *modules = answer.stdout.splitlines()[-1].split()
    assert told == status
    assert {name.split(".")[0] for name in modules}.isdisjoint(SLOW)


def test_a_refusal_is_one_line_without_a_traceback() -> None:
    helped = ask("--help")
    refused = ask("compare", "--strategies", "sii")
    assert helped.returncode == 0
    assert "compare" in helped.stdout
    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 1


TINY = ["--streams", "split_mnist", "--scenarios", "domain", "--epochs", "1", "--processes", "1"]


def test_a_comparison_tells_records_and_draws(
    tmp_path: Path,
    data_root: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("broken on purpose")

    monkeypatch.setitem(
        strategies.STRATEGIES, "mas", strategies.Strategy("MAS", broken, "lambda_reg", (1e-3, 1e4))
    )
    chosen = ["--strategies", "naive,si", "mas", "joint", "--seeds", "0", "1"]
    place = ["--data-root", str(data_root), "--results", str(tmp_path / "results")]
    assert main(["compare", *TINY, *chosen, *place]) == 0

    output = capsys.readouterr().out
    assert "MAS" in output
    assert "failed: RuntimeError: broken on purpose (seeds 0, 1)" in output
    assert "\x1b" not in output
    assert "results" in output
    lines = (tmp_path / "results" / "trials.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    described = [row["description"] for row in rows]
    assert {(each["strategy"], each["seed"]) for each in described} == {
        (name, seed) for name in ("naive", "si", "mas", "joint") for seed in (0, 1)
    }
    for row in rows:
        assert (row["failure"] is None) == (row["description"]["strategy"] != "mas")
        assert row["versions"]["si-avalanche"] != ""
    folder = tmp_path / "results"
    made = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    assert made == {
        "trials.jsonl",
        "summary.csv",
        "accuracy-split_mnist.png",
        "matrices-split_mnist-domain.png",
        "report.html",
    }

    # The record alone tells the same again.
    (tmp_path / "results" / "summary.csv").unlink()
    assert main(["report", str(tmp_path / "results")]) == 0
    assert capsys.readouterr().out == output
    assert (tmp_path / "results" / "summary.csv").exists()


def test_the_exit_status_tells_when_everything_failed(
    tmp_path: Path,
    data_root: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("broken on purpose")

    monkeypatch.setitem(strategies.STRATEGIES, "naive", strategies.Strategy("Naive", broken))
    place = ["--data-root", str(data_root), "--results", str(tmp_path / "results")]
    assert main(["compare", *TINY, "--strategies", "naive", "--seeds", "0", *place]) == 1
    assert "failed: RuntimeError" in capsys.readouterr().out


def test_a_second_run_into_the_same_folder_goes_on_where_the_first_ended(
    tmp_path: Path, data_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ["--data-root", str(data_root), "--results", str(tmp_path)]
    assert main(["compare", *TINY, "--strategies", "naive", "--seeds", "0", *place]) == 0
    first = (tmp_path / "trials.jsonl").read_text()
    assert main(["compare", *TINY, "--strategies", "naive", "--seeds", "0", "1", *place]) == 0
    second = (tmp_path / "trials.jsonl").read_text()
    assert second.startswith(first)
    assert len(second.splitlines()) == 2
    assert "1 of 2 done before" in capsys.readouterr().err


def test_a_search_tells_its_strengths_and_keeps_its_record(
    tmp_path: Path, data_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ["--data-root", str(data_root), "--results", str(tmp_path / "search")]
    asked = ["--strategies", "si", "--seeds", "100", "--trials", "3"]
    assert main(["tune", *TINY, *asked, *place]) == 0
    assert "split_mnist.toml" in capsys.readouterr().out
    found = tomlkit.parse((tmp_path / "search" / "split_mnist.toml").read_text()).unwrap()
    lines = (tmp_path / "search" / "trials.jsonl").read_text().splitlines()
    tried = [json.loads(line)["description"] for line in lines]
    assert len(tried) == 3
    assert {each["data"]["evaluation"] for each in tried} == {"validation"}
    assert found["domain"]["si"]["strength"] in [each["strength"] for each in tried]
