"""One step of an optimiser, from the gradient that it finds to the path integral.

1. ``loss.backward()``: nothing of ours is there.
2. ``optimizer.step()`` begins: the weights are noted, and for the length of its step the optimiser
   is given the sum of the task gradient and the penalty's, in other memory.
3. The optimiser moves the weights.
4. ``optimizer.step()`` ends: every parameter has its task gradient again, untouched, and what moved
   goes to the path integral.
"""

import sys
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.amp import GradScaler
from torch.amp.grad_scaler import OptState
from torch.optim import LBFGS, Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.hooks import RemovableHandle

from si_avalanche import formulas
from si_avalanche.errors import CallOrderError, ConfigurationError
from si_avalanche.one_pass import OnePass
from si_avalanche.shards import is_sharded, local
from si_avalanche.tracked import Lane, Tracked


@dataclass
class OpenStep:
    """A step under way: the gradients that the optimiser would find, and what it was given."""

    optimizer: Optimizer
    lane: Lane
    found: list[Tensor]
    gradients: list[Tensor]
    """What this process holds of them."""
    given: Sequence[Tensor | None]
    scale: Tensor | None
    """The factor of a ``GradScaler`` that the optimiser takes off within its step."""
    versions: Sequence[int] = ()
    within: int = 0
    """How many steps of the same optimiser are under way within it: a subclass calls its base."""


class AtTheStep:
    """What Synaptic Intelligence does around the steps of the optimisers it is attached to."""

    def __init__(self, tracked: Tracked) -> None:
        self._tracked = tracked
        self._attached: dict[Optimizer, tuple[OnePass | None, list[RemovableHandle]]] = {}
        self._others: RemovableHandle | None = None
        self._open: OpenStep | None = None
        self.kept: dict[Tensor, Tensor] = {}
        """Task gradients of the step to come by parameter, unscaled, whatever ``grad`` becomes."""

    def _before_step(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Begin the step now or, if it has a closure, when that has brought the gradients."""
        if isinstance(optimizer, LBFGS):
            group = optimizer.param_groups[0]
            if group["max_iter"] > 1 or group["line_search_fn"] is not None:
                raise _several_evaluations(optimizer)
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if closure is None:
            self._begin(optimizer)
            return None
        begins = self._begins_after(closure, optimizer)
        if len(args) > 1:
            return (args[0], begins, *args[2:]), kwargs
        return args, {**kwargs, "closure": begins}

    def _begins_after(self, closure: Callable[[], Any], optimizer: Optimizer) -> Callable[[], Any]:
        """Return the closure with the beginning of the step at its end."""
        everything = _parameters_of(optimizer)
        versions: list[int] | None = [p._version for p in everything]

        def evaluate() -> Any:  # noqa: ANN401
            nonlocal versions
            if versions != [p._version for p in everything]:
                self._abandon()
                raise _several_evaluations(optimizer)
            with torch.enable_grad():
                loss = closure()
            versions = None
            self._begin(optimizer)
            return loss

        return evaluate

    @torch.no_grad()
    def _begin(self, optimizer: Optimizer) -> None:
        """Note the weights and give the optimiser the sum of both gradients, or do its work."""
        tracked, everything = self._tracked, _parameters_of(optimizer)
        if self._open is not None:
            outer = self._open.optimizer
            if outer is optimizer and _steps_under_way(outer) > 1:
                self._open.within += 1
                return
            is_inner = outer is not optimizer and self._is_within_a_step(everything)
            if is_inner and _steps_under_way(outer):
                raise _within_another(optimizer, outer)
            self._abandon()
        lane = tracked.lane_of([p for p in everything if p.grad is not None])
        if not lane.names:
            return
        tracked.begin_step()
        found, scale = [p.grad for p in lane.parameters], getattr(optimizer, "grad_scale", None)
        gradients, one_pass = lane.dense(found), self._attached[optimizer][0]
        step = self._open = OpenStep(optimizer, lane, found, gradients, found, scale)
        integrands = self._integrands(step)
        if one_pass and one_pass.step(lane, gradients, integrands, scale, tracked):
            step.given = [None] * len(found)
        else:
            before = tracked.before(lane)
            torch._foreach_copy_(before, lane.weights)
            c = tracked.c * scale if scale is not None and tracked.c else tracked.c
            # Where there is no penalty it is a copy: an optimiser may change it unseen.
            given = _with_penalty(lane, gradients, before, c)
            if not lane.is_plain:
                given = [_as_gradient(*pair) for pair in zip(given, found, strict=True)]
            step.given, step.versions = given, [gradient._version for gradient in given]
        for parameter, gradient in zip(lane.parameters, step.given, strict=True):
            parameter.grad = gradient

    @torch.no_grad()
    def _after_step(self, optimizer: Optimizer, *_: object) -> None:
        """Give the gradients back and add what moved to the path integral (eq. 3)."""
        step, tracked = self._open, self._tracked
        if step is None or step.optimizer is not optimizer:
            return
        if step.within:
            step.within -= 1
            return
        lane, is_done, self._open = step.lane, step.given[0] is None, None
        for parameter, gradient in zip(lane.parameters, step.found, strict=True):
            parameter.grad = gradient
        step.given = ()  # their memory may be used again
        if not is_done:
            before, after = tracked.before(lane), lane.weights
            integrands = self._integrands(step)
            if tracked.options["gradient"] == "total":
                integrands = _with_penalty(lane, integrands, before, tracked.c)
            # Only then may a gradient be infinite although its weight is not.
            if self.kept or hasattr(optimizer, "found_inf"):
                rows = zip(integrands, before, after, strict=True)
                integrands = [g.masked_fill(start == end, 0.0) for g, start, end in rows]
            formulas.add_path_increment_(lane.path_integral, integrands, before, after)
        for parameter in lane.parameters if self.kept else ():
            self.kept.pop(parameter, None)
        tracked.state.steps += 1

    def _integrands(self, step: OpenStep) -> list[Tensor]:
        """Return the task gradients that the path integral takes: those found, or those kept."""
        gradients = step.gradients
        if step.scale is not None:
            gradients = [gradient / step.scale for gradient in gradients]
        if self.kept:
            pairs = zip(step.lane.parameters, gradients, strict=True)
            gradients = [self.kept.get(parameter, gradient) for parameter, gradient in pairs]
        return gradients

    def _is_within_a_step(self, parameters: Iterable[Any]) -> bool:
        """Whether a step under way has given these parameters the gradients that they have."""
        given = set() if self._open is None else set(map(id, self._open.given))
        return any(id(p.grad) in given for p in parameters)

    def _abandon(self) -> None:
        """Forget a step that an error has ended; give the gradients back that are as they were."""
        step, self._open = self._open, None
        if step is not None:
            columns = step.lane.parameters, step.found, step.given, step.versions
            for parameter, found, given, version in zip(*columns, strict=False):
                if parameter.grad is given and given is not None and given._version == version:
                    parameter.grad = found

    @property
    def optimizers(self) -> dict[Optimizer, bool]:
        """The optimisers it is attached to, each with whether in one pass."""
        return {each: one_pass is not None for each, (one_pass, _) in self._attached.items()}

    def attach(self, optimizer: Optimizer, fused: bool) -> None:
        """Be there at each step of an optimiser; see ``SynapticIntelligence.attach``."""
        optimizer = _with_hooks(optimizer)
        _parameters_of(optimizer)
        hooks = optimizer._optimizer_step_pre_hooks.values()
        owners = [getattr(hook, "__self__", None) for hook in hooks]
        if any(isinstance(owner, AtTheStep) and owner is not self for owner in owners):
            raise ConfigurationError(
                f"Another SynapticIntelligence is attached to this {type(optimizer).__name__}: "
                "each would add its penalty. Detach it; in Avalanche keep one SIPlugin, whose c "
                "may be a list or a function."
            )
        one_pass = OnePass(optimizer) if fused else None
        self.detach(optimizer)
        before = optimizer.register_step_pre_hook(self._before_step)
        after = optimizer.register_step_post_hook(self._after_step)
        self._attached[optimizer] = one_pass, [before, after]

    def attach_others(self, fused: bool) -> None:
        """Attach to every optimiser that steps; see ``SynapticIntelligence.attach_others``."""
        here = weakref.ref(self)

        def attach(optimizer: Optimizer, *_: object) -> None:
            me, parameters = here(), [p for g in optimizer.param_groups for p in g["params"]]
            if me is None or optimizer in me._attached or me._is_within_a_step(parameters):
                return
            if me._tracked.knows_one_of(parameters):
                me.attach(optimizer, fused)

        self._others = register_optimizer_step_pre_hook(attach)

    def detach(self, optimizer: Optimizer | None = None) -> None:
        """Let go of one optimiser, or of all and others; harmless if it is attached to none."""
        if optimizer is None and self._others is not None:
            self._others.remove()
        for each in list(self._attached) if optimizer is None else [_with_hooks(optimizer)]:
            for handle in self._attached.pop(each, (None, []))[1]:
                handle.remove()

    @torch.no_grad()
    def keep_gradient(self, scaler: GradScaler | None = None) -> None:
        """Copy the gradients as they are; see ``SynapticIntelligence.keep_gradient``."""
        lane, scale = self._tracked.lane_with_gradients(), scale_of(scaler, self._attached)
        columns = zip(lane.parameters, lane.gradients, lane.path_integral, strict=True)
        for parameter, gradient, path in columns:
            copy = gradient.to(path.dtype, copy=True)
            self.kept[parameter] = copy if scale is None else copy.div_(scale)

    def __getstate__(self) -> dict[str, Any]:
        """Keep the optimisers and leave out the hooks, which PyTorch does not copy either."""
        return {"_tracked": self._tracked, "kept": self.kept, "optimizers": self.optimizers}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Attach to the copies of the optimisers."""
        self.__init__(state["_tracked"])  # type: ignore[misc]
        self.kept = state["kept"]
        for optimizer, fused in state["optimizers"].items():
            self.attach(optimizer, fused)


def scale_of(scaler: GradScaler | None, optimizers: Iterable[Optimizer]) -> Tensor | None:
    """Return the factor that the gradients of these optimisers have now; nobody waits for it."""
    if scaler is None or not scaler.is_enabled() or scaler._scale is None:
        return None
    # There is no public way to ask whether gradients have been unscaled.
    stages = [scaler._per_optimizer_states.get(id(each), {}).get("stage") for each in optimizers]
    return None if OptState.UNSCALED in stages else scaler._scale


def _with_penalty(
    lane: Lane, gradients: list[Tensor], before: list[Tensor], c: float | Tensor
) -> list[Tensor]:
    """Return gradients with the penalty's (eq. 4) at the weights before the step; new tensors."""
    places, important = lane.important
    if not places or (isinstance(c, float) and c == 0):
        return [gradient.clone() for gradient in gradients]
    kept = important.anchor, important.importance
    if important is lane:
        return formulas.add_penalty_gradient(gradients, before, *kept, c)
    mine, start = ([each[place] for place in places] for each in (gradients, before))
    sums = dict(zip(places, formulas.add_penalty_gradient(mine, start, *kept, c), strict=True))
    return [sums[k] if k in sums else g.clone() for k, g in enumerate(gradients)]


def _as_gradient(total: Tensor, like: Tensor) -> Tensor:
    """Return a sum in the dtype of a parameter's gradient, and sharded as that is."""
    if not is_sharded(like):
        return total.to(like.dtype)
    given = torch.empty_like(like)
    local(given).copy_(total)
    return given


def _parameters_of(optimizer: Optimizer) -> list[Any]:
    """Return all parameters, unless the optimiser climbs: with them it would climb the penalty."""
    if any(group.get("maximize") for group in optimizer.param_groups):
        raise ConfigurationError(
            f"{type(optimizer).__name__} has maximize=True and would drive weights away from the "
            "anchor. Minimise the negative of your objective instead."
        )
    return [p for group in optimizer.param_groups for p in group["params"]]


def _with_hooks(optimizer: Any) -> Optimizer:  # noqa: ANN401
    """Return an optimiser whose steps can be followed: itself, or what its wrapper holds."""
    found, hooks = optimizer, "_optimizer_step_pre_hooks"
    # By what it has itself: Lightning's wrapper passes on all else that it is asked for.
    while hooks not in getattr(found, "__dict__", ()) and hasattr(found, "optimizer"):
        found = found.optimizer
    if isinstance(found, Optimizer) and hasattr(found, hooks):
        return found
    if isinstance(found, Optimizer):
        raise ConfigurationError(
            f"{type(found).__name__} takes no hooks, so that its steps can't be followed. Let its "
            "constructor call super().__init__()."
        )
    raise ConfigurationError(
        "The optimiser must be a torch.optim.Optimizer, whose steps can be followed, got "
        f"{type(found).__name__}. Derive it from that class, or use the three calls."
    )


_CODE_OF_STEPS = Optimizer.profile_hook_step(len).__code__
"""What calls the hooks of an optimiser, around its step."""


def _steps_under_way(optimizer: Optimizer) -> int:
    """Return how many steps of an optimiser are on the stack, where a failed one is no more."""
    frame, count = sys._getframe(), 0
    while frame is not None:
        if frame.f_code is _CODE_OF_STEPS:
            count += frame.f_locals["args"][0] is optimizer
        frame = frame.f_back  # type: ignore[assignment]
    return count


def _within_another(optimizer: Optimizer, outer: Optimizer) -> CallOrderError:
    return CallOrderError(
        f"{type(optimizer).__name__} makes a step within a step of {type(outer).__name__}, and "
        "both are followed: the penalty would be added twice. Attach the outer one alone."
    )


def _several_evaluations(optimizer: Optimizer) -> CallOrderError:
    return CallOrderError(
        f"{type(optimizer).__name__} was given a closure that it evaluates several times in one "
        "step, or after it has moved weights: there is no one gradient at which the step begins. "
        "Use an optimiser that evaluates its closure once, before it moves a weight."
    )
