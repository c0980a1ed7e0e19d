"""What is known of one optimiser step while it is under way."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from si_avalanche.errors import CallOrderError
from si_avalanche.live import LiveParameters
from si_avalanche.marks import Marks, mark, same_marks, share_tensors


@dataclass
class OpenStep:
    """A step between its first backward pass and the path integral.

    :param names: parameters with a gradient.
    :param gradients: their gradients as they were last seen.
    :param weights: their weights as they were then.
    :param remembered: whether those have been copied.
    :param kept: copies of gradients from the end of the backward pass, by name, before the
        penalty's gradient was added in closed form; where there is none, the task gradient is
        recovered from the live one. Between two accumulating backward passes they are what the
        next one is to be added to.
    :param protected: those whose live gradient contains the penalty's.
    :param strength: the factor of the penalty's gradient in theirs.
    :param taken_off: those from whose gradient it was taken off for an accumulating backward pass.
    :param strength_taken_off: the factor that it had there.
    :param raw: whether copies are what the live gradients were before the penalty's was added.
    :param scale: the factor of the task loss in the copies, as a ``GradScaler`` brings it; ``None``
        if there is none.
    :param taken_from_live: what of that factor the live gradients no longer had when the penalty's
        was added, because they had been unscaled.
    :param watched: whether its loss was watched.
    :param has_penalty: whether the penalty has been dealt with, be it zero.
    :param in_graph: whether it came by autograd; there are no copies then.
    :param fresh: whether a watched backward pass has brought gradients since.
    :param rebased: whether ``kept`` awaits the end of an accumulating backward pass.
    """

    names: tuple[str, ...]
    gradients: Marks
    weights: Marks
    remembered: bool
    kept: dict[str, Tensor] = field(default_factory=dict)
    protected: tuple[str, ...] = ()
    strength: float | Tensor = 0.0
    taken_off: tuple[str, ...] = ()
    strength_taken_off: float | Tensor = 0.0
    raw: bool = False
    scale: float | None = None
    taken_from_live: float = 1.0
    watched: bool = False
    has_penalty: bool = False
    in_graph: bool = False
    fresh: bool = False
    rebased: bool = False

    @property
    def all_are_kept(self) -> bool:
        """Whether every gradient has a copy."""
        return self.kept.keys() >= set(self.names)


def carried_over(
    step: OpenStep, old: LiveParameters, new: LiveParameters, unchanged: bool
) -> OpenStep | None:
    """Return a step as it goes on with those parameters that are still the same objects.

    :param step: it is changed in place.
    :param old: the parameters that it began with.
    :param new: those that it goes on with; their copies of weights are overwritten.
    :param unchanged: whether its gradients are as they were last seen.
    :return: the step, or ``None`` if no parameter is left.
    """
    here = set(new.names)
    survivors = tuple(name for name in step.names if name in here and new.has_kept(name, old))
    new.copy_before(old, survivors)
    versions = dict(zip(step.names, step.weights.versions, strict=True))
    step.weights = Marks(new.parameters(survivors), [versions[name] for name in survivors])
    step.kept = {name: copy for name, copy in step.kept.items() if name in survivors}
    step.protected = tuple(name for name in step.protected if name in survivors)
    step.names = survivors
    gradients = new.all_gradients()
    step.gradients = mark(gradients) if unchanged else Marks(gradients, [-1] * len(gradients))
    return step if survivors else None


def refuse_second_penalty(
    step: OpenStep | None, idle: OpenStep | None, gradients: Sequence[Tensor]
) -> None:
    """Refuse to add the penalty's gradient where it is already.

    :param step: the step that is open.
    :param idle: the last one that was closed without a movement.
    :param gradients: the live gradients.
    :raises CallOrderError: saying how it came there.
    """
    if step is not None and step.in_graph and same_marks(step.gradients, gradients):
        raise CallOrderError(
            "add_penalty_gradient() found the penalty's gradient there already, because the loss "
            "contained penalty(). Use one or the other."
        )
    again = step is not None and step.has_penalty and not step.in_graph
    if (again and step is not None and share_tensors(step.gradients, gradients)) or (
        idle is not None and _accumulated_once(idle.gradients, gradients)
    ):
        raise CallOrderError(
            "add_penalty_gradient() was called twice in one step: call it once, after all backward "
            "passes of the step, then step the optimiser, then call update_running_sum(); if the "
            "optimiser skipped its step, call that as well and clear the gradients."
        )


def _accumulated_once(marks: Marks, gradients: Sequence[Tensor]) -> bool:
    """Whether one backward pass was added to marked gradients since; zeroing would count too."""
    counts = dict(zip(map(id, marks.tensors), marks.versions, strict=True))
    return any(counts.get(id(g)) == g._version - 1 for g in gradients)
