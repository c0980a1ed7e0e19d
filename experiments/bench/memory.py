"""Memory of a step as the allocator saw it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from experiments.bench.timing import Statement

_STEP = "the step that is looked at"


@dataclass(frozen=True)
class Allocations:
    """What calls asked the allocator for.

    :param rise: the most that was held at a time, beyond what was held when they began; bytes.
    :param largest: the largest single tensor, bytes; 0 if there was none.
    """

    rise: int
    largest: int


def allocations(call: Statement, device: str, before: Statement | None = None) -> Allocations:
    """Call once under PyTorch's profiler and read what was allocated and freed.

    What was allocated before the profiler looked is freed unseen. A step that frees what the one
    before it allocated, as gradients are, therefore needs another one before it.

    :param call: what to look at.
    :param device: whose memory.
    :param before: called first, under the profiler, and not counted.
    :return: what it allocated.
    """
    with profile(activities=_activities(device), profile_memory=True) as seen:
        if before is not None:
            before()
        with record_function(_STEP):
            call()
            if device != "cpu":
                torch.cuda.synchronize(device)
    events = _events(seen)
    begins = min(event["ts"] for event in events if event["name"] == _STEP)
    changes = [
        event["args"]["Bytes"]
        for event in sorted(events, key=lambda event: float(event["ts"]))
        if event["name"] == "[memory]"
        and event["ts"] >= begins
        and (event["args"]["Device Type"] == 0) == (device == "cpu")
    ]
    held = most = 0
    for change in changes:
        held += change
        most = max(most, held)
    return Allocations(most, max([0, *changes]))


def _activities(device: str) -> list[ProfilerActivity]:
    both = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    return both[:1] if device == "cpu" else both


def _events(seen: profile) -> list[dict[str, Any]]:
    # The one form in which the profiler gives away single allocations without private names.
    with TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        seen.export_chrome_trace(str(path))
        events: list[dict[str, Any]] = json.loads(path.read_text())["traceEvents"]
    return [event for event in events if event.get("name") in (_STEP, "[memory]")]
