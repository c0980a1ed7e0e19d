"""What is known of one optimiser step while it is under way."""

from dataclasses import dataclass, field

from torch import Tensor

from si_avalanche.marks import Marks


@dataclass
class OpenStep:
    """A step between its first backward pass and the path integral.

    :param names: parameters with a gradient, whose weights were copied.
    :param gradients: their gradients as they were last seen.
    :param weights: their weights as they were copied.
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

    names: list[str]
    gradients: Marks
    weights: Marks
    kept: dict[str, Tensor] = field(default_factory=dict)
    protected: list[str] = field(default_factory=list)
    strength: float | Tensor = 0.0
    taken_off: list[str] = field(default_factory=list)
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
