"""A step as PyTorch's profiler saw it: its memory, and where it waits for the device."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch.profiler import ProfilerActivity, profile, record_function

from experiments.bench.timing import Statement

_STEP = "the step that is looked at"


@dataclass(frozen=True)
class Seen:
    """What the profiler saw of a call.

    :param rise: the most that was held at a time, beyond what was held when they began; bytes.
    :param waits: how often the GPU was waited for; None where there is none.
    """

    rise: int
    waits: int | None


def look_at(call: Statement, device: str, before: Statement | None = None) -> Seen:
    """Call once under the profiler, and read what was allocated and freed.

    What was allocated before the profiler looked is freed unseen. A step that frees what the one
    before it allocated, as gradients are, therefore needs another one before it.

    :param call: what to look at.
    :param device: whose memory.
    :param before: called first, under the profiler, and not counted.
    :return: what was seen.
    """
    with profile(activities=_activities(device), profile_memory=True) as profiler:
        if before is not None:
            before()
        with record_function(_STEP):
            call()
    events = _events_of_the_step(profiler)
    changes = [
        event["args"]["Bytes"]
        for event in events
        if event["name"] == "[memory]" and (event["args"]["Device Type"] == 0) == (device == "cpu")
    ]
    most = max(accumulate(changes, initial=0))
    waits = sum("Synchronize" in event["name"] for event in events)
    return Seen(most, None if device == "cpu" else waits)


def _activities(device: str) -> list[ProfilerActivity]:
    both = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    return both[:1] if device == "cpu" else both


def _events_of_the_step(profiler: profile) -> list[dict[str, Any]]:
    # The one form in which the profiler gives away single allocations without private names.
    with TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events: list[dict[str, Any]] = json.loads(path.read_text())["traceEvents"]
    (step,) = (e for e in events if e.get("name") == _STEP and e["cat"] == "user_annotation")
    begins, ends = step["ts"], step["ts"] + step["dur"]
    within = (event for event in events if begins <= event.get("ts", -1) <= ends)
    return sorted(within, key=lambda event: float(event["ts"]))
