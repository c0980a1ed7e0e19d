"""A strategy as one tree: model, optimiser, plugins, further attributes and random states."""

from collections.abc import Sequence
from typing import Any

from avalanche.training.templates import SupervisedTemplate
from torch import Tensor

from si_avalanche.checkpoint.adaptation import adapt_model
from si_avalanche.checkpoint.document import Node
from si_avalanche.checkpoint.kinds import class_name, is_stateful
from si_avalanche.checkpoint.modules import saved_shapes
from si_avalanche.checkpoint.nodes import ABSENT, field, malformed, misfit, pairs
from si_avalanche.checkpoint.optimizers import encode_optimizer, known_names, read_optimizer
from si_avalanche.checkpoint.randomness import check_random_states, set_random_states
from si_avalanche.checkpoint.reader import Reader
from si_avalanche.checkpoint.writer import Writer, refuse_keepers

_OWN = frozenset({"evaluator", "clock", "model", "optimizer", "optimized_param_id", "plugins"})
_RUN = frozenset(
    {
        "_distributed_check",
        "_eval_streams",
        "_stop_training",
        "adapted_dataset",
        "current_eval_stream",
        "dataloader",
        "experience",
        "loss",
        "mb_output",
        "mbatch",
    }
)
_SETTINGS = frozenset(
    {"device", "eval_every", "eval_mb_size", "retain_graph", "train_epochs", "train_mb_size"}
)


def encode_strategy(strategy: SupervisedTemplate, random: dict[str, Any]) -> tuple[Node, Writer]:
    """Return the tree of a strategy and the writer that has its tensors; nothing is copied.

    :param strategy: it is only read, by ``state_dict()`` where plugins have one.
    :param random: what :func:`~si_avalanche.checkpoint.randomness.random_states` gave.
    :raises CheckpointError: if something cannot be stored, naming it and the remedy.
    """
    refuse_keepers(strategy, "strategy")
    writer = Writer({id(value): name for name, value in _references(strategy).items()})
    further = {name: value for name, value in vars(strategy).items() if name not in _not_further()}
    tree = {
        "done": strategy.clock.train_exp_counter,
        "model": writer.encode_model(strategy.model, "model"),
        "optimizer": encode_optimizer(writer, strategy),
        "plugins": [
            [class_name(plugin), writer.thing(plugin, _plugin_path(index, plugin))]
            for index, plugin in enumerate(strategy.plugins)
        ],
        "strategy": writer.members(further, "strategy"),
        "random": writer.encode(random, "random"),
    }
    return tree, writer


def restore_strategy(
    strategy: SupervisedTemplate,
    tree: Node,
    tensors: dict[str, Tensor],
    trained: Sequence[Any],
    others: Sequence[Any],
) -> None:
    """Put a tree into a fresh strategy; after an error it may be half changed.

    :param strategy: it is changed in place: all objects in it keep their identity where they can.
    :param tree: what :func:`encode_strategy` gave, after a file.
    :param tensors: the tensors that it refers to; they are copied.
    :param trained: the experiences that the model has been trained on.
    :param others: experiences that it may have been evaluated on.
    :raises CheckpointError: if the tree is malformed.
    :raises StateDictError: if it does not fit the strategy.
    """
    _check_plugins(strategy, tree)
    model, optimizer = field(tree, "model", dict, "model"), field(tree, "optimizer", dict, "root")
    made = known_names(optimizer) is not None
    shapes = saved_shapes(Reader(tensors), model, "model")
    if made:
        # Before the model grows: only then does Avalanche find grown parameters again.
        strategy.make_optimizer(reset_optimizer_state=True)
    adapt_model(strategy, trained, others, shapes)
    if made:
        strategy.make_optimizer()
    reader = Reader(tensors, _references(strategy), strategy.device)
    reader.module(model, strategy.model, "model")
    reader.members(tree.get("strategy"), strategy, "strategy", _not_further())
    for index, (plugin, (_, node)) in enumerate(
        zip(strategy.plugins, tree["plugins"], strict=True)
    ):
        reader.read(node, plugin, _plugin_path(index, plugin))
    random = reader.read(tree.get("random"), ABSENT, "random")
    check_random_states(random)
    read_optimizer(reader, optimizer, strategy)
    reader.apply()
    set_random_states(random)


def _not_further() -> frozenset[str]:
    return _OWN | _RUN | _SETTINGS


def _plugin_path(index: int, plugin: object) -> str:
    return f"plugins[{index}] ({type(plugin).__name__})"


def _references(strategy: SupervisedTemplate) -> dict[str, object]:
    references: dict[str, object] = {"strategy": strategy, "optimizer": strategy.optimizer}
    for name, module in strategy.model.named_modules():
        references[f"model.{name}" if name else "model"] = module
    for name, parameter in strategy.model.named_parameters():
        references[f"parameter {name}"] = parameter
    for index, plugin in enumerate(strategy.plugins):
        references[f"plugins[{index}]"] = plugin
    return references


def _check_plugins(strategy: SupervisedTemplate, tree: Node) -> None:
    entries = pairs(field(tree, "plugins", list, "root"), "plugins")
    saved, here = [name for name, _ in entries], [class_name(plugin) for plugin in strategy.plugins]
    if any(type(name) is not str for name in saved):
        raise malformed("plugins", "their names")
    if saved != here:
        raise misfit(
            "the list of plugins", f"is {', '.join(saved)}", f"here it is {', '.join(here)}"
        )
    for (_, node), plugin in zip(entries, strategy.plugins, strict=True):
        kind = "stateful" if is_stateful(plugin) else None
        if kind and field(node, "is", str, "plugins") != kind:
            raise misfit(
                "the list of plugins", "has a plugin without state_dict()", "here it has one"
            )
