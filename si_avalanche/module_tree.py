"""Seeing at little cost that a model has the modules and parameters that it had."""

from operator import is_

from torch import nn


class ModuleTree:
    """The modules of a model with what they hold, as they are now.

    :param model: any module; it is only read.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        modules = list(model.modules())
        # What nn.Module.parameters() walks through, which takes ten times as long.
        tables = [table for module in modules for table in (module._parameters, module._modules)]
        self._held = [(table, list(table.values())) for table in tables]
        found = {id(p) for module in modules for p in module._parameters.values()}
        self._is_complete = found >= set(map(id, model.parameters()))

    def is_still(self, model: nn.Module) -> bool:
        """Whether a model is this one and nothing in it was added, replaced or taken away.

        :param model: any module; ``False`` is also the answer for one that lists parameters which
            none of its modules holds.
        """
        return (
            model is self._model
            and self._is_complete
            and all(
                len(held) == len(table) and all(map(is_, held, table.values()))
                for table, held in self._held
            )
        )
