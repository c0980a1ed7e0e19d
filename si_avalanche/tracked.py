"""The protected parameters of a model beside what is remembered of each."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import is_
from typing import Any

import torch
from torch import Tensor, nn

from si_avalanche import formulas
from si_avalanche.errors import NonFiniteError, ParameterSelectionError
from si_avalanche.normalisation import RunningStatistics
from si_avalanche.parameters import (
    check_patterns_match,
    plain_named_parameters,
    select_parameters,
)
from si_avalanche.settings import Options, check_fits_in
from si_avalanche.shards import anywhere, is_sharded, local, whole
from si_avalanche.state import State, state_dtype

_log = logging.getLogger("si_avalanche")

_MOST = 64
"""Sets of parameters that are remembered: heads come and go."""


@dataclass
class Lane:
    """Parameters that step together, as parallel lists; of sharded ones what this process holds."""

    names: tuple[str, ...]
    parameters: list[Any]
    importance: list[Tensor]
    path_integral: list[Tensor]
    anchor: list[Tensor]

    def __post_init__(self) -> None:
        """Note what it is made for."""
        self.before: list[Tensor] = []
        self._looks, self._pointers = _looks(self.parameters), _pointers(self.parameters)
        self._versions: list[int] | None = None
        self._important: tuple[list[int], Lane] = ([], self)
        self._is_sharded = any(map(is_sharded, self.parameters))
        same = [p.dtype == kept.dtype for p, kept in zip(self.parameters, self.anchor, strict=True)]
        self.is_plain = all(same) and not self._is_sharded

    @property
    def is_current(self) -> bool:
        """Whether the parameters still have the shapes, dtypes and devices that they had."""
        pointers = _pointers(self.parameters)
        if pointers == self._pointers and not self._is_sharded:
            return True
        self._pointers = pointers
        return self._looks == _looks(self.parameters)

    def local(self, tensors: list[Any]) -> list[Tensor]:
        """Return what this process holds of tensors that belong to the parameters."""
        return [local(tensor) for tensor in tensors] if self._is_sharded else tensors

    @property
    def weights(self) -> list[Tensor]:
        """The live parameters; not to be differentiated."""
        return self.local(self.parameters)

    @property
    def gradients(self) -> list[Tensor]:
        """Their live gradients, all of them there; sparse ones are refused by name."""
        return self.dense([p.grad for p in self.parameters])

    def dense(self, gradients: list[Any]) -> list[Tensor]:
        """Return what this process holds of gradients; sparse ones are refused by name."""
        for name, gradient in zip(self.names, gradients, strict=True):
            if gradient.is_sparse:
                raise ParameterSelectionError(
                    f"The gradient of {name!r} is sparse, which is not supported. Use sparse=False "
                    f"in its layer, or leave it out with exclude=[{name!r}]."
                )
        return self.local(gradients)

    @property
    def important(self) -> "tuple[list[int], Lane]":
        """The places of those with an importance other than zero, and their lane.

        Importance is looked at, and the device waited for, only after it has been changed.
        """
        versions = [omega._version for omega in self.importance]
        if versions != self._versions:
            flags = anywhere([bool(omega.any()) for omega in self.importance], self.parameters)
            places = [place for place, is_important in enumerate(flags) if is_important]
            self._important, self._versions = (places, self.part(places)), versions
        return self._important

    def anywhere(self, flag: bool) -> bool:
        """Whether a flag is true in one of the processes that share the parameters."""
        return any(anywhere([flag] * len(self.names), self.parameters))

    def part(self, places: Sequence[int]) -> "Lane":
        """Return the lane of the parameters at some places."""
        if len(places) == len(self.names):
            return self
        columns = (self.parameters, self.importance, self.path_integral, self.anchor)
        chosen = ([column[place] for place in places] for column in columns)
        return Lane(tuple(self.names[place] for place in places), *chosen)


class Tracked:
    """A model, its protected parameters, and their state by name."""

    def __init__(self, model: nn.Module, c: float, xi: float, options: Options) -> None:
        check_patterns_match(model, (*(options["include"] or ()), *options["exclude"]))
        self.c, self.xi, self.options = c, xi, options
        self.model, self.state = model, State()
        self.parameters: dict[str, nn.Parameter] = {}
        self.skipped: dict[str, str] = {}
        self._before: dict[str, Tensor] = {}
        self._is_trained = True
        self.follow()

    def follow(self, model: nn.Module | None = None, state: State | None = None) -> None:
        """Look at the model, or another one, anew; go on with another state, if one is given.

        Raises, before anything has changed, what ``SynapticIntelligence.begin_task`` tells, or
        ``ConfigurationError`` if strength or damping are nothing in a parameter's dtype.
        """
        model, options = self.model if model is None else model, self.options
        selection = select_parameters(model, options)
        everything = dict(plain_named_parameters(model))
        for dtype in {state_dtype(p) for p in selection.protected.values()}:
            check_fits_in(self.c, self.xi, dtype)
        new = self.state if state is None else state
        # A layer that is frozen for now still gets what it has earned in this task.
        names = [n for n in everything if n in selection.protected or n in new.importance]
        protected = {name: everything[name] for name in names}
        others = self._with_other_weights(everything) if state is None else []
        new.fit(protected, options["first_anchor"], options["replaced"], others)
        was_trained = self._is_trained
        self.model, self.state, self.parameters = model, new, protected
        self.skipped, self.statistics = selection.skipped, RunningStatistics(model)
        self._look()
        self._is_trained = any(p.requires_grad for p in protected.values())
        if was_trained and not self._is_trained:
            reasons = ", ".join(f"{name} is {why}" for name, why in list(self.skipped.items())[:5])
            _log.warning("Nothing that is protected is trained now: %s. Importance stays.", reasons)

    def _look(self) -> None:
        """Note what follows from model and parameters."""
        self._names: dict[Tensor, str] = {p: name for name, p in self.parameters.items()}
        self._foreign: set[Tensor] = set()
        self._lanes: dict[tuple[int, ...], Lane] = {}
        self._all = list(self.model.parameters())
        self._all_looks = _looks(self._all)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is known by the identity of tensors, and what a step needs."""
        found = ("_names", "_foreign", "_lanes", "_all", "_all_looks")
        kept = {name: value for name, value in self.__dict__.items() if name not in found}
        return {**kept, "_before": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Find it again."""
        self.__dict__.update(state)
        self._look()

    @property
    def has_changed(self) -> bool:
        """Whether the model has other parameters than it had, or they look otherwise."""
        if any(map(is_sharded, self._all)):
            if torch._C._current_graph_task_id() >= 0:
                return False  # what is gathered is in use
            tuple(plain_named_parameters(self.model))  # gives back what has been gathered
        now = list(self.model.parameters())
        same = len(now) == len(self._all) and all(map(is_, now, self._all))
        return not same or _looks(now) != self._all_looks

    def continues_in(self, model: nn.Module) -> bool:
        """Whether a model has some of the very parameters, or all of them with the same weights."""
        if self.knows_one_of(model.parameters()):
            return True
        parameters = dict(plain_named_parameters(model))
        same_names = parameters.keys() >= self.parameters.keys()
        return same_names and not self._with_other_weights(parameters)

    def knows_one_of(self, parameters: Iterable[Tensor]) -> bool:
        """Whether one of the parameters is protected."""
        return any(parameter in self._names for parameter in parameters)

    def _with_other_weights(self, parameters: Mapping[str, nn.Parameter]) -> list[str]:
        """The names under which another parameter stands now, with other weights in old units."""
        pairs = ((name, old, parameters.get(name)) for name, old in self.parameters.items())
        return [n for n, old, new in pairs if not (new is None or new is old or _begins(new, old))]

    def lane_of(self, parameters: Sequence[Tensor]) -> Lane:
        """Return the lane of those that are protected; follow the model if one is not known."""
        key = tuple(map(id, parameters))
        lane = self._lanes.get(key)
        if lane is None or not lane.is_current:
            unknown = [p for p in parameters if p not in self._names and p not in self._foreign]
            if unknown or lane is not None or self.has_changed:
                self.follow()
                self._foreign.update(p for p in unknown if p not in self._names)
            elif len(self._lanes) >= _MOST:
                self._lanes.clear()
            lane = self.lane([self._names[p] for p in parameters if p in self._names])
            self._lanes[key] = lane
        return lane

    def lane_with_gradients(self) -> Lane:
        """Return the lane of those that have a gradient."""
        return self.lane_of([p for p in self.parameters.values() if p.grad is not None])

    def lane(self, names: Sequence[str]) -> Lane:
        """Return the lane of protected parameters by their names."""
        kinds = (self.state.importance, self.state.path_integral, self.state.anchor)
        tensors = ([local(kind[name]) for name in names] for kind in kinds)
        return Lane(tuple(names), [self.parameters[name] for name in names], *tensors)

    def before(self, lane: Lane) -> list[Tensor]:
        """The buffers for their weights from before a step, in the dtype of the state."""
        if not lane.before:
            for name, like in zip(lane.names, lane.path_integral, strict=True):
                if name not in self._before or _looks([self._before[name]]) != _looks([like]):
                    self._before[name] = torch.empty_like(like)
            lane.before = [self._before[name] for name in lane.names]
        return lane.before

    def weights(self) -> dict[str, Tensor]:
        """All protected weights in the dtype of the state, not copied where they have it."""
        return {name: p.detach().to(state_dtype(p)) for name, p in self.parameters.items()}

    def begin_step(self) -> None:
        """Note where the task starts if this is its first step, and wait for the device then."""
        if not self.state.steps:
            modules = [m for m in self.model.modules() if getattr(m, "max_norm", None) is not None]
            moved = {p for module in modules for p in module.parameters(recurse=False)}
            restless = [name for name, p in self.parameters.items() if p in moved]
            self.state.note_start(self.weights(), self.options["first_anchor"], restless)
        if self.freezes_statistics:
            self.statistics.refuse_drift()

    @property
    def freezes_statistics(self) -> bool:
        """Whether running statistics should stay as they were after the first task."""
        return self.options["normalisation"] == "freeze" and self.state.tasks > 0

    def displacement(self) -> list[Tensor]:
        """Delta: the weights minus those at the start of the task."""
        weights, start = self.weights(), {**self.state.anchor, **self.state.start}
        return [local(theta) - local(start[name]) for name, theta in weights.items()]

    @property
    def has_moved_unseen(self) -> bool:
        """Whether weights moved in this task, but no path integral shows it."""
        lane, moved = self.lane(list(self.parameters)), self.displacement()
        if self.options["first_anchor"] == "zero":
            # Units that are new are away from their anchor anyway.
            pairs = zip(moved, lane.anchor, strict=True)
            moved = [delta.masked_fill(star == 0, 0.0) for delta, star in pairs]
        has_moved = lane.anywhere(formulas.any_nonzero(moved))
        return has_moved and not lane.anywhere(formulas.any_nonzero(lane.path_integral))

    def consolidate(self) -> None:
        """End the task (eq. 5): importance, new anchor, path integral back to zero.

        What is not finite is a ``NonFiniteError``, and nothing has changed then.
        """
        lane, state, options = self.lane(list(self.parameters)), self.state, self.options
        weights, delta = [local(theta) for theta in self.weights().values()], self.displacement()
        how = self.xi, options["clamp"], options["decay"]
        new = formulas.consolidate(lane.importance, lane.path_integral, delta, *how)
        rows = zip(weights, new, strict=True)
        flags = [not (theta.isfinite().all() and omega.isfinite().all()) for theta, omega in rows]
        flags = anywhere(flags, lane.parameters)
        if broken := [name for name, is_broken in zip(lane.names, flags, strict=True) if is_broken]:
            raise NonFiniteError(
                f"The task made weights or importance non-finite in {', '.join(broken)}: the loss "
                "has diverged. Importance and anchor are left as they were. Load weights and state "
                "from before it, and train with a smaller learning rate or strength c."
            )
        torch._foreach_copy_(lane.importance, new)
        torch._foreach_copy_(lane.anchor, weights)
        torch._foreach_zero_(lane.path_integral)
        state.start.clear()
        state.tasks, state.steps = state.tasks + 1, 0


def _looks(tensors: Sequence[Tensor]) -> list[tuple[object, ...]]:
    return [(p.requires_grad, p.shape, p.dtype, p.device) for p in tensors]


def _pointers(tensors: Sequence[Tensor]) -> list[int]:
    return [tensor.data_ptr() for tensor in tensors]


def _begins(new: Tensor, old: Tensor) -> bool:
    """Whether a parameter begins with the weights of another one, which it may have outgrown."""
    if new.dim() != old.dim() or any(n < o for n, o in zip(new.shape, old.shape, strict=True)):
        return False
    part = whole(new.detach())[tuple(slice(n) for n in old.shape)]
    return torch.equal(part.to("cpu", old.dtype), whole(old.detach()).cpu())
