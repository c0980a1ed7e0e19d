"""An optimiser's update, the penalty and the path integral as one compiled pass over memory.

The step back is known in registers, so that no copy of the weights is kept and no gradient is
written. ``optimizer.state``, groups and hooks stay PyTorch's own: before ``optimizer.step()`` the
work is done for the protected parameters, and the optimiser itself finds only the others to step.
"""

import math
from collections.abc import Callable
from operator import is_
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

from si_avalanche.compiler import WIDTH, Function, Lists, compiled
from si_avalanche.errors import ConfigurationError
from si_avalanche.tracked import Lane, Tracked

# Each function takes lists of weights, gradients, integrands (what the path integral takes), path
# integrals, anchors, importances and the optimiser's moments, and a vector of numbers. The first
# four are: what takes a GradScaler's factor off, twice the strength, whether the integrand is to be
# of task loss plus penalty, and the L2 weight decay.


def _adam(lists: Lists, numbers: Tensor) -> None:
    """Adam and AdamW (Kingma & Ba 2015; Loshchilov & Hutter 2019), with eq. 3 and 4."""
    unscale, c2, is_total, l2, rate, shrink, new1, old2, new2, root, eps = numbers.unbind()
    for theta, gradient, integrand, path, star, omega, first, second in zip(*lists, strict=True):
        pull = c2 * omega * (theta - star)
        total = gradient * unscale + pull + l2 * theta
        m = first + (total - first) * new1
        v = second * old2 + total * total * new2
        after = theta * shrink - rate * m / (v.sqrt() / root + eps)
        _finish(theta, after, integrand + is_total * pull, path)
        first.copy_(m)
        second.copy_(v)


def _momentum(lists: Lists, numbers: Tensor) -> None:
    """SGD with momentum, Nesterov's too, with eq. 3 and 4."""
    unscale, c2, is_total, l2, rate, old, new, ahead, behind = numbers.unbind()
    for theta, gradient, integrand, path, star, omega, buffer in zip(*lists, strict=True):
        pull = c2 * omega * (theta - star)
        total = gradient * unscale + pull + l2 * theta
        momentum = buffer * old + total * new
        after = theta - rate * (total * ahead + momentum * behind)
        _finish(theta, after, integrand + is_total * pull, path)
        buffer.copy_(momentum)


def _sgd(lists: Lists, numbers: Tensor) -> None:
    """SGD without momentum, with eq. 3 and 4."""
    unscale, c2, is_total, l2, rate = numbers.unbind()
    for theta, gradient, integrand, path, star, omega in zip(*lists, strict=True):
        pull = c2 * omega * (theta - star)
        total = gradient * unscale + pull + l2 * theta
        _finish(theta, theta - rate * total, integrand + is_total * pull, path)


def _finish(theta: Tensor, after: Tensor, integrand: Tensor, path: Tensor) -> None:
    moved = after - theta
    # Where a weight did not move, a gradient that was kept may be infinite.
    path.sub_(torch.where(moved == 0, 0.0, integrand * moved))
    theta.copy_(after)


def _adam_numbers(group: dict[str, Any], step: float) -> list[float]:
    rate, (b1, b2) = float(group["lr"]), map(float, group["betas"])
    shrink = 1.0 - rate * group["weight_decay"] if _is_decoupled(group) else 1.0
    rate, root = rate / (1.0 - b1**step), math.sqrt(1.0 - b2**step)
    return [rate, shrink, 1.0 - b1, b2, 1.0 - b2, root, float(group["eps"])]


def _momentum_numbers(group: dict[str, Any], step: float) -> list[float]:
    old = float(group["momentum"])
    # A buffer begins as the gradient itself.
    new = 1.0 - group["dampening"] if step > 1 else 1.0
    return [float(group["lr"]), old, new, *((1.0, old) if group["nesterov"] else (0.0, 1.0))]


def _is_decoupled(group: dict[str, Any]) -> bool:
    return bool(group.get("decoupled_weight_decay"))


class Kind(NamedTuple):
    """An optimiser that can be one pass: its arithmetic, what it keeps, and its own numbers."""

    function: Function
    moments: tuple[str, ...]
    numbers: Callable[[dict[str, Any], float], list[float]]
    """Made of a group and the count of the step to come."""
    extent: int


_ADAM = Kind(_adam, ("exp_avg", "exp_avg_sq"), _adam_numbers, 7)
_MOMENTUM = Kind(_momentum, ("momentum_buffer",), _momentum_numbers, 5)
_SGD = Kind(_sgd, (), lambda group, step: [float(group["lr"])], 1)

_ONE = torch.tensor(1.0)


def _kind_of(group: dict[str, Any]) -> Kind:
    return _ADAM if "betas" in group else _MOMENTUM if group["momentum"] else _SGD


class OnePass:
    """Makes the steps of an ``Adam``, ``AdamW`` or ``SGD`` for the protected parameters."""

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer, self._state = optimizer, optimizer.state
        self._batches: dict[int, tuple[Lane, list[Batch]]] = {}
        self._check()

    def step(
        self,
        lane: Lane,
        gradients: list[Tensor],
        integrands: list[Tensor],
        scale: Tensor | None,
        tracked: Tracked,
    ) -> bool:
        """Move weights, path integrals and the optimiser's state, in place.

        :param lane: the parameters.
        :param gradients: of each.
        :param integrands: the task gradient of each.
        :param scale: the factor in the gradients, ``None`` for 1.
        :param tracked: its strength and options are read.
        :return: whether it was done; if not, because nothing can be compiled here, nothing has
            been changed.
        :raises ConfigurationError: if it can't be done in one pass, with the reason.
        """
        self._check()
        found_inf = getattr(self._optimizer, "found_inf", None)
        if found_inf is not None and found_inf.item():
            return True
        if self._state is not self._optimizer.state:
            # A state dictionary has been loaded: other groups, other state.
            self._state = self._optimizer.state
            self._batches.clear()
        known = self._batches.get(id(lane))
        if known is None or known[0] is not lane or not all(b.is_current() for b in known[1]):
            if len(self._batches) >= 64:
                self._batches.clear()
            batches = self._make(lane)
            if batches is None:
                return False
            known = self._batches[id(lane)] = lane, batches
        unscale = 1.0 if scale is None else 1.0 / float(scale)
        settings = [unscale, 2.0 * tracked.c, float(tracked.options["gradient"] == "total")]
        for batch in known[1]:
            batch.step(gradients, integrands, settings)
        return True

    def _check(self) -> None:
        if type(self._optimizer) not in (Adam, AdamW, SGD):
            raise self._refusal("only Adam, AdamW and SGD of torch.optim can be")
        for group in self._optimizer.param_groups:
            for switch in ("amsgrad", "differentiable", "capturable"):
                if group.get(switch):
                    raise self._refusal(f"it has {switch}=True")
            # Without it weight decay would be taken for L2.
            if type(self._optimizer) is AdamW and "decoupled_weight_decay" not in group:
                raise self._refusal("in this version of PyTorch it is no kind of Adam")

    def _refusal(self, reason: str) -> ConfigurationError:
        return ConfigurationError(
            f"The steps of this {type(self._optimizer).__name__} can't be one pass: {reason}. "
            "Leave fused=True out: its steps by hooks have the same numbers."
        )

    def _make(self, lane: Lane) -> "list[Batch] | None":
        """Sort the parameters of a lane; what PyTorch keeps of each begins if it is not there."""
        weights, place_of = lane.weights, {p: place for place, p in enumerate(lane.parameters)}
        alike: dict[tuple[Any, ...], list[int]] = {}
        steps: dict[tuple[Any, ...], tuple[Kind, dict[str, Any], Function]] = {}
        for number, group in enumerate(self._optimizer.param_groups):
            kind = _kind_of(group)
            for place in [place_of[p] for p in group["params"] if p in place_of]:
                theta = weights[place]
                if theta.dtype not in (torch.float32, torch.float64):
                    name = lane.names[place]
                    raise self._refusal(f"{name!r} is {theta.dtype}, not float32 or float64")
                run = compiled(kind.function, 6 + len(kind.moments), 4 + kind.extent, theta)
                if run is None:
                    return None
                made = self._begin(kind, group, lane.parameters[place])
                key = number, theta.dtype, theta.device, _is_dense(theta), made
                steps[key] = kind, group, run
                alike.setdefault(key, []).append(place)
        return [
            Batch(self._optimizer, *steps[key], lane, places[first : first + WIDTH], key[-1])
            for key, places in alike.items()
            for first in range(0, len(places), WIDTH)
        ]

    def _begin(self, kind: Kind, group: dict[str, Any], parameter: Tensor) -> float:
        """Return how many steps of a parameter were made; begin its state as PyTorch would."""
        if kind is _SGD:
            return 0.0
        state = self._optimizer.state[parameter]
        if kind is _ADAM and not state:
            is_double = torch.get_default_dtype() == torch.float64 and not group["fused"]
            dtype = torch.float64 if is_double else torch.float32
            where = parameter.device if group["fused"] else "cpu"
            state["step"] = torch.zeros((), dtype=dtype, device=where)
        is_there = all(state.get(name) is not None for name in kind.moments)
        for name in () if is_there else kind.moments:
            state[name] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        return float(state["step"]) if kind is _ADAM else float(is_there)


class Batch:
    """At most ``WIDTH`` parameters of one group that have made as many steps, ready to step."""

    def __init__(
        self,
        optimizer: Optimizer,
        kind: Kind,
        group: dict[str, Any],
        run: Function,
        lane: Lane,
        places: list[int],
        steps: float,
    ) -> None:
        self._kind, self._group, self._steps = kind, group, steps
        self._lane, self._of_all = lane, optimizer.state
        self._parameters = [lane.parameters[place] for place in places]
        self._states: list[Any] = [self._of_all.get(parameter) for parameter in self._parameters]
        self._moments = [state[name] for name in kind.moments for state in self._states]
        self._counts = [state["step"] for state in self._states] if kind is _ADAM else []
        self._versions = [count._version for count in self._counts]
        weights = lane.weights
        self._pointers = [weights[place].data_ptr() for place in places]
        # What has no entry, as a small parameter in a shard, is only counted.
        self._places = [place for place in places if weights[place].numel()]
        kept = (weights, lane.path_integral, lane.anchor, lane.importance)
        rows = [[column[place] for place in self._places] for column in kept]
        moments = [lane.local([state[name] for state in self._states]) for name in kind.moments]
        rows += [[moment for moment in column if moment.numel()] for column in moments]
        self._strides = [theta.stride() for theta in rows[0]]
        # What has gaps, or lies in memory in several orders, is computed as it is.
        columns = zip(*rows, strict=True)
        self._is_flat = all(
            all(_is_dense(tensor) and tensor.stride() == column[0].stride() for tensor in column)
            for column in columns
        )
        self._run = run if self._is_flat else kind.function
        missing = WIDTH - len(self._places) if self._is_flat else 0
        self._fill = [weights[places[0]].new_zeros(2) for _ in range(missing)]
        self._rows = [row + [t.clone() for t in self._fill] for row in rows]
        self._numbers = weights[places[0]].new_empty(4 + kind.extent)

    def is_current(self) -> bool:
        """Whether weights and state are where they were, and all have made as many steps."""
        states = [self._of_all.get(parameter) for parameter in self._parameters]
        if _kind_of(self._group) is not self._kind or not all(map(is_, states, self._states)):
            return False
        moments = [state[name] for name in self._kind.moments for state in self._states]
        pointers = [theta.data_ptr() for theta in self._lane.local(self._parameters)]
        if not all(map(is_, moments, self._moments)) or pointers != self._pointers:
            return False
        # Read only if somebody else has counted: on a GPU that is to wait.
        if self._versions != [count._version for count in self._counts]:
            steps = {float(count) for count in self._counts}
            self._steps = max(steps)
            return len(steps) == 1
        return True

    def step(
        self, gradients: list[Tensor], integrands: list[Tensor], settings: list[float]
    ) -> None:
        """Make the step, in place, with gradients and integrands of the whole lane."""
        if self._counts:
            torch._foreach_add_(self._counts, _ONE, alpha=1.0)
            self._versions = [count._version for count in self._counts]
        self._steps += 1
        if not self._places:
            return
        l2 = 0.0 if _is_decoupled(self._group) else float(self._group["weight_decay"])
        self._set_numbers([*settings, l2, *self._kind.numbers(self._group, self._steps)])
        mine = self._laid_out(gradients)
        others = mine if gradients is integrands else self._laid_out(integrands)
        weights, *kept = self._rows
        self._run([weights, mine, others, *kept], self._numbers)

    def _laid_out(self, tensors: list[Tensor]) -> list[Tensor]:
        """Return those of the batch as the weights lie in memory, filled up."""
        mine = [tensors[place] for place in self._places]
        if self._is_flat and [tensor.stride() for tensor in mine] != self._strides:
            pairs = zip(mine, self._rows[0], strict=False)
            mine = [torch.empty_like(weights).copy_(tensor) for tensor, weights in pairs]
        return mine + self._fill

    def _set_numbers(self, numbers: list[float]) -> None:
        if self._numbers.device.type == "cpu":
            self._numbers.numpy()[:] = numbers
        else:
            # From memory that is copied without waiting.
            pinned = torch.tensor(numbers, dtype=self._numbers.dtype, pin_memory=True)
            self._numbers.copy_(pinned, non_blocking=True)


def _is_dense(tensor: Tensor) -> bool:
    """Whether the entries fill their memory without gaps, in whatever order."""
    reach = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
    return reach == tensor.numel() - 1
