"""A model as it is protected: which of its parameters, under which names."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from si_avalanche.live import LiveParameters
from si_avalanche.normalisation import RunningStatistics
from si_avalanche.parameters import plain_named_parameters, select_parameters
from si_avalanche.settings import Settings
from si_avalanche.state import State


@dataclass(frozen=True)
class Binding:
    """What is known of a model whose parameters a state belongs to.

    :param model: the model.
    :param names: the names of all its parameters.
    :param live: the protected ones, those frozen for now included.
    :param skipped: the others, each with the reason.
    :param statistics: the running statistics of its normalisation layers.
    """

    model: nn.Module
    names: tuple[str, ...]
    live: LiveParameters
    skipped: Mapping[str, str]
    statistics: RunningStatistics

    def is_up_to_date_with(self, model: nn.Module) -> bool:
        """Whether a model has the very parameters of this one, under the same names."""
        names = tuple(name for name, _ in plain_named_parameters(model))
        return names == self.names and self.live.are_still_all_of(model)

    def continues_in(self, model: nn.Module) -> bool:
        """Whether a model has some of the very parameters, or all of them with the same weights."""
        if self.live.have_something_of(model):
            return True
        parameters = dict(plain_named_parameters(model))
        same_names = parameters.keys() >= set(self.live.names)
        return same_names and not self.live.with_other_weights(parameters)


def bind(
    model: nn.Module, state: State, settings: Settings, before: Binding | None = None
) -> Binding:
    """Fit a state to a model.

    :param model: it is only read.
    :param state: it is changed in place, as :meth:`~si_avalanche.state.State.fit` says.
    :param settings: what is protected.
    :param before: the binding that this state had, to see which layers were replaced.
    :raises ParameterSelectionError: if nothing is left to protect; nothing has been changed then.
    :raises ModelChangedError: if a parameter with state has left the model or shrunk; nothing has
        been changed then.
    """
    selection = select_parameters(model, settings.include, settings.exclude, settings.normalisation)
    everything = dict(plain_named_parameters(model))
    # A layer that is frozen for now still gets what it has earned in this task.
    protected = {
        name: parameter
        for name, parameter in everything.items()
        if name in selection.protected or name in state.importance
    }
    others = before.live.with_other_weights(everything) if before else ()
    state.fit(protected, settings.first_anchor, settings.replaced, others)
    live = LiveParameters(model, protected)
    return Binding(model, tuple(everything), live, selection.skipped, RunningStatistics(model))
