"""The state of the strategy's optimiser by parameter name."""

from collections.abc import Mapping
from typing import Any

from avalanche.training.templates import SupervisedTemplate
from torch import Tensor, nn
from torch.optim import Optimizer

from si_avalanche.checkpoint.document import Node, Value
from si_avalanche.checkpoint.kinds import class_name
from si_avalanche.checkpoint.nodes import ABSENT, check_number, field, malformed, misfit, pairs
from si_avalanche.checkpoint.reader import Reader
from si_avalanche.checkpoint.writer import Writer
from si_avalanche.errors import CheckpointError

_PATH = "optimizer"
_OPTIONS = (bool, float, int, list, str, Tensor, tuple, type(None))


def parameters_by_name(strategy: SupervisedTemplate) -> dict[str, nn.Parameter]:
    """Return all parameters that the optimiser may train, each by one name.

    They are the model's and those of modules that the strategy or a plugin has as attributes.
    """
    owners: dict[str, object] = {"model": strategy.model}
    owners |= {f"strategy.{name}": value for name, value in vars(strategy).items()}
    for index, plugin in enumerate(strategy.plugins):
        owners |= {f"plugins[{index}].{name}": value for name, value in vars(plugin).items()}
    names: dict[nn.Parameter, str] = {}
    for owner, module in owners.items():
        if isinstance(module, nn.Module):
            for name, parameter in module.named_parameters():
                names.setdefault(parameter, f"{owner}.{name}")
    return {name: parameter for parameter, name in names.items()}


def encode_optimizer(writer: Writer, strategy: SupervisedTemplate) -> Node:
    """Return the node of the optimiser: groups by parameter names, options, state by name.

    A parameter that grew in evaluation is still in the optimiser as it was; Avalanche empties its
    state before the next experience, so it is stored empty.

    :raises CheckpointError: if the optimiser trains a parameter that has no name, or holds
        something other than plain data and tensors.
    """
    current = parameters_by_name(strategy)
    made: Mapping[str, nn.Parameter] | None = strategy.optimized_param_id
    names = {id(p): f"model.{name}" for name, p in (made or {}).items()}
    names |= {id(p): name for name, p in current.items()}
    states = []
    for parameter, state in strategy.optimizer.state.items():
        name = names.get(id(parameter))
        if name is None and state:
            raise _nameless(parameter)
        if name in current:
            entries = dict(state) if current[name] is parameter else {}
            states.append([name, writer.encode(entries, f"{_PATH}.state[{name}]")])
    groups = []
    for index, group in enumerate(strategy.optimizer.param_groups):
        members = [names[id(p)] for p in group["params"] if id(p) in names]
        options = {key: value for key, value in group.items() if key != "params"}
        groups.append([members, writer.encode(options, f"{_PATH}.param_groups[{index}]")])
    kind = class_name(strategy.optimizer)
    known = None if made is None else list(made)
    return {"class": kind, "known": known, "groups": groups, "states": states}


def _nameless(parameter: Tensor) -> CheckpointError:
    return CheckpointError(
        f"The optimiser trains a parameter of shape {tuple(parameter.shape)} that is neither in "
        "the model nor in a module of the strategy or a plugin, so that it could not be found "
        "again. Make it a part of one of these."
    )


def read_optimizer(reader: Reader, node: Node, strategy: SupervisedTemplate) -> None:
    """Check the optimiser's node against the strategy's optimiser and put off the changes.

    :raises CheckpointError: if the node is malformed.
    :raises StateDictError: if class, groups, their members or options differ.
    """
    optimizer, named = strategy.optimizer, parameters_by_name(strategy)
    if field(node, "class", str, _PATH) != class_name(optimizer):
        raise misfit(_PATH, f"is a {node['class']}", f"this strategy has a {class_name(optimizer)}")
    groups = pairs(node.get("groups"), _PATH)
    if len(groups) != len(optimizer.param_groups):
        here = f"this strategy has {len(optimizer.param_groups)}"
        raise misfit(_PATH, f"has {len(groups)} parameter groups", here)
    known = known_names(node)
    # Grown in evaluation, so that the optimiser was not to have them yet.
    grown = (
        set()
        if known is None
        else {f"model.{n}" for n, _ in strategy.model.named_parameters() if n not in known}
    )
    trained: set[str] = set()
    for index, ((members, options), group) in enumerate(
        zip(groups, optimizer.param_groups, strict=True)
    ):
        path = f"{_PATH}.param_groups[{index}]"
        _check_members(members, group["params"], named, grown, path)
        trained.update(members)
        values = _read_options(reader, options, group, path)
        _regroup_later(reader, group, [named[name] for name in members], values)
    _read_states(reader, node, optimizer, {name: named[name] for name in trained})
    if known is not None:
        ids = {name: p for name, p in strategy.model.named_parameters() if name in known}
        reader.later(lambda: setattr(strategy, "optimized_param_id", ids))


def known_names(node: Node) -> set[str] | None:
    """Return the names of the model's parameters that Avalanche has put into the optimiser.

    :return: ``None`` if that has not happened yet.
    :raises CheckpointError: if the node is malformed.
    """
    known = node.get("known")
    if known is None:
        return None
    if type(known) is not list or any(type(name) is not str for name in known):
        raise malformed(_PATH, "the names of its parameters")
    return set(known)


def _check_members(
    members: Node,
    params: list[nn.Parameter],
    named: Mapping[str, nn.Parameter],
    grown: set[str],
    path: str,
) -> None:
    if type(members) is not list or any(type(name) is not str for name in members):
        raise malformed(path, "its parameters' names")
    ids = {id(parameter) for parameter in params}
    here = {name for name, parameter in named.items() if id(parameter) in ids}
    differing = set(members) ^ here - grown
    if differing or len(set(members)) != len(members):
        differ = ", ".join(sorted(differing)) or "none"
        raise misfit(path, "has other parameters", f"these are in one of the two only: {differ}")


def _read_options(reader: Reader, options: Node, group: dict[str, Any], path: str) -> Value:
    live = {key: value for key, value in group.items() if key != "params"}
    values = reader.read(options, ABSENT, path)
    if type(values) is not dict or "params" in values:
        raise malformed(path, "its options")
    for key, value in values.items():
        check_number(value, live.get(key), f"{path}[{key!r}]")
        if not isinstance(value, _OPTIONS):
            raise misfit(path, f"has {key!r} of {class_name(value)}", "that is no option")
    lacking = live.keys() - values.keys()
    if lacking:
        raise misfit(
            path, f"lacks {', '.join(sorted(lacking))}", "this strategy's optimiser has it"
        )
    return values


def _regroup_later(
    reader: Reader, group: dict[str, Any], params: list[nn.Parameter], options: dict[str, Any]
) -> None:
    reader.later(lambda: group.update(options, params=params))


def _read_states(
    reader: Reader, node: Node, optimizer: Optimizer, trained: Mapping[str, nn.Parameter]
) -> None:
    states: dict[Tensor, Any] = {}
    for name, entry in pairs(node.get("states"), _PATH):
        path = f"{_PATH}.state[{name}]"
        if type(name) is not str or name not in trained:
            raise malformed(path, "there is no such parameter")
        state = reader.read(entry, ABSENT, path)
        if type(state) is not dict:
            raise malformed(path, "a dictionary was expected")
        states[trained[name]] = state
    reader.later(optimizer.state.clear)
    reader.later(lambda: optimizer.state.update(states))
