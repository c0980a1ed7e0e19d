"""What README and docs show is what the code does."""

import csv
import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from avalanche.benchmarks import classic
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.nn import functional

import si_avalanche
from experiments.bench.rows import read_rows as read_bench
from experiments.bench.telling import markdown as bench_table
from experiments.bench.workloads import ON_CPU
from experiments.protocols import read_protocol
from experiments.reproduce.outcomes import lines, outcome
from experiments.results import read_rows
from si_avalanche import formulas
from tests.digits import digits_benchmark

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
METHOD = (ROOT / "docs" / "method.md").read_text()
COMPARE = (ROOT / "docs" / "compare.md").read_text()
AVALANCHE = (ROOT / "docs" / "avalanche.md").read_text()
SPEED = (ROOT / "docs" / "speed.md").read_text()


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def test_the_readme_shows_exactly_two_commands() -> None:
    commands = [line for block in blocks(README, "bash") for line in block.splitlines() if line]
    assert len(commands) == 2
    assert commands[0].endswith("python -m experiments compare")
    assert commands[1].endswith("python -m pytest")


def small_split_mnist(**options: Any) -> Any:
    """Digits in the format of MNIST, in place of a download."""
    assert options.keys() <= set(inspect.signature(classic.SplitMNIST).parameters)
    benchmark: Any = digits_benchmark(task_labels=False)
    return benchmark


def test_the_code_in_the_readme_runs_and_shows_what_it_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("avalanche.benchmarks.SplitMNIST", small_split_mnist)
    torch.manual_seed(0)
    names: dict[str, Any] = {}
    for block in blocks(README, "python"):
        exec(
            compile(block.replace("SimpleMLP(", "SimpleMLP(input_size=64, "), "README", "exec"),
            names,
        )
    printed = capsys.readouterr().out
    assert "tensor(0.)" in printed.splitlines()[-1]
    assert names["plugin"].si.total_importance() > 0


def test_the_equations_of_the_method_page_stand_in_the_code() -> None:
    """Each block that is no loop is a piece of the function that its section is about."""
    beside_equations = [block for block in blocks(METHOD, "python") if "si." not in block]
    functions: tuple[Callable[..., Any], ...] = (
        formulas.add_path_increment_,
        formulas.consolidate,
        formulas.add_penalty_gradient,
    )
    for block, function in zip(beside_equations, functions, strict=True):
        assert "torch." in block
        assert block in inspect.getsource(function)


def test_the_loops_of_the_method_page_run_and_agree() -> None:
    whole, raw, calls = [block for block in blocks(METHOD, "python") if "si." in block]
    alone = whole.replace("si.attach(optimizer)\n", "")
    assert alone != whole
    found = []
    for loop in (whole, with_body(whole, raw), with_body(alone, calls)):
        torch.manual_seed(0)
        model = nn.Linear(3, 2).double()
        inputs = [torch.randn(8, 3, dtype=torch.float64) for _ in range(2)]
        names: dict[str, Any] = {
            "torch": torch,
            "model": model,
            "tasks": [[(x, torch.arange(8) % 2)] * 5 for x in inputs],
            "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
            "criterion": functional.cross_entropy,
        }
        exec(compile(loop, "docs/method.md", "exec"), names)
        assert names["si"].tasks == 2
        found.append(names["si"].omega["weight"])
    assert found[0].any()
    for omega in found[1:]:
        torch.testing.assert_close(omega, found[0], rtol=1e-9, atol=0)


@contextmanager
def a_group_of_one(folder: Path) -> Iterator[None]:
    """One process as a group of processes."""
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=0, world_size=1
    )
    try:
        yield
    finally:
        distributed.destroy_process_group()


def test_the_code_on_the_avalanche_page_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    # The page puts a module where pickle looks for it; here it is taken away again.
    monkeypatch.setattr(torch.optim, "sgd", None, raising=False)
    names: dict[str, Any] = {"stream": digits_benchmark().train_stream[:2]}
    code = blocks(AVALANCHE, "python")
    assert len(code) >= 10
    of_processes = [block for block in code if "fully_shard" in block]
    assert len(of_processes) == 1
    for block in code:
        with a_group_of_one(tmp_path) if block in of_processes else nullcontext():
            if block in of_processes:
                names["mesh"] = init_device_mesh("cpu", (1,))
            exec(compile(block, "docs/avalanche.md", "exec"), names)
            if block in of_processes:
                saved, resumed = (names[name].state_dict() for name in ("saved", "resumed"))
                torch.testing.assert_close(resumed, saved, rtol=0, atol=0)
                assert resumed["experiences"] == 1
    assert names["plugin"].experiences == names["done"] == 2


def with_body(loop: str, body: str) -> str:
    """The loop with other lines in place of those from the loss to the step."""
    lines = loop.splitlines(keepends=True)
    first = next(i for i, line in enumerate(lines) if "criterion" in line)
    last = next(i for i, line in enumerate(lines) if "optimizer.step" in line)
    return "".join(lines[:first]) + body + "".join(lines[last + 1 :])


def test_version_and_citation_agree() -> None:
    citation = (ROOT / "CITATION.cff").read_text()
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert f"version: {si_avalanche.__version__}\n" in citation
    assert f"## {si_avalanche.__version__}\n" in changelog


def test_the_table_in_the_readme_is_that_of_the_committed_run() -> None:
    with (ROOT / "docs" / "compare" / "summary-digits.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 33
    for row in rows:
        mean, half = (100 * float(row[f"average_accuracy{end}"]) for end in ("", "_half_width"))
        line = next(
            line for line in README.splitlines() if line.strip("|* ").startswith(row["label"])
        )
        assert f"{mean:.1f} ± {half:.1f}" in line
        if row["scenario"] == "domain":
            assert f" {float(row['time_ratio']):.2f}" in line.replace("*", "")


@pytest.mark.parametrize("kind", ["summary-digits", "summary-split_mnist", "summary-split_fmnist"])
def test_the_comparisons_told_are_those_of_the_committed_runs(kind: str) -> None:
    table = COMPARE.split(f"<!-- {kind} -->")[1].split("<!-- end -->")[0].splitlines()
    with (ROOT / "docs" / "compare" / f"{kind}.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 33
    assert {row["n"] for row in rows} == {"5"}
    for row in rows:
        column = ("", "label", "task", "domain", "class").index(row["scenario"])
        cells = next(
            cells
            for line in table
            if (cells := [cell.strip("* ") for cell in line.split("|")])[1:2] == [row["label"]]
        )
        mean, half = (100 * float(row[f"average_accuracy{end}"]) for end in ("", "_half_width"))
        assert cells[column] == f"{mean:.1f} ± {half:.1f}"


def test_the_streams_told_in_the_readme_are_those_of_the_committed_runs() -> None:
    for stream, title in (("split_mnist", "split MNIST"), ("split_fmnist", "split Fashion-MNIST")):
        with (ROOT / "docs" / "compare" / f"summary-{stream}.csv").open() as file:
            own = [row for row in csv.DictReader(file) if row["strategy"] == "si"]
        told = README.split(f"\n| {title} |")[1].split("|\n")[:3]
        for line, name in zip(told, ("average_accuracy", "to_naive", "to_best"), strict=True):
            sign = "" if name == "average_accuracy" else "+"
            cells = [cell.split(" (")[0].strip() for cell in line.split("|") if cell.strip()][-3:]
            assert cells == [with_interval(row, name, sign) for row in own]


def test_the_speed_told_is_that_of_the_committed_run() -> None:
    told = SPEED.split("<!-- bench -->")[1].split("<!-- end -->")[0].strip()
    measured = ROOT / "docs" / "speed" / "bench.csv"
    # Without a run there is nothing to tell.
    assert told == (bench_table(read_bench(measured)).strip() if measured.exists() else "")


def test_the_readme_tells_the_same_speed() -> None:
    steps = [row for row in read_bench(ROOT / "docs" / "speed" / "bench.csv") if row.part == "step"]
    table = README.split("| a step, without SI = 1 |")[1].split("\n\n")[0]
    for label, method in (
        ("si-avalanche", "si-avalanche"),
        ("nothing but the least traffic of memory", "least traffic, copied"),
        ("si-avalanche in one pass, fused Adam", "si-avalanche, one pass, fused Adam"),
    ):
        mine = [row for row in steps if row.method == method]
        medians = [f"{row.ratio_median:.2f}" for row in mine]
        assert f"| {label} | {' | '.join(medians)} |" in table
        if "fused" in label:
            fused = [f"{row.fused_ratio_median:.2f}" for row in mine]
            assert (
                f"| the same, without SI but with fused Adam = 1 | {' | '.join(fused)} |" in table
            )
    peers = ("three-call class", "van de Ven's way", "mammoth's way", "Avalanche's way")
    spans = []
    for workload in dict.fromkeys(row.workload for row in steps):
        found = [
            row.ratio_median or 0.0
            for row in steps
            if row.method in peers and row.workload == workload
        ]
        spans.append(f"{min(found):.2f} to {max(found):.2f}")
    assert " | ".join(spans) in table


def test_the_bench_trains_the_networks_that_the_speed_page_names() -> None:
    named = re.findall(r"^\| ((?:MLP|ResNet)[^|]*) \|[^|]*\| (\d+) \|$", SPEED, flags=re.MULTILINE)
    assert [f"{name}, batch {batch}" for name, batch in named] == [each.name for each in ON_CPU]


OPTIONS = list(
    csv.DictReader((ROOT / "docs" / "compare" / "options-digits.csv").read_text().splitlines())
)


def with_interval(row: dict[str, str], name: str, sign: str = "") -> str:
    mean, half = (100 * float(row[f"{name}{end}"]) for end in ("", "_half_width"))
    return f"{mean:{sign}.1f} ± {half:.1f}".replace("-", "\N{MINUS SIGN}")


@pytest.mark.parametrize("row", OPTIONS, ids=lambda row: f"{row['scenario']}-{row['variant']}")
def test_the_study_of_options_told_is_the_committed_one(row: dict[str, str]) -> None:
    section = COMPARE.split("<!-- options-digits -->")[1].split("<!-- end -->")[0]
    table = section.strip().split("\n\n")[row["network"] != "plain"].splitlines()
    line = next(line for line in table if line.strip("|` ").startswith(row["variant"]))
    assert f"| {with_interval(row, 'accuracy')} |" in line
    if row["to_default"]:
        assert f"| {with_interval(row, 'to_default', '+')} |" in line


def test_the_table_of_normalisation_policies_is_that_of_the_committed_run() -> None:
    policies = [row for row in OPTIONS if row["network"] != "plain"]
    assert len(policies) == 12
    names = {"Naive": "Naive", "default": '`"protect"`'}
    for row in policies:
        policy = row["variant"].removeprefix("normalisation = ")
        name = names.get(policy, f'`"{policy}"`')
        line = next(line for line in AVALANCHE.splitlines() if line.startswith(f"| {name} |"))
        assert f"| {with_interval(row, 'accuracy')}" in line
        assert f"| {with_interval(row, 'forgetting')} |" in line


@pytest.mark.parametrize(
    "folder", sorted((ROOT / "docs" / "reproduce").iterdir()), ids=lambda path: path.name
)
def test_the_reproductions_told_are_those_of_the_committed_trials(folder: Path) -> None:
    page = (ROOT / "docs" / "reproduce.md").read_text()
    protocol = read_protocol(folder.name)
    rows = read_rows(folder / "trials.jsonl")
    found = []
    for run in protocol.runs:
        own = [row for row in rows if replace(row.description, seed=0) == run.description]
        found += lines(outcome(protocol, run, own)) if own else []
    with (folder / "published.csv").open() as file:
        written = list(csv.DictReader(file))
    assert [(line.run, line.scenario, line.what) for line in found] == [
        (row["run"], row["scenario"], row["figure"]) for row in written
    ]
    for line, row in zip(found, written, strict=True):
        assert line.measured.mean == pytest.approx(float(row["measured"]))
        assert row["reduced"] == line.reduced
        half = (
            "" if line.measured.half_width is None else f" ± {100 * line.measured.half_width:.2f}"
        )
        assert f"| {100 * line.measured.mean:.2f}{half} | {line.measured.n} |" in page
