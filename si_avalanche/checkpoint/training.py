"""Saving a training between experiences, and resuming it in a new process."""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from avalanche.training.templates import SupervisedTemplate

from si_avalanche.checkpoint.container import (
    check_writable,
    checked_path,
    read_file,
    write_file,
)
from si_avalanche.checkpoint.document import Node, Value, from_bytes, to_bytes
from si_avalanche.checkpoint.kinds import class_name
from si_avalanche.checkpoint.nodes import malformed
from si_avalanche.checkpoint.randomness import random_states, set_random_states
from si_avalanche.checkpoint.strategies import encode_strategy, restore_strategy
from si_avalanche.checkpoint.undo import Snapshot
from si_avalanche.checkpoint.writer import REMEDY, Writer
from si_avalanche.errors import (
    CallOrderError,
    CheckpointError,
    ConfigurationError,
    SIError,
    StateDictError,
)

_AT_START: WeakKeyDictionary[SupervisedTemplate, Mapping[str, str]] = WeakKeyDictionary()
"""The objects that strategies had when they were fresh: only there can state be put later."""


def save_training(path: str | os.PathLike[str], strategy: SupervisedTemplate) -> None:
    """Save a whole training in one file, between two experiences.

    Stored are the model, the optimiser, every plugin, the metrics so far, the random states of
    PyTorch, NumPy and ``random``, and the strategy's further attributes. The settings of the
    strategy's constructor, functions and loggers are configuration: they are not stored. Metric
    values that are neither numbers nor tensors, such as figures, are left out with a warning.
    The file is written without pickle, and replaces the former one all or nothing.

    :param path: the file; its folder must exist.
    :param strategy: what is trained; it is only read, and its random states go on as if nothing
        had happened. Call :func:`resume_training` on it before training: that finds at the start
        what could not be stored.
    :raises CallOrderError: within ``strategy.train()`` or ``strategy.eval()``.
    :raises CheckpointError: if something cannot be stored, naming it, or the file cannot be
        written; the former file is as it was.
    """
    place = checked_path(path)
    _check_idle(strategy, "save_training")
    tree, writer = _encode(strategy)
    known = _AT_START.get(strategy, writer.needed)
    for where, name in writer.needed.items():
        if known.get(where) != name:
            raise CheckpointError(
                f"{where} holds a {name} that was not there when training started, so that a "
                "resumed training would have nothing to put its state into. Create it when the "
                f"strategy is built. {REMEDY}"
            )
    write_file(place, to_bytes(tree, writer.tensors))


def resume_training(
    path: str | os.PathLike[str],
    strategy: SupervisedTemplate,
    stream: Sequence[Any],
    *other_streams: Sequence[Any],
) -> int:
    """Put a saved training into a freshly built strategy, and say where to go on.

    An experience that was interrupted starts from its beginning; from there on weights,
    importance and metrics are bit for bit those of a training without interruption. Without a
    file nothing is changed. ::

        done = resume_training("run.checkpoint", strategy, stream)
        for experience in stream[done:]:
            strategy.train(experience)
            save_training("run.checkpoint", strategy)

    :param path: what was given to :func:`save_training`.
    :param strategy: built as the one that was saved. Its model, optimiser and plugins keep their
        identity and get the saved state; tensors stay on their devices. What a plugin has
        as plain data, its settings included, comes from the checkpoint. While loading, a copy of
        all state is kept, to put everything back after an error.
    :param stream: the experiences of the training, in order; a list or another sequence. The
        model is adapted to those already trained.
    :param other_streams: what is evaluated in between; needed only if the model has grown there.
    :return: how many experiences of the stream have been trained; 0 without a file.
    :raises CallOrderError: if the strategy has been trained already, or trains.
    :raises CheckpointError: if the strategy has something that cannot be stored, also without a
        file; if the folder is missing; if the file is damaged or no checkpoint.
    :raises ConfigurationError: if a stream can be run through only once.
    :raises StateDictError: if the checkpoint does not fit the strategy or the stream. After each
        of these errors strategy, random states and file are as they were.
    """
    place = checked_path(path)
    _check_idle(strategy, "resume_training")
    if strategy.clock.train_exp_counter:
        raise CallOrderError(
            f"resume_training() needs a freshly built strategy; this one has been trained on "
            f"{strategy.clock.train_exp_counter} experiences. Build a new one for it."
        )
    check_writable(place)
    for given in (stream, *other_streams):
        _check_sequence(given)
    at_start = _encode(strategy)[1].needed
    done = 0
    if place.exists():
        tree, tensors = from_bytes(read_file(place))
        done = _count_done(tree, stream)
        others = [experience for other in other_streams for experience in other]
        _restore(strategy, tree, tensors, list(stream[:done]), others)
    _AT_START[strategy] = at_start
    return done


def _encode(strategy: SupervisedTemplate) -> tuple[Node, Writer]:
    random = random_states()
    try:
        return encode_strategy(strategy, random)
    except RecursionError as error:
        raise CheckpointError(
            "The strategy holds data nested too deeply to be stored. Flatten it."
        ) from error
    finally:
        set_random_states(random)


def _restore(strategy: SupervisedTemplate, tree: Node, *rest: Value) -> None:
    before, random = Snapshot(strategy), random_states()
    try:
        restore_strategy(strategy, tree, *rest)
    except BaseException as error:
        before.restore()
        set_random_states(random)
        if isinstance(error, RecursionError):
            raise malformed("root", "it is nested too deeply") from error
        if isinstance(error, SIError) or not isinstance(error, Exception):
            raise
        raise StateDictError(
            f"The checkpoint could not be put into the strategy ({class_name(error)}: {error}). "
            "Build the strategy as the one that was saved. It is as it was."
        ) from error


def _count_done(tree: Node, stream: Sequence[Any]) -> int:
    done = tree.get("done") if isinstance(tree, dict) else None
    if type(done) is not int or done < 0:
        raise malformed("root", "'done' must be an integer, 0 or more")
    if done > len(stream):
        raise StateDictError(
            f"The checkpoint was saved after {done} experiences, the stream has {len(stream)}. "
            "Give the stream of the training that was saved."
        )
    return done


def _check_idle(strategy: SupervisedTemplate, caller: str) -> None:
    if not isinstance(strategy, SupervisedTemplate):
        raise ConfigurationError(
            f"{caller}() needs a strategy derived from Avalanche's SupervisedTemplate, got "
            f"{type(strategy).__name__}."
        )
    evaluated = strategy.current_eval_stream
    evaluating = not (isinstance(evaluated, list) and not evaluated)
    if strategy.experience is not None or strategy._eval_streams is not None or evaluating:
        raise CallOrderError(
            f"{caller}() was called within strategy.train() or strategy.eval(), or after one that "
            "was broken off. Call it between experiences, when both have returned; build a new "
            "strategy if one was broken off."
        )


def _check_sequence(stream: object) -> None:
    sliced = hasattr(stream, "__len__") and hasattr(stream, "__getitem__")
    if not sliced or isinstance(stream, str | bytes | Mapping):
        given = "an iterator" if isinstance(stream, Iterable) else f"a {class_name(stream)}"
        raise ConfigurationError(
            f"A stream must have a length and be sliced, got {given}. Give a list: list(stream), "
            "or [experience]."
        )
