"""Trainings in processes of their own that are killed at a chosen moment."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import torch
from avalanche.training.plugins import SupervisedPlugin

from si_avalanche import resume_training, save_training
from tests.interruption.trainings import TRAININGS, outcome, streams_of


@dataclass(frozen=True)
class Death:
    """When to be killed.

    :param moment: a hook, ``"trained"`` (before the save) or a function of ``os``.
    :param experience: how many experiences have been trained by then.
    :param count: how often the moment passes within the experience before it kills.
    :param late: ask after Synaptic Intelligence, not before.
    """

    moment: str
    experience: int
    count: int = 1
    late: bool = False


_plan: Death | None = None
_passed = 0


def _pass(moment: str, experience: int, *, late: bool = False) -> bool:
    """Count a moment, and tell whether this is the one."""
    global _passed
    if _plan is None or (moment, experience, late) != (_plan.moment, _plan.experience, _plan.late):
        return False
    _passed += 1
    return _passed == _plan.count


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Killer(SupervisedPlugin):
    """Ends its process at the planned moment; itself it holds nothing but its place."""

    def __init__(self, *, late: bool) -> None:
        super().__init__()
        self.late = late

    def _ask(self, moment: str, strategy: Any) -> None:
        if _pass(moment, strategy.clock.train_exp_counter, late=self.late):
            _die()

    def after_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self._ask("after_backward", strategy)

    def after_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self._ask("after_update", strategy)

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self._ask("after_training_exp", strategy)

    def after_eval_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self._ask("after_eval_forward", strategy)


def train(name: str, folder: Path, plan: Death | None, *, keeping: bool = True) -> None:
    """Resume and finish a training, unless the plan says otherwise, and write what it came to."""
    global _plan, _passed
    torch.set_num_threads(1)
    _plan, _passed = plan, 0
    build, _ = TRAININGS[name]
    stream, evaluated = streams_of(name)
    strategy = build([Killer(late=False)], [Killer(late=True)])
    torch.manual_seed(1)
    path = folder / "run.checkpoint"
    done = resume_training(path, strategy, stream, evaluated) if keeping else 0
    for index, experience in enumerate(stream[done:], start=done):
        strategy.train(experience)
        strategy.eval(evaluated)
        if _pass("trained", index + 1):
            _die()
        if keeping:
            _with_deadly_writes(index + 1, lambda: save_training(path, strategy))
    torch.save(outcome(strategy), folder / "outcome")


def _with_deadly_writes(experience: int, save: Callable[[], None]) -> None:
    """Save, with functions of the system that may kill."""
    write, replace = os.write, os.replace

    def half(handle: int, content: Any) -> int:
        if _pass("write", experience):
            write(handle, content[: len(content) // 2])
            _die()
        return write(handle, content)

    def instead(source: Any, target: Any) -> None:
        if _pass("replace", experience):
            _die()
        replace(source, target)
        if _pass("replaced", experience):
            _die()

    os.write, os.replace = half, instead  # type: ignore[assignment]
    try:
        save()
    finally:
        os.write, os.replace = write, replace


_context = multiprocessing.get_context("forkserver")
# One warm process that has imported everything; each training is a fork of it.
_context.set_forkserver_preload([__name__])


def warm_up() -> None:
    """Let that process import while others test."""
    forkserver.ensure_running()


def in_process(name: str, folder: Path, plan: Death | None, *, keeping: bool = True) -> int:
    """Run a training in a process of its own, and return how that ended."""
    arguments = {"keeping": keeping}
    process = _context.Process(target=train, args=(name, folder, plan), kwargs=arguments)
    process.start()
    process.join(60)
    assert process.exitcode is not None, "the training hangs"
    return process.exitcode


for _name in TRAININGS:
    streams_of(_name)  # once, for all forks
