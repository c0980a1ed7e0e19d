"""An experience in parts of one mini-batch each, seen once: Avalanche's own online split."""

from __future__ import annotations

from avalanche.benchmarks import with_task_labels
from avalanche.benchmarks.scenarios.online import split_online_stream

from experiments.errors import BadValueError
from experiments.untyped import Experience


def online_parts(
    experience: Experience, size: int, seed: int, *, drop_last: bool
) -> list[Experience]:
    """Split an experience in a random order, with known boundaries.

    :param experience: what to split.
    :param size: samples in a part, but for the last one.
    :param seed: decides about the order.
    :param drop_last: whether to leave out a last part that is not full.
    :return: the parts; each has the number of its experience, as accuracies are taken after
        whole experiences, and the task labels that Avalanche's split leaves out.
    :raises BadValueError: if nothing is left.
    """
    samples = len(experience.dataset)
    if drop_last and samples < size:
        raise BadValueError(
            f"an experience has {samples} samples, fewer than a batch ({size}), and drop_last "
            "leaves out what is not a full batch: choose a smaller batch"
        )
    stream = split_online_stream(
        [experience],
        size,
        # Where parts are all full, Avalanche marks the last one only if told to drop what is not.
        drop_last=drop_last or samples % size == 0,
        access_task_boundaries=True,
        seed=seed,
    )
    parts = [with_task_labels(part) for part in stream]
    for part in parts:
        part.current_experience = experience.current_experience
    return parts
