"""A sharded training in a file goes on, in as many processes or in another number of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch.testing import assert_close

from tests.processes.compare import assert_all_ranks_agree, assert_same_as_one_process
from tests.processes.loops import Loop
from tests.processes.sharded_states import load_whole, resume, save, save_whole

Together = Callable[..., list[Any]]

ADAM = Loop("attach", "narrow", "adam", sharded="layers")
MOMENTUM = Loop("attach", sharded="model")
FUSED_ADAM = Loop("attach", "narrow", "adam", fused=True, sharded="model")
FUSED_MOMENTUM = Loop("attach", fused=True, sharded="layers")
LOOPS = [ADAM, MOMENTUM, FUSED_ADAM, pytest.param(FUSED_MOMENTUM, marks=pytest.mark.slow)]

# Said by torch.distributed.checkpoint wherever there is one process.
ALONE = pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")


@pytest.mark.parametrize("loop", LOOPS, ids=str)
def test_two_processes_go_on_bit_for_bit_in_the_middle_of_a_task(
    together: Together, tmp_path: Path, loop: Loop
) -> None:
    whole = together(2, save, loop, tmp_path / "saved")
    resumed = together(2, resume, loop, tmp_path / "saved")
    assert_close(resumed, whole, rtol=0.0, atol=0.0)


@ALONE
def test_one_process_goes_on_with_what_two_have_saved(together: Together, tmp_path: Path) -> None:
    whole, _ = together(2, save, ADAM, tmp_path / "saved")
    assert_same_as_one_process(resume(0, 1, ADAM, tmp_path / "saved"), whole)


@ALONE
def test_two_processes_go_on_with_what_one_has_saved(together: Together, tmp_path: Path) -> None:
    whole = save(0, 1, ADAM, tmp_path / "saved")
    resumed = together(2, resume, ADAM, tmp_path / "saved")
    assert_all_ranks_agree(resumed)
    assert_same_as_one_process(resumed[0], whole)


@pytest.mark.parametrize(("one", "other"), [(2, 1), (1, 2)])
def test_whole_tensors_in_an_ordinary_file_go_from_two_processes_to_one_and_back(
    together: Together, one: int, other: int
) -> None:
    (saved, whole), *_ = together(one, save_whole, ADAM)
    resumed = together(other, load_whole, ADAM, saved)
    assert_all_ranks_agree(resumed)
    assert_same_as_one_process(resumed[0], whole)
