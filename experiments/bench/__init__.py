"""What training with Synaptic Intelligence costs: time, memory, and how both grow.

``python -m experiments bench`` trains the same networks with SI and with its peers' ways to do it,
all in one process, in turn, and writes what it measured as a table, pictures and a CSV file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PARTS = {
    "step": "a training step in a bare PyTorch loop",
    "avalanche": "a training iteration through Avalanche",
    "memory": "bytes of state, and peak memory of a step",
    "parameters": "a step as parameters grow",
    "tensors": "a step as the same parameters lie in more tensors",
    "tasks": "a step and a consolidation as tasks grow",
    "trial": "an epoch of a stream, and whole trials with evaluation, against a bare loop",
}
"""What can be measured, in the order in which it is."""


@dataclass(frozen=True)
class Asked:
    """What a user asked the bench for.

    :param parts: names in ``PARTS``.
    :param rounds: how often each thing is timed.
    :param threads: PyTorch's threads.
    :param device: where training happens.
    :param stream: what the part ``trial`` trains on.
    :param scenario: in which scenario.
    :param data_root: the folder that holds local data sets.
    """

    parts: tuple[str, ...]
    rounds: int
    threads: int
    device: str
    stream: str
    scenario: str
    data_root: Path
