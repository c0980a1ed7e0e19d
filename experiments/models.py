"""The networks: two hidden ReLU layers, and the head that the scenario asks for."""

from __future__ import annotations

import torch
from avalanche.models import MultiHeadClassifier, MultiTaskModule
from avalanche.models.dynamic_modules import avalanche_model_adaptation
from torch import nn

from experiments.untyped import Experiences, Logits


def _trunk(features: int, hidden: int, normalised: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in (features, hidden):
        layers.append(nn.Linear(width, hidden))
        if normalised:
            layers.append(nn.BatchNorm1d(hidden))
        layers.append(nn.ReLU())
    return nn.Sequential(*layers)


class SingleHeadNetwork(nn.Module):
    """One head for every experience.

    :param features: length of a flattened input.
    :param hidden: width of both hidden layers.
    :param outputs: number of classes.
    :param normalised: whether batch normalisation follows each hidden layer.
    """

    def __init__(self, features: int, hidden: int, outputs: int, normalised: bool = False) -> None:
        super().__init__()
        self.trunk = _trunk(features, hidden, normalised)
        self.head = nn.Linear(hidden, outputs)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Compute the logits.

        :param inputs: shape ``(batch, features)``.
        :return: shape ``(batch, outputs)``.
        """
        logits: torch.Tensor = self.head(self.trunk(inputs))
        return logits


class MultiHeadNetwork(MultiTaskModule):
    """One two-way head per task, chosen by the task label.

    :param features: length of a flattened input.
    :param hidden: width of both hidden layers.
    :param outputs: number of classes of each head.
    :param normalised: whether batch normalisation follows each hidden layer.
    """

    def __init__(self, features: int, hidden: int, outputs: int, normalised: bool = False) -> None:
        super().__init__()
        self.trunk = _trunk(features, hidden, normalised)
        # No masking: every head has exactly its task's classes, and the mask cannot be indexed
        # with the sets that Avalanche's own class timeline provides.
        self.head = MultiHeadClassifier(hidden, initial_out_features=outputs, masking=False)

    def forward(self, inputs: torch.Tensor, task_labels: torch.Tensor | None) -> Logits:
        """Compute the logits of each sample's own head, or of all heads seen in training.

        :param inputs: shape ``(batch, features)``.
        :param task_labels: shape ``(batch,)``, or None for every head.
        :return: shape ``(batch, outputs)``, or a dictionary of that by task label.
        """
        return self.head(self.trunk(inputs), task_labels)

    def forward_all_tasks(self, inputs: torch.Tensor) -> Logits:
        """Compute the logits of every head seen in training.

        :param inputs: shape ``(batch, features)``.
        :return: logits by task label, each of shape ``(batch, outputs)``.
        """
        return self(inputs, None)


def make_model(
    scenario: str,
    features: int,
    hidden: int,
    outputs: int,
    experiences: Experiences,
    normalised: bool = False,
) -> nn.Module:
    """Build the network of a scenario with all its heads.

    Every strategy starts with all heads, because heads that appear later draw their weights from
    whatever state a strategy left the random generator in, and because Avalanche's RWalk fails
    on a head that appears as training begins (``KeyError``: it lists its parameters in
    ``before_training``, before the model is adapted). They are added in evaluation mode, which
    tells the network nothing about the tasks to come: it still regards a task as seen only once
    it trains on it.

    :param scenario: ``"task"``, ``"domain"`` or ``"class"``.
    :param features: length of a flattened input.
    :param hidden: width of both hidden layers.
    :param outputs: number of classes of a head.
    :param experiences: the training stream, for its task labels.
    :param normalised: whether batch normalisation follows each hidden layer.
    :return: the network, in training mode.
    """
    if scenario != "task":
        return SingleHeadNetwork(features, hidden, outputs, normalised)
    model = MultiHeadNetwork(features, hidden, outputs, normalised).eval()
    for experience in experiences:
        avalanche_model_adaptation(model, experience)
    return model.train()
