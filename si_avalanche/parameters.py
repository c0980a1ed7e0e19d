"""Which parameters of a model are protected, under which names, and why the others are not."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from itertools import accumulate

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.parameter import UninitializedParameter

from si_avalanche.errors import ParameterSelectionError
from si_avalanche.normalisation import normalisation_layers
from si_avalanche.settings import Options

FROZEN = "frozen (requires_grad is False)"
"""Why a parameter is skipped until it is thawed."""


@dataclass(frozen=True)
class Selection:
    """Which parameters are protected, by name, and why each of the others is not.

    Tied weights stand once, under their first name; wrappers leave no trace in names.
    """

    protected: dict[str, nn.Parameter]
    skipped: dict[str, str]


def select_parameters(model: nn.Module, options: Options) -> Selection:
    """Choose the parameters of a model that Synaptic Intelligence protects.

    There may be none for now, in a task in which nothing that is protected is trained; but if there
    were none even with all layers thawed, or one is complex or has no shape yet, that is a
    ``ParameterSelectionError``.
    """
    normalising = normalisation_layers(model) if options["normalisation"] == "exclude" else []
    left_out = {id(p) for layer in normalising for p in layer.parameters(recurse=False)}
    protected: dict[str, nn.Parameter] = {}
    skipped: dict[str, str] = {}
    for name, parameter in plain_named_parameters(model):
        reason = _reason_to_skip(name, options)
        if reason is None and id(parameter) in left_out:
            reason = "of a normalisation layer"
        if reason is None and not parameter.requires_grad:
            reason = FROZEN
        if reason is None:
            _refuse_what_is_not_supported(name, parameter)
            protected[name] = parameter
        else:
            skipped[name] = reason
    if not protected and FROZEN not in skipped.values():
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(skipped.items())[:5])
        raise ParameterSelectionError(
            f"None of the {len(skipped)} parameters of {type(model).__name__} can be protected "
            f"({reasons or 'it has no parameters'}). Widen include or narrow exclude, or pass a "
            "model that has some."
        )
    return Selection(protected, skipped)


def plain_named_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield names and parameters as if no wrapper stood around the model or a part of it.

    ``torch.compile`` puts ``_orig_mod`` into names, data-parallel wrappers put ``module`` before
    them; state kept by name has to survive both. What FSDP2 has gathered for an evaluation is
    given back first, because the optimiser steps the shards.
    """
    wrappers = set()
    for path, module in model.named_modules(remove_duplicate=False):
        prefix = f"{path}." if path else ""
        if isinstance(module, DataParallel | DistributedDataParallel):
            wrappers.add(f"{prefix}module")
        # By their marks: importing these classes takes as long as importing torch.
        elif isinstance(getattr(module, "_orig_mod", None), nn.Module):
            wrappers.add(f"{prefix}_orig_mod")
        if any(kind.__name__ == "FSDPModule" for kind in type(module).__mro__):
            module.reshard()
    for name, parameter in model.named_parameters():
        parts = name.split(".")
        paths = accumulate(parts, "{}.{}".format)
        kept = [part for part, path in zip(parts, paths, strict=True) if path not in wrappers]
        yield ".".join(kept), parameter


def check_patterns_match(model: nn.Module, patterns: Iterable[str]) -> None:
    """Refuse a pattern that matches no parameter of the model, frozen ones included."""
    if not isinstance(model, nn.Module):
        raise ParameterSelectionError(
            f"model must be a torch.nn.Module, got {type(model).__name__}. Pass the network itself."
        )
    names = [name for name, _ in plain_named_parameters(model)]
    for pattern in patterns:
        if not any(_matches(name, pattern) for name in names):
            near = get_close_matches(pattern, names, n=3, cutoff=0.3) or names[:3]
            raise ParameterSelectionError(
                f"The pattern {pattern!r} matches no parameter of the model. A pattern is a "
                "wildcard for a parameter's full name or for a module above it; for heads that "
                "appear later use one that the first head matches too. Near it: "
                f"{', '.join(near) or 'nothing: the model has no parameters'}."
            )


def _reason_to_skip(name: str, options: Options) -> str | None:
    include = options["include"]
    if include is not None and not any(_matches(name, pattern) for pattern in include):
        return "not included"
    excluding = [pattern for pattern in options["exclude"] if _matches(name, pattern)]
    return f"excluded by {excluding[0]!r}" if excluding else None


def _refuse_what_is_not_supported(name: str, parameter: nn.Parameter) -> None:
    if isinstance(parameter, UninitializedParameter):
        raise ParameterSelectionError(
            f"The parameter {name!r} has no shape yet: its layer is lazy. Send one batch through "
            "the model first."
        )
    if parameter.is_complex():
        raise ParameterSelectionError(
            f"The parameter {name!r} is complex ({parameter.dtype}); importance is defined for "
            f"real parameters. Leave it out with exclude=[{name!r}]."
        )


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")
