"""The protected parameters of a model beside what is remembered of each."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
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
    """Parameters that step together, as parallel lists; entry k belongs to parameter k.

    :param names: of the parameters.
    :param parameters: the live ones.
    :param importance: Omega, here and below what this process holds of it.
    :param path_integral: omega.
    :param anchor: theta*.
    """

    names: tuple[str, ...]
    parameters: list[Any]
    importance: list[Tensor]
    path_integral: list[Tensor]
    anchor: list[Tensor]

    def __post_init__(self) -> None:
        """Note what it is made for."""
        self._looks, self._pointers = _looks(self.parameters), _pointers(self.parameters)
        self.before: list[Tensor] = []
        self._versions: list[int] | None = None
        self._important: tuple[list[int], Lane] = ([], self)
        self.is_sharded = any(map(is_sharded, self.parameters))

    @property
    def is_current(self) -> bool:
        """Whether the parameters still have the shapes, dtypes and devices that they had."""
        pointers = _pointers(self.parameters)
        if pointers == self._pointers and not self.is_sharded:
            return True
        self._pointers = pointers
        return self._looks == _looks(self.parameters)

    @property
    def weights(self) -> list[Tensor]:
        """The live parameters, or what this process holds of them; not to be differentiated."""
        return [local(p) for p in self.parameters] if self.is_sharded else self.parameters

    @property
    def gradients(self) -> list[Tensor]:
        """Their live gradients, all of them there.

        :raises ParameterSelectionError: if one is sparse.
        """
        gradients = [p.grad for p in self.parameters]
        for name, gradient in zip(self.names, gradients, strict=True):
            if gradient.is_sparse:
                raise ParameterSelectionError(
                    f"The gradient of {name!r} is sparse ({gradient.layout}), which is not "
                    "supported. Use sparse=False in its layer, or leave it out with "
                    f"exclude=[{name!r}]."
                )
        return [local(g) for g in gradients] if self.is_sharded else gradients

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
        lists = (self.names, self.parameters, self.importance, self.path_integral, self.anchor)
        names, *tensors = ([each[place] for place in places] for each in lists)
        return Lane(tuple(names), *tensors)


class Tracked:
    """A model, its protected parameters, and their state by name.

    :param model: the module; only read.
    :param c: the strength.
    :param xi: the damping.
    :param options: the others.
    :raises ParameterSelectionError: as :func:`~si_avalanche.parameters.select_parameters`, or if a
        pattern matches no parameter.
    """

    def __init__(self, model: nn.Module, c: float, xi: float, options: Options) -> None:
        check_patterns_match(model, (*(options["include"] or ()), *options["exclude"]))
        self.c, self.xi, self.options = c, xi, options
        self.state = State()
        self.parameters: dict[str, nn.Parameter] = {}
        self._before: dict[str, Tensor] = {}
        self._is_trained = True
        self.follow(model)

    def follow(self, model: nn.Module | None = None, state: State | None = None) -> None:
        """Look at the model anew: new, grown, frozen, thawed, moved or replaced parameters.

        :param model: the model, if it is another object than before.
        :param state: what to go on with, instead of what there is.
        :raises ModelChangedError: if a parameter with state has left the model or shrunk, and
            ``replaced`` is ``"error"``; nothing has been changed then.
        :raises ParameterSelectionError: if nothing could be protected; the same.
        :raises ConfigurationError: if the damping is nothing in a parameter's dtype; the same.
        """
        model = self.model if model is None else model
        options, new_state = self.options, self.state if state is None else state
        selection = select_parameters(model, options)
        everything = dict(plain_named_parameters(model))
        for dtype in {state_dtype(p) for p in selection.protected.values()}:
            check_fits_in(self.c, self.xi, dtype)
        # A layer that is frozen for now still gets what it has earned in this task.
        protected = {
            name: parameter
            for name, parameter in everything.items()
            if name in selection.protected or name in new_state.importance
        }
        others = self._with_other_weights(everything) if state is None else ()
        new_state.fit(protected, options["first_anchor"], options["replaced"], others)
        was_trained = self._is_trained
        self.model, self.state, self.parameters = model, new_state, protected
        self.skipped = selection.skipped
        self.statistics = RunningStatistics(model)
        self._look()
        self._is_trained = self.trains_something
        if was_trained and not self._is_trained:
            _log.warning(
                "Nothing that is protected is trained now: %s. Importance stays as it is.",
                ", ".join(f"{name} is {why}" for name, why in list(self.skipped.items())[:5]),
            )

    def _look(self) -> None:
        """Note what follows from model, parameters and state."""
        self._names = {parameter: name for name, parameter in self.parameters.items()}
        self._foreign: set[Tensor] = set()
        self._lanes: dict[tuple[int, ...], Lane] = {}
        self._all = list(self.model.parameters())
        self._all_looks = _looks(self._all)
        modules = [m for m in self.model.modules() if getattr(m, "max_norm", None) is not None]
        moved = {p for module in modules for p in module.parameters(recurse=False)}
        self._restless = {name for name, p in self.parameters.items() if p in moved}

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is known by the identity of tensors, and what a step needs."""
        derived = ("_names", "_foreign", "_lanes", "_all", "_all_looks", "_restless")
        kept = {name: value for name, value in self.__dict__.items() if name not in derived}
        return {**kept, "_before": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Find it again."""
        self.__dict__.update(state)
        self._look()

    @property
    def trains_something(self) -> bool:
        """Whether a protected parameter requires a gradient."""
        return any(parameter.requires_grad for parameter in self.parameters.values())

    @property
    def has_changed(self) -> bool:
        """Whether the model has other parameters than it had, or they look otherwise."""
        if any(map(is_sharded, self._all)):
            if torch._C._current_graph_task_id() >= 0:
                return False  # what is gathered is in use
            tuple(plain_named_parameters(self.model))  # gives back what has been gathered
        now = list(self.model.parameters())
        same = len(now) == len(self._all) and all(
            a is b for a, b in zip(now, self._all, strict=True)
        )
        return not same or _looks(now) != self._all_looks

    def continues_in(self, model: nn.Module) -> bool:
        """Whether a model has some of the very parameters, or all of them with the same weights.

        Waits for the device if it is another model.
        """
        if any(parameter in self._names for parameter in model.parameters()):
            return True
        parameters = dict(plain_named_parameters(model))
        same_names = parameters.keys() >= self.parameters.keys()
        return same_names and not self._with_other_weights(parameters)

    def _with_other_weights(self, parameters: dict[str, nn.Parameter]) -> list[str]:
        """The names under which another parameter stands now, with other weights in old units."""
        pairs = ((name, old, parameters.get(name)) for name, old in self.parameters.items())
        return [
            name
            for name, old, new in pairs
            if new is not None and new is not old and not _starts_with(new, old)
        ]

    def knows_one_of(self, parameters: Sequence[Tensor]) -> bool:
        """Whether one of the parameters is protected."""
        return any(parameter in self._names for parameter in parameters)

    def lane_of(self, parameters: Sequence[Tensor]) -> Lane:
        """Return the lane of those that are protected, in their order.

        :param parameters: any; the model is looked at anew if one is not known.
        :raises ModelChangedError: as :meth:`follow`, and the others.
        """
        key = tuple(map(id, parameters))
        lane = self._lanes.get(key)
        if lane is None or not lane.is_current:
            unknown = [p for p in parameters if p not in self._names and p not in self._foreign]
            if unknown or lane is not None or self.has_changed:
                self.follow()
                self._foreign.update(p for p in unknown if p not in self._names)
            elif len(self._lanes) >= _MOST:
                self._lanes.clear()
            lane = self._lanes[key] = self.lane(
                tuple(self._names[p] for p in parameters if p in self._names)
            )
        return lane

    def lane(self, names: Sequence[str]) -> Lane:
        """Return the lane of protected parameters by their names."""
        state = self.state
        kinds = (state.importance, state.path_integral, state.anchor)
        tensors = ([local(kind[name]) for name in names] for kind in kinds)
        return Lane(tuple(names), [self.parameters[name] for name in names], *tensors)

    def before(self, lane: Lane) -> list[Tensor]:
        """The buffers for their weights from before a step, in the dtype of the state."""
        if not lane.before:
            for name, like in zip(lane.names, lane.path_integral, strict=True):
                buffer = self._before.get(name)
                if buffer is None or _looks([buffer]) != _looks([like]):
                    self._before[name] = torch.empty_like(like)
            lane.before = [self._before[name] for name in lane.names]
        return lane.before

    def weights(self) -> dict[str, Tensor]:
        """All protected weights by name, in the dtype of the state; live ones where they have it."""
        return {name: p.detach().to(state_dtype(p)) for name, p in self.parameters.items()}

    def begin_step(self) -> None:
        """Note where the task starts if this is its first step, and wait for the device then.

        :raises CallOrderError: if running statistics that should be frozen have drifted.
        """
        if not self.state.steps:
            self.state.note_start(self.weights(), self.options["first_anchor"], self._restless)
        if self.freezes_statistics:
            self.statistics.refuse_drift()

    @property
    def freezes_statistics(self) -> bool:
        """Whether running statistics should stay as they were after the first task."""
        return self.options["normalisation"] == "freeze" and self.state.tasks > 0

    def displacement(self) -> list[Tensor]:
        """Delta: the weights minus those at the start of the task, in the order of the names."""
        state, weights = self.state, self.weights()
        starts = [state.start.get(name, state.anchor[name]) for name in weights]
        return [
            local(theta) - local(start)
            for theta, start in zip(weights.values(), starts, strict=True)
        ]

    def consolidate(self) -> None:
        """End the task (eq. 5): importance, new anchor, path integral back to zero.

        :raises NonFiniteError: if weights or importance are not finite; nothing has changed.
        """
        lane, state = self.lane(tuple(self.parameters)), self.state
        weights = [local(theta) for theta in self.weights().values()]
        new = formulas.consolidate(
            lane.importance,
            lane.path_integral,
            self.displacement(),
            self.xi,
            self.options["clamp"],
            self.options["decay"],
        )
        _refuse_non_finite(lane, weights, new)
        torch._foreach_copy_(lane.importance, new)
        torch._foreach_copy_(lane.anchor, weights)
        torch._foreach_zero_(lane.path_integral)
        state.start.clear()
        state.tasks += 1
        state.steps = 0


def _looks(tensors: Sequence[Tensor]) -> list[tuple[object, ...]]:
    return [(p.requires_grad, p.shape, p.dtype, p.device) for p in tensors]


def _pointers(tensors: Sequence[Tensor]) -> list[int]:
    return [tensor.data_ptr() for tensor in tensors]


def _starts_with(new: Tensor, old: Tensor) -> bool:
    """Whether a parameter continues another one, which it may have outgrown."""
    if new.dim() != old.dim() or any(n < o for n, o in zip(new.shape, old.shape, strict=True)):
        return False
    part = whole(new.detach())[tuple(slice(n) for n in old.shape)]
    return torch.equal(part.to("cpu", old.dtype), whole(old.detach()).cpu())


def _refuse_non_finite(lane: Lane, weights: Sequence[Tensor], importance: Sequence[Tensor]) -> None:
    pairs = zip(weights, importance, strict=True)
    flags = [not (theta.isfinite().all() and omega.isfinite().all()) for theta, omega in pairs]
    flags = anywhere(flags, lane.parameters)
    broken = [name for name, is_broken in zip(lane.names, flags, strict=True) if is_broken]
    if broken:
        raise NonFiniteError(
            f"The task made weights or importance non-finite in {', '.join(broken)}: the loss has "
            "diverged. Importance and anchor are left as they were. Load weights and state from "
            "before it, and train with a smaller learning rate or strength c."
        )
