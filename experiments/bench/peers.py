"""The peers' ways to do Synaptic Intelligence, each written anew in its algorithmic form.

What they compute, in which loops and with which copies, is theirs; the code is not. All of them
take the gradient that the optimiser got, the penalty's part included, but for mammoth's.
"""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatch

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from experiments.bench.method import Method

XI = 0.1
"""The damping of eq. 5, but for Avalanche, which has its own."""


class ThreeCalls(Method):
    """The plain class: ``penalty()``, ``update_running_sum()``, ``update_omega()`` in loops."""

    def __init__(self, model: nn.Module, optimizer: Optimizer, c: float) -> None:
        super().__init__(model, optimizer, c)
        self.omega = {name: torch.zeros_like(p) for name, p in self._named()}
        self.running_sum = {name: torch.zeros_like(p) for name, p in self._named()}
        self.prev_params = {name: p.detach().clone() for name, p in self._named()}
        self.anchor = {name: p.detach().clone() for name, p in self._named()}

    def _named(self) -> Iterator[tuple[str, nn.Parameter]]:
        return self._model.named_parameters()

    def penalised(self, loss: Tensor) -> Tensor:
        """Add eq. 4, through the graph."""
        penalty = torch.zeros((), device=loss.device)
        for name, p in self._named():
            penalty = penalty + (self.omega[name] * (p - self.anchor[name]) ** 2).sum()
        return loss + self._c * penalty

    @torch.no_grad()
    def after_step(self) -> None:
        """Add to the path integral, and copy the weights for the next step."""
        for name, p in self._named():
            if p.grad is not None:
                self.running_sum[name] += -p.grad * (p - self.prev_params[name])
            self.prev_params[name] = p.clone()

    @torch.no_grad()
    def end_task(self) -> None:
        """Consolidate: eq. 5, parameter by parameter."""
        for name, p in self._named():
            change = p - self.anchor[name]
            self.omega[name] += self.running_sum[name] / (change**2 + XI)
            self.running_sum[name] = torch.zeros_like(p)
            self.anchor[name] = p.clone()


class VanDeVen(Method):
    """Van de Ven's continual-learning: buffers found by a name made anew in every step."""

    def __init__(self, model: nn.Module, optimizer: Optimizer, c: float) -> None:
        super().__init__(model, optimizer, c)
        # A module beside the network: buffers of the network itself would be its bytes.
        self.buffers = nn.Module()
        self.path: dict[str, Tensor] = {}
        self._old: dict[str, Tensor] = {}
        for name, p in self._named():
            self.buffers.register_buffer(f"{name}_anchor", p.detach().clone())
            self.path[name] = torch.zeros_like(p)
            self._old[name] = p.detach().clone()

    def _named(self) -> Iterator[tuple[str, nn.Parameter]]:
        for name, p in self._model.named_parameters():
            if p.requires_grad:
                yield name.replace(".", "__"), p

    def penalised(self, loss: Tensor) -> Tensor:
        """Add eq. 4, through the graph, from the second task on."""
        terms = []
        for name, p in self._named():
            importance = getattr(self.buffers, f"{name}_importance", None)
            if importance is None:
                return loss
            terms.append((importance * (p - getattr(self.buffers, f"{name}_anchor")) ** 2).sum())
        return loss + self._c * sum(terms)

    def after_step(self) -> None:
        """Add to the path integral, and copy the weights for the next step."""
        for name, p in self._named():
            if p.grad is not None:
                self.path[name].add_(-p.grad * (p.detach() - self._old[name]))
            self._old[name] = p.detach().clone()

    @torch.no_grad()
    def end_task(self) -> None:
        """Consolidate into new buffers."""
        for name, p in self._named():
            now = p.detach().clone()
            change = now - getattr(self.buffers, f"{name}_anchor")
            added = self.path[name] / (change**2 + XI)
            before = getattr(self.buffers, f"{name}_importance", torch.zeros_like(p))
            self.buffers.register_buffer(f"{name}_importance", before + added)
            self.buffers.register_buffer(f"{name}_anchor", now)
            self.path[name] = torch.zeros_like(p)


class Mammoth(Method):
    """Mammoth: everything flat, joined anew from all parameters, and gradients clipped at 1."""

    def __init__(self, model: nn.Module, optimizer: Optimizer, c: float) -> None:
        super().__init__(model, optimizer, c)
        self._checkpoint = self._weights().clone()
        self.big_omega: Tensor | None = None
        self.small_omega = torch.zeros_like(self._checkpoint)
        self._before = self._increment = self._nothing = torch.empty(0)

    def _weights(self) -> Tensor:
        return torch.cat([p.detach().view(-1) for p in self._model.parameters()])

    def _gradients(self) -> Tensor:
        present = (p.grad for p in self._model.parameters())
        return torch.cat([gradient.view(-1) for gradient in present if gradient is not None])

    def _set_gradients(self, flat: Tensor) -> None:
        first = 0
        for p in self._model.parameters():
            p.grad = flat[first : first + p.numel()].view(p.shape)
            first += p.numel()

    def before_step(self) -> None:
        """Copy the weights."""
        self._before = self._weights().clone()

    def after_backward(self) -> None:
        """Copy the task gradient, add the penalty's in closed form, and clip."""
        self._increment = self._gradients()
        if self.big_omega is not None:
            penalty = self._c * 2 * self.big_omega * (self._weights() - self._checkpoint)
            self._set_gradients(self._gradients() + penalty)
        nn.utils.clip_grad_value_(self._model.parameters(), 1.0)

    def after_step(self) -> None:
        """Add to the path integral."""
        self._increment *= self._before - self._weights().clone()
        self.small_omega += self._increment
        # Held within a step only.
        self._before = self._increment = self._nothing

    def end_task(self) -> None:
        """Consolidate."""
        change = self._weights() - self._checkpoint
        added = self.small_omega / (change**2 + XI)
        self.big_omega = added if self.big_omega is None else self.big_omega + added
        self._checkpoint = self._weights().clone()
        self.small_omega = torch.zeros_like(added)


class AvalanchesWay(Method):
    """Avalanche 0.6: seven flat copies on the CPU, and the modules walked before each use.

    On the CPU Avalanche's own copies to the CPU are none, which undoes the method; here they are
    copies wherever the network lies.
    """

    _EPS = 1e-7
    _MOST = 1e-3

    def __init__(self, model: nn.Module, optimizer: Optimizer, c: float) -> None:
        super().__init__(model, optimizer, c)
        names = ("old", "new", "gradient", "path", "path_of_all", "importance", "anchor")
        self.held: dict[str, dict[str, Tensor]] = {name: {} for name in names}
        for name, p in self._allowed():
            for tensors in self.held.values():
                tensors[name] = torch.zeros(p.numel())
        self._extract("anchor")

    def _allowed(self) -> list[tuple[str, nn.Parameter]]:
        norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
        patterns = [
            f"{where}.{name}"
            for where, module in self._model.named_modules()
            if isinstance(module, norms)
            for name, _ in module.named_parameters(recurse=False)
        ]
        return [
            (name, p)
            for name, p in self._model.named_parameters()
            if p.requires_grad and not any(fnmatch(name, pattern) for pattern in patterns)
        ]

    def _extract(self, into: str) -> None:
        for name, p in self._allowed():
            self.held[into][name] = p.detach().to("cpu", copy=True).flatten()

    def before_step(self) -> None:
        """Copy the weights to the CPU."""
        self._extract("old")

    def penalised(self, loss: Tensor) -> Tensor:
        """Add the penalty, through the graph, with importance and anchor copied to the device."""
        for name, p in self._allowed():
            anchor = self.held["anchor"][name].to(p.device, copy=True)
            importance = self.held["importance"][name].to(p.device, copy=True)
            loss = loss + self._c * torch.dot(importance, (p.flatten() - anchor) ** 2)
        return loss

    def after_step(self) -> None:
        """Copy weights and gradients to the CPU, and add to the path integral there."""
        self._extract("new")
        for name, p in self._allowed():
            if p.grad is not None:
                self.held["gradient"][name] = p.grad.to("cpu", copy=True).flatten()
        new, old = self.held["new"], self.held["old"]
        for name, path in self.held["path"].items():
            path += self.held["gradient"][name] * (new[name] - old[name])

    def end_task(self) -> None:
        """Consolidate, the importance cut off at a constant."""
        self._extract("new")
        new, path, anchor = self.held["new"], self.held["path"], self.held["anchor"]
        for name, total in self.held["path_of_all"].items():
            total += path[name] / ((new[name] - anchor[name]) ** 2 + self._EPS)
            self.held["importance"][name] = torch.clamp(-total, max=self._MOST)
            anchor[name] = new[name].clone()
            path[name].zero_()
