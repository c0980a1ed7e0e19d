import json
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pytest

from experiments.errors import ResultsError, UnknownNameError
from experiments.records import Row
from experiments.results import append_row, names_done, open_folder, read_rows, versions
from tests.experiments.stubs import describe, result

VERSIONS = {"python": "3", "torch": "2"}
ENDED = Row(describe(seed=0), result(0), None, VERSIONS)
FAILED = Row(describe(seed=1), None, "KeyError: 'head'", VERSIONS)


@pytest.fixture
def record(tmp_path: Path) -> Path:
    record = open_folder(tmp_path)
    append_row(record, ENDED)
    append_row(record, FAILED)
    return record


def tear(record: Path) -> str:
    """Leave half of the last line, as a process killed in mid-write does."""
    whole = record.read_text()
    torn = whole.splitlines()[-1][:40]
    record.write_text("".join(whole.splitlines(keepends=True)[:-1]) + torn)
    return torn


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    record = open_folder(tmp_path / "new" / "folder")
    for row in (ENDED, FAILED):
        append_row(record, row)
    assert read_rows(record) == [ENDED, FAILED]
    assert names_done(record) == {ENDED.description.name}


def test_a_row_is_one_line_with_name_description_result_and_versions(record: Path) -> None:
    first, second = (json.loads(line) for line in record.read_text().splitlines())
    assert set(first) == {"name", "description", "result", "failure", "versions"} == set(second)
    assert first["name"] == ENDED.description.name
    assert first["description"]["data"]["stream"] == "split_mnist"
    assert first["result"]["importance"] == {"weight": 0.25}
    assert first["failure"] is None
    assert first["versions"] == VERSIONS
    assert second["failure"] == "KeyError: 'head'"
    assert second["result"] is None


def test_rows_come_in_one_order_whatever_ended_first(tmp_path: Path) -> None:
    ordered = [
        Row(describe(seed, strategy, strength), result(seed), None, VERSIONS)
        for strategy, strength in (("naive", None), ("si", 0.5), ("si", 2.0), ("si", 10.0))
        for seed in (0, 1, 10)
    ]
    record = open_folder(tmp_path)
    for row in reversed(ordered):
        append_row(record, row)
    assert read_rows(record) == ordered


def test_a_folder_with_a_record_is_gone_on_with(record: Path) -> None:
    assert open_folder(record.parent) == record
    other = replace(ENDED, description=describe(seed=2))
    append_row(record, other)
    assert read_rows(record) == [ENDED, FAILED, other]


def test_the_first_success_of_a_trial_counts_whatever_comes_before_or_after(record: Path) -> None:
    ended = replace(FAILED, result=result(1), failure=None)
    for row in (ended, FAILED, replace(ended, result=result(7))):
        append_row(record, row)
    assert read_rows(record) == [ENDED, ended]


def test_a_trial_that_only_failed_has_its_last_reason(record: Path) -> None:
    append_row(record, replace(FAILED, failure="KeyError: 'tail'"))
    assert read_rows(record)[1].failure == "KeyError: 'tail'"


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ResultsError, match="cannot make the results folder"):
        open_folder(tmp_path / "file" / "folder")


def test_a_record_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "trials.jsonl").mkdir()
    with pytest.raises(ResultsError, match=r"cannot write to .*trials\.jsonl.*run again"):
        append_row(tmp_path / "trials.jsonl", ENDED)


def test_a_record_that_is_not_there_is_an_error_and_nothing_in_it_is_done(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"no record of trials at .*trials\.jsonl"):
        read_rows(tmp_path / "trials.jsonl")
    assert names_done(tmp_path / "trials.jsonl") == set()


@pytest.mark.parametrize("line", [b"{", b"[1]", b"{}", b'{"stream": "digits"}', b"\xff\xfe", b""])
def test_a_line_that_is_not_a_trial_is_named(line: bytes, record: Path) -> None:
    with record.open("ab") as file:
        file.write(line + b"\n")
    for read in (read_rows, names_done):
        with pytest.raises(ResultsError, match=r"line 3 is not a trial.*delete the line"):
            read(record)


def test_a_trial_that_was_edited_is_an_error(record: Path) -> None:
    record.write_text(record.read_text().replace('"learning_rate": 0.01', '"learning_rate": 0.1'))
    with pytest.raises(ResultsError, match=r"line 1 is named .* it was edited"):
        read_rows(record)


def test_a_record_of_a_strategy_that_does_not_exist_is_an_error(record: Path) -> None:
    record.write_text(record.read_text().replace('"strategy": "si"', '"strategy": "sii"'))
    with pytest.raises(UnknownNameError, match="unknown strategy 'sii'; the nearest name is 'si'"):
        read_rows(record)


def test_an_empty_record_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "trials.jsonl").touch()
    with pytest.raises(ResultsError, match="holds no trial"):
        read_rows(tmp_path / "trials.jsonl")


def test_a_torn_last_line_is_left_out_with_a_warning(
    record: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tear(record)
    before = record.read_bytes()
    assert read_rows(record) == [ENDED]
    assert f"the last line of {record} is not whole" in capsys.readouterr().err
    assert record.read_bytes() == before


def test_a_torn_last_line_is_set_aside_before_the_next_is_written(
    record: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torn = tear(record)
    append_row(record, FAILED)
    assert f"the last line of {record} was not whole" in capsys.readouterr().err
    assert read_rows(record) == [ENDED, FAILED]
    assert (record.parent / "trials.jsonl.torn").read_text() == torn + "\n"
    assert capsys.readouterr().err == ""


def test_a_torn_last_line_is_set_aside_when_the_folder_is_opened(record: Path) -> None:
    tear(record)
    open_folder(record.parent)
    assert record.read_text().endswith("}\n")
    assert read_rows(record) == [ENDED]


def test_a_record_torn_anywhere_in_its_last_line_is_never_lost(
    record: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = record.read_bytes()
    first = whole.index(b"\n") + 1
    for end in range(first, len(whole) - 1, 29):
        record.write_bytes(whole[:end])
        append_row(record, FAILED)
        assert read_rows(record) == [ENDED, FAILED]
    assert "not whole" in capsys.readouterr().err


def test_a_last_line_that_only_lost_its_end_still_counts(
    record: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record.write_text(record.read_text().rstrip("\n"))
    assert read_rows(record) == [ENDED, FAILED]
    other = replace(ENDED, description=describe(seed=2))
    append_row(record, other)
    assert read_rows(record) == [ENDED, FAILED, other]
    assert capsys.readouterr().err == ""


def append_many(record: Path, first: int) -> None:
    for seed in range(first, first + 100):
        append_row(record, replace(ENDED, description=describe(seed)))


def test_two_processes_that_write_at_once_lose_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = open_folder(tmp_path)
    spawn = get_context("spawn")
    writers = [spawn.Process(target=append_many, args=(record, first)) for first in (0, 100)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        names_done(record)
    assert "not whole" not in capsys.readouterr().err
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert [row.description.seed for row in read_rows(record)] == list(range(200))


def test_versions_tell_the_kind_of_machine_and_the_day_but_not_whose_it_is() -> None:
    told = versions()
    assert set(told) == {
        "python",
        "torch",
        "avalanche-lib",
        "si-avalanche",
        "machine",
        "date",
    }
    assert told["avalanche-lib"].startswith("0.6")
    assert "CPUs" in told["machine"]
    year, month, day = told["date"].split("-")
    assert (len(year), len(month), len(day)) == (4, 2, 2)


def test_versions_name_the_gpu_of_a_trial_that_ran_on_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: f"the GPU at {device}")
    assert versions("cuda:1")["machine"].endswith(", the GPU at cuda:1")
    assert "GPU" not in versions("cpu")["machine"]
