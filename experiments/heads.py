"""The four heads: one for everything, one a task, and two that are masked."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from avalanche.models import DynamicModule, MultiHeadClassifier, MultiTaskModule
from torch import nn

from experiments.untyped import Experience, Logits


class SingleHeadNetwork(nn.Module):
    """One head for every experience.

    :param trunk: everything before the head.
    :param width: length of what the trunk returns.
    :param outputs: number of classes.
    """

    def __init__(self, trunk: nn.Module, width: int, outputs: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = nn.Linear(width, outputs)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Compute the logits.

        :param inputs: a batch.
        :return: shape ``(batch, outputs)``.
        """
        logits: torch.Tensor = self.head(self.trunk(inputs))
        return logits


class SeenHeadNetwork(DynamicModule):
    """One head for every experience, of which only the classes seen so far take part.

    The other logits are the smallest number there is, so that softmax gives them 0 and their
    weights a gradient of exactly 0.

    :param trunk: everything before the head.
    :param width: length of what the trunk returns.
    :param outputs: number of classes.
    """

    seen: torch.Tensor

    def __init__(self, trunk: nn.Module, width: int, outputs: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = nn.Linear(width, outputs)
        self.register_buffer("seen", torch.zeros(outputs, dtype=torch.bool))

    def adaptation(self, experience: Experience) -> None:
        """Let the classes of an experience take part from now on, if this is training.

        :param experience: the experience that begins.
        """
        if self.training:
            self.seen[list(experience.classes_in_this_experience)] = True

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Compute the logits.

        :param inputs: a batch.
        :return: shape ``(batch, outputs)``.
        """
        return _masked(self.head(self.trunk(inputs)), self.seen)


class TaskHeadNetwork(MultiTaskModule):
    """One head for every experience, of which only the classes of the sample's task take part.

    :param trunk: everything before the head.
    :param width: length of what the trunk returns.
    :param outputs: number of classes.
    :param classes: the classes of each task, by task label.
    """

    own: torch.Tensor

    def __init__(
        self, trunk: nn.Module, width: int, outputs: int, classes: Sequence[Sequence[int]]
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = nn.Linear(width, outputs)
        own = torch.zeros(len(classes), outputs, dtype=torch.bool)
        for task, inside in enumerate(classes):
            own[task, list(inside)] = True
        self.register_buffer("own", own)

    def forward(self, inputs: torch.Tensor, task_labels: torch.Tensor | None) -> Logits:
        """Compute the logits of each sample's own classes, or of every task.

        :param inputs: a batch.
        :param task_labels: shape ``(batch,)``, or None for every task.
        :return: shape ``(batch, outputs)``, or a dictionary of that by task label.
        """
        logits = self.head(self.trunk(inputs))
        if task_labels is None:
            return {task: _masked(logits, own) for task, own in enumerate(self.own)}
        return _masked(logits, self.own[task_labels])

    def forward_all_tasks(self, inputs: torch.Tensor) -> Logits:
        """Compute the logits of every task.

        :param inputs: a batch.
        :return: logits by task label, each of shape ``(batch, outputs)``.
        """
        return self(inputs, None)


class MultiHeadNetwork(MultiTaskModule):
    """One head per task, chosen by the task label.

    :param trunk: everything before the heads.
    :param width: length of what the trunk returns.
    :param outputs: number of classes of each head.
    """

    def __init__(self, trunk: nn.Module, width: int, outputs: int) -> None:
        super().__init__()
        self.trunk = trunk
        # No masking: every head has exactly its task's classes, and the mask cannot be indexed
        # with the sets that Avalanche's own class timeline provides.
        self.head = MultiHeadClassifier(width, initial_out_features=outputs, masking=False)

    def forward(self, inputs: torch.Tensor, task_labels: torch.Tensor | None) -> Logits:
        """Compute the logits of each sample's own head, or of all heads seen in training.

        :param inputs: a batch.
        :param task_labels: shape ``(batch,)``, or None for every head.
        :return: shape ``(batch, outputs)``, or a dictionary of that by task label.
        """
        features = self.trunk(inputs)
        tasks = set() if task_labels is None else set(task_labels.tolist())
        if len(tasks) != 1:
            return self.head(features, task_labels)
        # A batch of one task need not be taken apart, and each head has exactly its own classes.
        return self.head.classifiers[str(tasks.pop())](features)

    def forward_all_tasks(self, inputs: torch.Tensor) -> Logits:
        """Compute the logits of every head seen in training.

        :param inputs: a batch.
        :return: logits by task label, each of shape ``(batch, outputs)``.
        """
        return self(inputs, None)


def _masked(logits: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    return logits.masked_fill(~inside, torch.finfo(logits.dtype).min)
