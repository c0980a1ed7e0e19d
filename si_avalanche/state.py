"""What Synaptic Intelligence remembers of every parameter, by name."""

import logging
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from si_avalanche.errors import ModelChangedError
from si_avalanche.settings import FirstAnchor, Replaced
from si_avalanche.shards import anywhere, is_sharded, local, placed_like, whole

_log = logging.getLogger("si_avalanche")


def state_dtype(parameter: Tensor) -> torch.dtype:
    """Return the dtype of a parameter's state: its own, but float32 for the 16-bit ones."""
    return torch.promote_types(parameter.dtype, torch.float32)


def pick(tensors: Mapping[str, Tensor], names: Sequence[str]) -> list[Tensor]:
    """Return the tensors of these names, in their order."""
    return [tensors[name] for name in names]


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

        Names of parameters that carry importance are logged: the penalty will pull them back.

        :param weights: all protected weights before the first step, in the dtype of the state.
        :param first_anchor: ``"zero"`` measures the first task of a unit from zero, wherever it
            starts; such units are known by their anchor.
        :param restless: names of parameters whose layers move them by themselves, such as
            ``Embedding(max_norm=...)``; not worth a word.
        """
        starts = {name: local(theta.detach()) for name, theta in weights.items()}
        for name, start in starts.items() if first_anchor == "zero" else ():
            anchor = local(self.anchor[name])
            starts[name] = torch.where(anchor == 0, anchor, start)
        flags = [not torch.equal(start, local(self.anchor[n])) for n, start in starts.items()]
        flags = anywhere(flags, list(weights.values()))
        known, self.start = self.start, {}
        for name, is_elsewhere in zip(starts, flags, strict=True):
            if is_elsewhere:
                self.start[name] = weights[name].detach().clone()
                local(self.start[name]).copy_(starts[name])
        new = [name for name in self.start if name not in known and name not in restless]
        pulled = self._important(new)
        if pulled:
            _log.warning(
                "This task starts with other weights than the last one ended with: %s. The penalty "
                "pulls them back to the anchor; displacement is measured from where they are now.",
                ", ".join(pulled),
            )

    def fit(
        self,
        parameters: Mapping[str, nn.Parameter],
        first_anchor: FirstAnchor,
        replaced: Replaced,
        others: Sequence[str] = (),
    ) -> None:
        """Follow the model: adopt new parameters, grow with grown ones, move with moved ones.

        Units that exist already keep importance, path integral and anchor; new units start with
        importance and path integral zero, anchored at their present value (or at zero, see
        ``first_anchor``).

        :param parameters: the protected parameters by name, those frozen for now included; they
            are only read.
        :param first_anchor: where new units are anchored.
        :param replaced: whether state that fits no longer is refused or dropped, with a log entry.
        :param others: names under which another layer stands, in a shape that fits.
        :raises ModelChangedError: if a parameter with state has left the model or shrunk; nothing
            has been changed then.
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
        elif misfits or other:
            names = [*misfits, *other]
            _log.warning("Importance and anchor are dropped of %s: replaced.", ", ".join(names))
            self._drop(names)
        for name, parameter in parameters.items():
            self._fit_one(name, parameter.detach(), first_anchor)

    def _important(self, names: Sequence[str]) -> list[str]:
        """Those of the names that carry importance; waits for the device."""
        tensors = pick(self.importance, names)
        flags = anywhere([bool(local(omega).any()) for omega in tensors], tensors)
        return [name for name, is_important in zip(names, flags, strict=True) if is_important]

    def _misfits(self, parameters: Mapping[str, nn.Parameter]) -> dict[str, str]:
        """State that has no place in the model, by name, with the reason."""
        misfits = {}
        for name, old in self.importance.items():
            if name not in parameters:
                misfits[name] = f"The parameter {name!r} is not in the model"
            elif not _fits_into(old.shape, parameters[name].shape):
                shapes = f"from {tuple(old.shape)} to {tuple(parameters[name].shape)}"
                misfits[name] = f"The parameter {name!r} changed its shape {shapes}"
        return misfits

    def _drop(self, names: Sequence[str]) -> None:
        for tensors in (self.importance, self.path_integral, self.anchor, self.start):
            for name in names:
                tensors.pop(name, None)

    def _fit_one(self, name: str, weights: Tensor, first_anchor: FirstAnchor) -> None:
        dtype = state_dtype(weights)
        for kind in ("importance", "path_integral", "anchor", "start"):
            tensors: dict[str, Tensor] = getattr(self, kind)
            old = tensors.get(name)
            if old is not None and old.shape == weights.shape:
                tensors[name] = placed_like(old, weights, dtype)
            elif old is not None or kind != "start":
                is_weight = kind in ("anchor", "start") and first_anchor == "initial"
                new = torch.zeros_like(weights, dtype=dtype)
                new = new.copy_(weights) if is_weight else new
                tensors[name] = new if old is None else _grown(old, new)


def _grown(old: Tensor, new: Tensor) -> Tensor:
    """Return the new tensor with the old one in its first units."""
    grown = whole(new)
    grown[tuple(slice(n) for n in old.shape)] = whole(old).to(grown)
    return placed_like(grown, new, new.dtype) if is_sharded(new) else grown


def _fits_into(old: torch.Size, new: torch.Size) -> bool:
    return len(old) == len(new) and all(o <= n for o, n in zip(old, new, strict=True))
