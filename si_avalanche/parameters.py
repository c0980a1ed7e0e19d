"""Which parameters of a model are protected, under which names, and why the others are not."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.parameter import UninitializedParameter

from si_avalanche.errors import ParameterSelectionError
from si_avalanche.normalisation import normalisation_layers
from si_avalanche.settings import Normalisation


@dataclass(frozen=True)
class Selection:
    """The outcome of :func:`select_parameters`.

    :param protected: name to live parameter, in the order of ``model.named_parameters()``; tied
        weights stand once, under their first name; wrappers leave no trace in names.
    :param skipped: name to the reason, for every other parameter of the model.
    """

    protected: dict[str, nn.Parameter]
    skipped: dict[str, str]


def select_parameters(
    model: nn.Module,
    include: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    normalisation: Normalisation = "protect",
) -> Selection:
    """Choose the parameters of a model that Synaptic Intelligence protects.

    :param model: any module; it is not changed.
    :param include: patterns to keep, as in :class:`~si_avalanche.settings.Settings`; ``None``
        keeps all.
    :param exclude: patterns to leave out, applied after ``include``.
    :param normalisation: ``"exclude"`` leaves out the parameters of normalisation layers.
    :return: the protected parameters and the skipped ones with the reason.
    :raises ParameterSelectionError: if nothing is left to protect, or a parameter is complex,
        sharded over several processes, or has no shape yet.
    """
    left_out = set()
    if normalisation == "exclude":
        layers = normalisation_layers(model)
        left_out = {id(p) for layer in layers for p in layer.parameters(recurse=False)}
    shards = {id(p) for m in model.modules() if _is_sharded(m) for p in m.parameters()}
    protected: dict[str, nn.Parameter] = {}
    skipped: dict[str, str] = {}
    for name, parameter in plain_named_parameters(model):
        reason = _reason_to_skip(name, parameter, include, exclude)
        if reason is None and id(parameter) in left_out:
            reason = "of a normalisation layer"
        if reason is None:
            _refuse_what_is_not_supported(name, parameter, id(parameter) in shards)
            protected[name] = parameter
        else:
            skipped[name] = reason
    if not protected:
        raise ParameterSelectionError(_nothing_left(model, skipped))
    return Selection(protected, skipped)


def plain_named_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield names and parameters as if no wrapper stood around the model or a part of it.

    ``torch.compile`` puts ``_orig_mod`` into names, data-parallel wrappers put ``module`` before
    them; state kept by name has to survive both.

    :param model: any module, wrapped or not.
    """
    while (inner := _unwrapped(model)) is not None:
        model = inner
    for name, parameter in model.named_parameters():
        yield ".".join(part for part in name.split(".") if part != "_orig_mod"), parameter


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


def _unwrapped(model: nn.Module) -> nn.Module | None:
    if isinstance(model, DataParallel | DistributedDataParallel):
        return model.module
    # By its mark: importing the class of compiled modules takes as long as importing torch.
    compiled = getattr(model, "_orig_mod", None)
    return compiled if isinstance(compiled, nn.Module) else None


def _reason_to_skip(
    name: str, parameter: nn.Parameter, include: Sequence[str] | None, exclude: Sequence[str]
) -> str | None:
    if include is not None and not any(_matches(name, pattern) for pattern in include):
        return "not included"
    for pattern in exclude:
        if _matches(name, pattern):
            return f"excluded by {pattern!r}"
    if not parameter.requires_grad:
        return "frozen (requires_grad is False)"
    return None


def _is_sharded(module: nn.Module) -> bool:
    """Whether a module gathers its parameters from several processes whenever it needs them."""
    # By name: importing the classes takes half a second.
    names = {kind.__name__ for kind in type(module).__mro__}
    return not names.isdisjoint({"FSDPModule", "FullyShardedDataParallel"})


def _refuse_what_is_not_supported(name: str, parameter: nn.Parameter, is_shard: bool) -> None:
    if is_shard or (hasattr(parameter, "placements") and hasattr(parameter, "device_mesh")):
        raise ParameterSelectionError(
            f"The parameter {name!r} is sharded over several processes (FSDP, fully_shard), which "
            "is not supported: importance would have to be sharded with it. Use "
            "DistributedDataParallel, in which every process holds the whole state."
        )
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
        f"None of the {len(skipped)} parameters of {kind} can be protected ({reasons}). Unfreeze "
        "one, or widen include / narrow exclude."
    )
