"""What Synaptic Intelligence remembers of every parameter, by name."""

import logging
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from si_avalanche.errors import ModelChangedError
from si_avalanche.settings import FirstAnchor, Replaced
from si_avalanche.shards import anywhere, local, placed_like, whole

_log = logging.getLogger("si_avalanche")


def state_dtype(parameter: Tensor) -> torch.dtype:
    """Return the dtype of a parameter's state: its own, but float32 for the 16-bit ones."""
    return torch.promote_types(parameter.dtype, torch.float32)


@dataclass
class State:
    """Importance, path integral and anchor by parameter name, and the counters of the life.

    Every tensor has its parameter's shape and lies on its device, in float32 or better; none is a
    view of a live parameter.

    :param importance: Omega.
    :param path_integral: omega of the task in progress.
    :param anchor: theta*, the weights at the end of the last task.
    :param start: the weights at the start of the task in progress, of those parameters only that
        were no longer at their anchor then, because something else than training had set them.
    :param tasks: how many tasks have been consolidated.
    :param steps: optimiser steps recorded in the task in progress.
    """

    importance: dict[str, Tensor] = field(default_factory=dict)
    path_integral: dict[str, Tensor] = field(default_factory=dict)
    anchor: dict[str, Tensor] = field(default_factory=dict)
    start: dict[str, Tensor] = field(default_factory=dict)
    tasks: int = 0
    steps: int = 0

    def note_start(
        self, weights: Mapping[str, Tensor], first_anchor: FirstAnchor, restless: Container[str]
    ) -> None:
        """Remember where a task starts that does not start at the anchor; waits for the device.

        Names of parameters that carry importance are logged, because the penalty will pull them
        back; not those whose layers move them by themselves, such as ``Embedding(max_norm=...)``.
        """
        known, self.start = self.start, {}
        starts = {name: theta.clone() for name, theta in weights.items()}
        pairs = [(local(start), local(self.anchor[name])) for name, start in starts.items()]
        for start, anchor in pairs if first_anchor == "zero" else ():
            # Only units in their first task are anchored at zero.
            start.masked_fill_(anchor == 0, 0.0)
        flags = anywhere([not torch.equal(*pair) for pair in pairs], list(starts.values()))
        moved = [name for name, is_moved in zip(starts, flags, strict=True) if is_moved]
        self.start = {name: starts[name] for name in moved}
        new = [name for name in self.start if name not in known and name not in restless]
        if pulled := self._important(new):
            _log.warning(
                "This task starts with other weights than the last one ended with: %s. The penalty "
                "pulls them back to the anchor; displacement is measured from where they are now.",
                ", ".join(pulled),
            )

    def _important(self, names: Sequence[str]) -> list[str]:
        """Those of the names that carry importance; waits for the device."""
        tensors = [self.importance[name] for name in names]
        flags = anywhere([bool(local(omega).any()) for omega in tensors], tensors)
        return [name for name, is_important in zip(names, flags, strict=True) if is_important]

    def fit(
        self,
        parameters: Mapping[str, nn.Parameter],
        first_anchor: FirstAnchor,
        replaced: Replaced,
        others: Sequence[str],
    ) -> None:
        """Follow the model: adopt new parameters, grow with grown ones, move with moved ones.

        Units that exist already keep importance, path integral and anchor; new units start with
        importance and path integral zero, anchored at their present value or at zero. State that
        has no place any more, or stands now for other weights (``others``), is dropped or, before
        anything has changed, refused.
        """
        misfits = self._misfits(parameters)
        if misfits and replaced == "error":
            raise ModelChangedError(
                f"{'; '.join(misfits.values())}. Layers that carry importance may only grow. Put "
                'them back, pass replaced="drop" to forget what they have earned, or start a new '
                "object for the new model."
            )
        other = self._important([name for name in others if name not in misfits])
        if other and replaced == "error":
            _log.warning(
                "Other weights stand now under the names %s; their importance and anchor are kept "
                'by name. Pass replaced="drop" to forget them instead.',
                ", ".join(other),
            )
        elif dropped := [*misfits, *other]:
            _log.warning("Importance and anchor are dropped of %s: replaced.", ", ".join(dropped))
            for tensors in (self.importance, self.path_integral, self.anchor, self.start):
                for name in dropped:
                    tensors.pop(name, None)
        for name, parameter in parameters.items():
            for kind in ("importance", "path_integral", "anchor", "start"):
                is_weight = kind in ("anchor", "start") and first_anchor == "initial"
                self._fit_one(getattr(self, kind), name, parameter.detach(), is_weight)

    def _misfits(self, parameters: Mapping[str, nn.Parameter]) -> dict[str, str]:
        """State that has no place in the model, by name, with the reason."""
        misfits = {}
        for name, old in self.importance.items():
            if name not in parameters:
                misfits[name] = f"The parameter {name!r} is not in the model"
                continue
            shape = parameters[name].shape
            longer = any(o > n for o, n in zip(old.shape, shape, strict=False))
            if longer or len(old.shape) != len(shape):
                shapes = f"from {tuple(old.shape)} to {tuple(shape)}"
                misfits[name] = f"The parameter {name!r} changed its shape {shapes}"
        return misfits

    def _fit_one(
        self, tensors: dict[str, Tensor], name: str, weights: Tensor, is_weight: bool
    ) -> None:
        """Fit one tensor, new units with the weights or zero; of the start only what there is."""
        old, dtype = tensors.get(name), state_dtype(weights)
        if old is not None and old.shape == weights.shape:
            tensors[name] = placed_like(old, weights, dtype)
        elif old is not None or tensors is not self.start:
            new: Any = torch.zeros_like(weights, dtype=dtype)
            new = new.copy_(weights) if is_weight else new
            if old is not None:
                grown = whole(new)
                grown[tuple(slice(n) for n in old.shape)] = whole(old).to(grown)
                new = placed_like(grown, new, dtype)
            tensors[name] = new
