"""A fresh model grown to the structure of the saved one, by the experiences it has been through."""

from collections.abc import Sequence
from typing import Any, TypeAlias

from avalanche.training.templates import SupervisedTemplate
from avalanche.training.utils import _at_task_boundary

from si_avalanche.checkpoint.modules import shapes
from si_avalanche.checkpoint.undo import Snapshot
from si_avalanche.errors import StateDictError

Shapes: TypeAlias = list[tuple[str, tuple[int, ...]]]
_Order: TypeAlias = list[tuple[Sequence[Any], bool]]


def adapt_model(
    strategy: SupervisedTemplate, trained: Sequence[Any], others: Sequence[Any], saved: Shapes
) -> None:
    """Adapt the strategy's model until its parameters have the saved shapes and order.

    :param strategy: its model is changed, moved to its device and, as its experience was, adapted
        by ``strategy.model_adaptation()``.
    :param trained: the experiences that have been trained, in order.
    :param others: experiences that may have been evaluated; used only if the trained ones are not
        enough, after the last or after the first of them.
    :param saved: the parameters that the model should have; if an order of adaptation gives the
        same ones in another order, that will do.
    :raises StateDictError: if no order of adaptation gives them.
    """
    strategy.model.to(strategy.device)
    orders: list[_Order] = [[(trained, True)]]
    if others:
        orders.append([(trained, True), (others, False)])
        orders.append([(trained[:1], True), (others, False), (trained[1:], True)])
    # One order needs no way back of its own: the caller has one.
    start = Snapshot(strategy) if others else None
    found: list[Shapes] = []
    for order in orders:
        if found and start is not None:
            start.restore()
        _replay(strategy, order)
        found.append(shapes(strategy.model))
        if found[-1] == saved:
            return
    for order, shape in zip(orders, found, strict=True):
        if sorted(shape) == sorted(saved):
            if start is not None:
                start.restore()
                _replay(strategy, order)
            return
    raise StateDictError(_differences(found[-1], saved))


def _replay(strategy: SupervisedTemplate, order: _Order) -> None:
    for experiences, training in order:
        strategy.is_training = training
        strategy.model.train(training)
        for experience in experiences:
            if not training or _at_task_boundary(experience, before=True):
                strategy.experience = experience
                strategy.model = strategy.model_adaptation()
    strategy.experience = None


def _differences(found: Shapes, saved: Shapes) -> str:
    here, there = dict(found), dict(saved)
    names = [name for name in here | there if here.get(name) != there.get(name)]
    table = "; ".join(
        f"{name}: {there.get(name, 'nothing')} in the checkpoint, {here.get(name, 'nothing')} here"
        for name in names[:4]
    )
    return (
        f"The model does not get the checkpoint's parameters from the trained experiences ({table}"
        f"{'; ...' if len(names) > 4 else ''}). If it grows in evaluation too, pass what was "
        "evaluated in between: resume_training(path, strategy, stream, evaluated_stream). "
        "Otherwise build the model as the one that was saved. The strategy is as it was."
    )
