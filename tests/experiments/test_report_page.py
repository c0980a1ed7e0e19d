import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from experiments.records import Row, row_to_dict
from experiments.report import write_report
from tests.experiments.made_up import (
    comparison,
    describe,
    ended,
    failed,
    matrix,
    on_experiences,
    search,
)
from tests.experiments.parsed import ALLOWED, Page, page_of

HOSTILE = "<script>alert(1)</script></style></pre>\"'><img src=x onerror=alert(1)>$x_1$ ]]> \x1b"
SECTIONS = (
    *("run", "results", "curves", "matrices", "cost", "ewc"),
    *("importance", "failures", "methods", "trials"),
)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("compared")
    return write_report(comparison(), folder, "A study", ["Asks & answers"]).read_text()


@pytest.fixture(scope="module")
def compared(written: str) -> Page:
    return Page(written)


def hostile() -> list[Row]:
    importance = {HOSTILE: 2.0, "head": 1.0}
    rows = [
        ended(describe(strategy, stream=HOSTILE, scenario=HOSTILE, strength=strength, note=HOSTILE))
        for strategy in (HOSTILE, "si", "ewc")
        for strength in (1.0, 2.0)
    ]
    odd = [
        replace(row, result=row.result and replace(row.result, importance=importance))
        for row in rows
    ]
    last = failed(
        describe("si", stream=HOSTILE, scenario=HOSTILE, seed=1, note=HOSTILE), HOSTILE + "\ud800"
    )
    return [*odd, replace(last, versions={HOSTILE: HOSTILE})]


def test_every_section_is_there_and_told(compared: Page) -> None:
    assert [each for each in compared.all_of("id") if each in SECTIONS] == [*SECTIONS]
    assert all(len(compared.told(section)) > 40 for section in SECTIONS)


def test_the_page_is_whole_and_every_id_is_there_once(compared: Page) -> None:
    assert set(compared.tags()) <= ALLOWED
    assert {n for n, times in Counter(compared.all_of("id")).items() if times > 1} == set()


def test_every_link_goes_to_a_place_in_the_page_or_to_the_record(compared: Page) -> None:
    ids = set(compared.all_of("id"))
    links = compared.all_of("href")
    inside = [link for link in links if not link.startswith("data:")]
    assert [n for n in inside if n != "trials.jsonl" and n.removeprefix("#") not in ids] == []
    assert "trials.jsonl" in links


def test_nothing_is_asked_of_any_other_place(written: str, compared: Page) -> None:
    assert "://" not in written
    assert compared.all_of("src") == []
    assert {url for url in re.findall(r"url\(([^)]*)", written) if not url.startswith("#")} == set()
    assert "@import" not in written


def test_every_trial_is_in_the_page_as_the_record_has_it(compared: Page) -> None:
    rows = comparison()
    data = re.findall(r'\{"name": .*?"versions": \{[^}]*\}\}', compared.sections["trials"])
    assert sorted(data) == sorted(json.dumps(row_to_dict(row)) for row in rows)
    for row in rows:
        assert f"trial-{row.description.name}" in compared.all_of("id")
        assert f"#trial-{row.description.name}" in compared.all_of("href")


def test_what_was_run_names_streams_methods_seeds_settings_and_machine(compared: Page) -> None:
    told = compared.told("run")
    for fact in (
        "Split MNIST, task incremental; Split MNIST, domain incremental",
        "Naive; SI (si-avalanche); ",
        "seeds 0, 1, 2",
        "hidden layers 256-256",
        "learning rate 0.001",
        "epochs 2",
        "torch 2.9.0",
        "machine x86_64, 2 cores",
        "date 2026-11-22",
    ):
        assert fact in told


def test_a_result_has_its_interval_its_n_and_its_difference_to_naive(tmp_path: Path) -> None:
    rows = [
        ended(describe(strategy, seed=seed), loss=loss)
        for strategy, losses in (("naive", (0.2, 0.22)), ("si", (0.1, 0.1)))
        for seed, loss in enumerate(losses)
    ]
    told = page_of(rows, tmp_path).told("results")
    # t(0.975, 1) = 12.706; the differences are 20 and 24 points.
    assert "Naive 56.0 ± 25.4 52.5 ± 31.8 - - 2" in told
    assert "SI (si-avalanche) 78.0 ± 0.0 25.0 ± 0.0 +22.0 ± 25.4 +22.0 ± 25.4 Naive 2" in told


def test_one_seed_has_no_interval(tmp_path: Path) -> None:
    rows = [ended(describe("naive"), loss=0.2), ended(describe("si"), loss=0.1)]
    told = page_of(rows, tmp_path).told("results")
    assert "SI (si-avalanche) 78.0 25.0 +20.0 +20.0 Naive 1" in told
    assert "±" not in told


def test_a_difference_to_naive_is_only_taken_from_naive_trained_alike(tmp_path: Path) -> None:
    naive, si = ended(describe("naive"), loss=0.2), ended(describe("si"), loss=0.1)
    training = replace(si.description.training, epochs=9)
    longer = replace(si, description=replace(si.description, training=training))
    assert "SI (si-avalanche) 78.0 25.0 - - 1" in page_of([naive, longer], tmp_path).told("results")


def test_a_difference_of_fewer_seeds_says_of_how_many(tmp_path: Path) -> None:
    rows = [ended(describe("si", seed=seed)) for seed in range(3)]
    rows += [ended(describe("naive", seed=seed)) for seed in (1, 2, 3, 4)]
    assert "n = 2 3" in page_of(rows, tmp_path).told("results")


def test_what_each_method_cost_is_told_with_units(compared: Page) -> None:
    told = compared.told("cost")
    heading = "method ms per iteration times Naive's extra passes state trial (s) n"
    assert heading in told
    assert "Naive 1.0" in told
    assert "1.00 0 0 B 20 3" in told


def test_si_is_held_against_ewc_in_time_passes_and_memory(compared: Page) -> None:
    told = compared.told("ewc")
    for measure in ("time per iteration", "passes beyond training 0 1", "state held", "n = 3"):
        assert measure in told


def test_importance_is_told_by_parameter_and_adds_up(compared: Page) -> None:
    # 9.5, 0.5, 4 and 1 of 15.
    told = compared.told("importance")
    assert "hidden.0.weight 63.3 ± 0.0 9.5 hidden.0.bias 3.3 ± 0.0 0.5" in told
    widths = re.findall(r"width:([\d.]+)%", " ".join(compared.all_of("style")))
    assert widths[:4] == ["100.0", "5.3", "42.1", "10.5"]


def test_what_failed_is_told_with_its_reason_and_its_seeds(compared: Page) -> None:
    told = compared.told("failures")
    assert "RWalk, Split MNIST, task incremental, seeds 0 (failed) 1 (failed) 2 (failed)" in told
    assert "ValueError: it broke" in told
    assert "RWalk - - - - 0/3" in compared.told("results")


def test_where_all_failed_each_section_says_why_it_is_empty(tmp_path: Path) -> None:
    page = page_of([failed(describe("si", seed=seed)) for seed in range(2)], tmp_path)
    assert "svg" not in page.tags()
    for section in ("curves", "matrices", "cost"):
        assert "No trial ended" in page.told(section)
    assert "On no stream did trials of both" in page.told("ewc")
    assert "No trial recorded importance" in page.told("importance")
    assert "SI (si-avalanche) - - - - 0/2" in page.told("results")


def test_a_record_without_trials_is_a_page_too(tmp_path: Path) -> None:
    assert page_of([], tmp_path).tags().count("section") == len(SECTIONS)


def test_hostile_text_is_text_wherever_it_comes_from(tmp_path: Path) -> None:
    page = page_of(hostile(), tmp_path, HOSTILE, HOSTILE)
    assert set(page.tags()) <= ALLOWED
    names = {name for _, attributes in page.elements for name in attributes}
    assert {name for name in names if name.startswith("on") or name == "src"} == set()
    readable = "<script>alert(1)</script></style></pre>"
    for section in ("run", "results", "curves", "importance", "failures", "methods", "trials"):
        assert readable in page.told(section), section
    assert any(readable in label for label in page.all_of("aria-label"))


def test_variants_of_a_method_are_told_apart_by_what_differs(tmp_path: Path) -> None:
    rows = [
        ended(describe("si", seed=seed, strength=1.0, damping=damping, policy="protect"))
        for damping in (0.001, 0.1)
        for seed in range(2)
    ]
    told = page_of(rows, tmp_path).told("results")
    assert "SI (si-avalanche), damping = 0.001 " in told
    assert "SI (si-avalanche), damping = 0.1 " in told
    assert "policy" not in told
    assert "policy = protect" in page_of(rows, tmp_path).told("methods")


def test_a_search_has_a_figure_for_the_best_and_one_for_each_method(tmp_path: Path) -> None:
    told = page_of(search(strengths=3, seeds=1), tmp_path).told("curves")
    assert "The best variant of each method." in told
    assert told.count("Variants of") == 3


def test_of_very_many_variants_only_the_best_show_their_matrices(tmp_path: Path) -> None:
    told = page_of(search(strengths=9, seeds=1), tmp_path).told("matrices")
    assert "Of 27 variants, the one of each method with the highest average accuracy" in told
    assert told.count("n = 1") == 3


@pytest.mark.parametrize("count", [1, 2, 100])
def test_any_number_of_experiences_can_be_drawn(tmp_path: Path, count: int) -> None:
    rows = [
        ended(on_experiences(describe(name, seed=seed), count), experiences=count, loss=0.001)
        for name in ("naive", "si", "joint")
        for seed in range(2)
    ]
    page = page_of(rows, tmp_path)
    assert page.told("matrices").count("n = 2") == 3
    assert (tmp_path / "report.html").stat().st_size < 3e6


def test_trials_too_large_for_a_page_keep_their_last_row_and_say_so(tmp_path: Path) -> None:
    rows = [ended(describe("si", seed=seed), experiences=100, loss=0.00123) for seed in range(30)]
    page = page_of(rows, tmp_path)
    assert "only the last row is here" in page.told("trials")
    (first, *_) = re.findall(r'"accuracy": (\[\[.*?\]\])', page.sections["trials"])
    assert len(json.loads(first)) == 1
    assert "only the last row" not in page_of(rows[:1], tmp_path).told("trials")


def test_a_matrix_of_another_shape_is_left_out_and_told(tmp_path: Path) -> None:
    rows = [ended(describe("si", seed=seed)) for seed in range(3)]
    assert rows[0].result
    rows[0] = replace(rows[0], result=replace(rows[0].result, accuracy=matrix(3, 0.1)))
    assert "n = 2; 1 left out" in page_of(rows, tmp_path).told("matrices")


def test_a_trial_that_was_repeated_is_listed_twice_and_counted_once(tmp_path: Path) -> None:
    rows = [failed(describe("si")), ended(describe("si"), loss=0.1)]
    page = page_of(rows, tmp_path)
    name = rows[0].description.name
    assert {f"trial-{name}", f"trial-{name}-2"} <= set(page.all_of("id"))
    assert "SI (si-avalanche) 78.0 25.0 - - 1" in page.told("results")


def test_three_hundred_trials_are_a_moderate_page(tmp_path: Path) -> None:
    write_report(search(strengths=10, seeds=10), tmp_path, "A search")
    assert (tmp_path / "report.html").stat().st_size < 3e6


def test_every_figure_can_be_read_aloud(compared: Page) -> None:
    figures = [attributes for tag, attributes in compared.elements if tag == "svg"]
    assert len(figures) > 9
    assert all(each["role"] == "img" and len(each["aria-label"]) > 20 for each in figures)
