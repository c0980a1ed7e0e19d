"""Which parameters of a model are protected, under which names, and why the others are not."""

from collections.abc import Iterable, Iterator, Sequence
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


@dataclass(frozen=True)
class Selection:
    """The outcome of :func:`select_parameters`.

    :param protected: name to live parameter, in the order of ``model.named_parameters()``; tied
        weights stand once, under their first name; wrappers leave no trace in names.
    :param skipped: name to the reason, for every other parameter of the model.
    """

    protected: dict[str, nn.Parameter]
    skipped: dict[str, str]


def select_parameters(model: nn.Module, options: Options) -> Selection:
    """Choose the parameters of a model that Synaptic Intelligence protects.

    A parameter that is frozen is skipped for now; there may be none left, for a task in which
    nothing that is protected is trained.

    :param model: any module; it is not changed.
    :param options: its patterns are kept or left out, and its normalisation layers perhaps.
    :return: the protected parameters and the skipped ones with the reason.
    :raises ParameterSelectionError: if nothing could be protected even with all layers thawed, or
        a parameter is complex or has no shape yet.
    """
    left_out = set()
    if options["normalisation"] == "exclude":
        layers = normalisation_layers(model)
        left_out = {id(p) for layer in layers for p in layer.parameters(recurse=False)}
    protected: dict[str, nn.Parameter] = {}
    skipped: dict[str, str] = {}
    for name, parameter in plain_named_parameters(model):
        reason = _reason_to_skip(name, options["include"], options["exclude"])
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
        raise ParameterSelectionError(_nothing_left(model, skipped))
    return Selection(protected, skipped)


FROZEN = "frozen (requires_grad is False)"
"""Why a parameter is skipped until it is thawed."""


def plain_named_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield names and parameters as if no wrapper stood around the model or a part of it.

    ``torch.compile`` puts ``_orig_mod`` into names, data-parallel wrappers put ``module`` before
    them; state kept by name has to survive both. What FSDP2 has gathered for an evaluation is
    given back first, because the optimiser steps the shards.

    :param model: any module, wrapped or not.
    """
    wrappers = set()
    for path, module in model.named_modules(remove_duplicate=False):
        prefix = f"{path}." if path else ""
        if isinstance(module, DataParallel | DistributedDataParallel):
            wrappers.add(f"{prefix}module")
        elif isinstance(getattr(module, "_orig_mod", None), nn.Module):
            # By its mark: importing the class of compiled modules takes as long as importing torch.
            wrappers.add(f"{prefix}_orig_mod")
        if any(kind.__name__ == "FSDPModule" for kind in type(module).__mro__):
            module.reshard()  # type: ignore[operator]
    for name, parameter in model.named_parameters():
        parts = name.split(".")
        paths = accumulate(parts, "{}.{}".format)
        yield (
            ".".join(p for p, path in zip(parts, paths, strict=True) if path not in wrappers),
            parameter,
        )


def check_patterns_match(model: nn.Module, patterns: Iterable[str]) -> None:
    """Refuse a pattern that matches no parameter of the model, frozen ones included.

    :param model: any module.
    :param patterns: patterns as the user gave them.
    :raises ParameterSelectionError: naming the pattern and the nearest parameter names; or if the
        model is no module.
    """
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


def _reason_to_skip(name: str, include: Sequence[str] | None, exclude: Sequence[str]) -> str | None:
    if include is not None and not any(_matches(name, pattern) for pattern in include):
        return "not included"
    for pattern in exclude:
        if _matches(name, pattern):
            return f"excluded by {pattern!r}"
    return None


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


def _nothing_left(model: nn.Module, skipped: dict[str, str]) -> str:
    kind = type(model).__name__
    if not skipped:
        return f"{kind} has no parameters, so there is nothing to protect. Pass a model that has."
    reasons = "; ".join(f"{name}: {reason}" for name, reason in list(skipped.items())[:5])
    return (
        f"None of the {len(skipped)} parameters of {kind} can be protected ({reasons}). Widen "
        "include or narrow exclude."
    )
