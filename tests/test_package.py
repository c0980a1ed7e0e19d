"""The package as a whole: what importing it costs and what it offers."""

import json
import subprocess
import sys

import pytest

import si_avalanche

_IMPORT_STEP_BY_STEP = """
import json, sys

def new_after(statement, before):
    exec(statement)
    return sorted(set(sys.modules) - before)

import torch
mathematics = new_after("from si_avalanche import SynapticIntelligence", set(sys.modules))
import avalanche.training.supervised
plugin = new_after("from si_avalanche import SIPlugin", set(sys.modules))
print(json.dumps([mathematics, plugin]))
"""


@pytest.fixture(scope="module")
def imported() -> list[set[str]]:
    """Give what is imported beyond torch, and then beyond Avalanche's strategies."""
    command = [sys.executable, "-W", "ignore", "-c", _IMPORT_STEP_BY_STEP]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    steps = json.loads(done.stdout.splitlines()[-1])
    return [{name.split(".")[0] for name in step} - sys.stdlib_module_names for step in steps]


def test_the_mathematics_is_imported_with_torch_alone(imported: list[set[str]]) -> None:
    assert imported[0] == {"si_avalanche"}


def test_the_plugin_is_imported_with_avalanche_alone(imported: list[set[str]]) -> None:
    assert imported[1] == {"si_avalanche"}


def test_the_whole_face_is_there_and_nothing_else_is_promised() -> None:
    assert all(getattr(si_avalanche, name) is not None for name in si_avalanche.__all__)
    assert set(si_avalanche.__all__) == set(dir(si_avalanche))
    with pytest.raises(AttributeError, match="no attribute 'SIPlugins'"):
        _ = si_avalanche.SIPlugins
