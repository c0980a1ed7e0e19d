"""What the tests of these libraries share."""

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="package")
def _imports_are_not_collected() -> Iterator[None]:
    """Trainer collects garbage in each training, and would look at all that was ever imported."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
