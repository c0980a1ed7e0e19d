"""The package as a whole: what importing it costs and what it offers."""

import subprocess
import sys

import pytest

import si_avalanche


def test_the_mathematics_is_imported_without_avalanche() -> None:
    code = (
        "import sys; from si_avalanche import SynapticIntelligence; "
        "sys.exit(any(name.split('.')[0] == 'avalanche' for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_whole_face_is_there_and_nothing_else_is_promised() -> None:
    assert all(getattr(si_avalanche, name) is not None for name in si_avalanche.__all__)
    assert set(si_avalanche.__all__) == set(dir(si_avalanche))
    with pytest.raises(AttributeError, match="no attribute 'SIPlugins'"):
        _ = si_avalanche.SIPlugins
