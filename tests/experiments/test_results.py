import json
from pathlib import Path

import pytest

from experiments.errors import ResultsError, UnknownNameError
from experiments.records import Result, Row
from experiments.results import append_row, make_folder, read_rows
from tests.experiments.tiny import describe

VERSIONS = {"python": "3", "torch": "2"}
ENDED = Row(
    describe("si", strength=0.5),
    Result(((1.0, 0.5), (0.25, 1.0)), 1e-3, 0.0, 12, 0.1, -0.1, 2.0),
    None,
    VERSIONS,
)
FAILED = Row(describe("rwalk", seed=1), None, "KeyError: 'head'", VERSIONS)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    record = make_folder(tmp_path / "new" / "folder")
    for row in (ENDED, FAILED):
        append_row(record, row)
    assert read_rows(record) == [ENDED, FAILED]


def test_a_row_is_one_line_with_description_result_and_versions(tmp_path: Path) -> None:
    record = tmp_path / "trials.jsonl"
    append_row(record, ENDED)
    append_row(record, FAILED)
    first, second = (json.loads(line) for line in record.read_text().splitlines())
    assert set(first) == set(second)
    assert first["stream"] == "split_mnist"
    assert first["strategy"] == "si"
    assert first["strength"] == 0.5
    assert first["seed"] == 0
    assert first["learning_rate"] == 1e-2
    assert first["accuracy"] == [[1.0, 0.5], [0.25, 1.0]]
    assert first["failure"] is None
    assert first["versions"] == VERSIONS
    assert second["failure"] == "KeyError: 'head'"
    assert second["accuracy"] is None


def test_rows_come_in_the_order_of_seeds_whatever_ended_first(tmp_path: Path) -> None:
    record = tmp_path / "trials.jsonl"
    for row in (FAILED, ENDED):
        append_row(record, row)
    assert [row.description.seed for row in read_rows(record)] == [0, 1]


def test_an_earlier_record_is_never_added_to(tmp_path: Path) -> None:
    append_row(make_folder(tmp_path), ENDED)
    with pytest.raises(ResultsError, match="exists already"):
        make_folder(tmp_path)


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ResultsError, match="cannot make the results folder"):
        make_folder(tmp_path / "file" / "folder")


def test_a_record_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"no record of trials at .*trials\.jsonl"):
        read_rows(tmp_path / "trials.jsonl")


@pytest.mark.parametrize("line", ["{", "[1]", "{}", '{"stream": "digits"}'])
def test_a_line_that_is_not_a_trial_is_named(line: str, tmp_path: Path) -> None:
    record = tmp_path / "trials.jsonl"
    append_row(record, ENDED)
    with record.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ResultsError, match="line 2 is not a trial"):
        read_rows(record)


def test_an_empty_record_is_an_error(tmp_path: Path) -> None:
    record = tmp_path / "trials.jsonl"
    record.touch()
    with pytest.raises(ResultsError, match="holds no trial"):
        read_rows(record)


def test_a_record_that_is_not_text_is_an_error(tmp_path: Path) -> None:
    record = tmp_path / "trials.jsonl"
    record.write_bytes(b"\xff\xfe\n")
    with pytest.raises(ResultsError, match="line 1 is not a trial"):
        read_rows(record)


def test_a_record_of_a_strategy_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    record = tmp_path / "trials.jsonl"
    append_row(record, ENDED)
    record.write_text(record.read_text().replace('"strategy": "si"', '"strategy": "sii"'))
    with pytest.raises(UnknownNameError, match="unknown strategy 'sii'; the nearest name is 'si'"):
        read_rows(record)
