"""Trials that are told and not run: descriptions, and rows with invented outcomes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from experiments.records import Choice, Data, Description, Network, Result, Row, Training

Surface = Callable[[Description], float]
"""The accuracy of a trial; raises what the trial would fail with."""


def describe(
    strategy: str,
    *,
    strength: float | None = None,
    seed: int = 0,
    scenario: str = "domain",
    evaluation: str = "test",
) -> Description:
    return Description(
        data=Data("digits", scenario, evaluation=evaluation),
        strategy=strategy,
        strength=strength,
        network=Network(hidden=(8,)),
        training=Training(batch_size=6, learning_rate=1e-2, epochs=2),
        seed=seed,
    )


def describe_chosen(
    choice: Choice, stream: str, scenario: str, strategy: str, seed: int, strength: float | None
) -> Description:
    """Stand in for ``compare.describe``, so that no test depends on a stream's protocol."""
    assert stream == "digits"
    return describe(
        strategy, strength=strength, seed=seed, scenario=scenario, evaluation=choice.evaluation
    )


def result(
    *last: float, first: Sequence[float] = (), seconds: float = 1.0, passes: float = 0.0
) -> Result:
    matrix = (tuple(first), last) if first else (last,)
    return Result(matrix, seconds, passes, 0, 0.0, 0.0, 1.0)


class Machine:
    """Runs trials by looking their accuracy up, and keeps those that ended, as a store does.

    :param surface: the accuracy of a trial.
    :param backwards: whether rows come back in the opposite order, as from several workers.
    :param dies_after: calls after which it is interrupted.
    """

    def __init__(
        self, surface: Surface, *, backwards: bool = False, dies_after: int | None = None
    ) -> None:
        self.surface = surface
        self.backwards = backwards
        self.calls_left = dies_after
        self.done: dict[Description, Row] = {}
        self.ran: list[Description] = []

    def __call__(self, descriptions: Sequence[Description]) -> list[Row]:
        if self.calls_left == 0:
            raise KeyboardInterrupt
        if self.calls_left is not None:
            self.calls_left -= 1
        for each in descriptions:
            if each not in self.done:
                self.ran.append(each)
                self.done[each] = self._row(each)
        rows = [self.done[each] for each in descriptions]
        return rows[::-1] if self.backwards else rows

    def _row(self, description: Description) -> Row:
        versions = {"torch": "2.0", "date": "2020-01-01"}
        try:
            return Row(description, result(self.surface(description)), None, versions)
        except ValueError as error:
            return Row(description, None, f"ValueError: {error}", versions)
