"""Following an optimiser's own steps, and nothing else that happens to weights."""

from collections.abc import Callable, Mapping
from functools import partial

from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from si_avalanche.errors import CallOrderError, ConfigurationError


class OptimizerFollower:
    """Calls back at both ends of an optimiser's steps while attached; leaves no trace otherwise."""

    def __init__(self) -> None:
        self._handles: list[RemovableHandle] = []

    @property
    def is_attached(self) -> bool:
        """Whether an optimiser is being followed."""
        return bool(self._handles)

    def attach(
        self, optimizer: Optimizer, before: Callable[[], None], after: Callable[[], None]
    ) -> None:
        """Follow this optimiser, and no other.

        :param optimizer: any of PyTorch's, or a subclass; it gets two hooks.
        :param before: called right before each step, which is refused if it has a closure.
        :param after: called right after it.
        :raises ConfigurationError: if it is no ``torch.optim.Optimizer``.
        """
        if not isinstance(optimizer, Optimizer):
            raise ConfigurationError(
                "The optimiser must be a torch.optim.Optimizer, whose steps can be followed, got "
                f"{type(optimizer).__name__}. Derive it from that class, or use "
                "SynapticIntelligence in a loop of your own."
            )
        self.detach()
        try:
            self._handles = [
                optimizer.register_step_pre_hook(partial(_begin, before)),
                optimizer.register_step_post_hook(lambda *_: after()),
            ]
        except AttributeError as error:
            raise ConfigurationError(
                f"{type(optimizer).__name__} takes no hooks ({error}), so that its steps can't be "
                "followed. Let its constructor call super().__init__()."
            ) from error

    def detach(self) -> None:
        """Stop following; harmless if nothing is followed."""
        for handle in self._handles:
            handle.remove()
        self._handles = []


def _begin(
    before: Callable[[], None],
    optimizer: Optimizer,
    args: tuple[object, ...],
    kwargs: Mapping[str, object],
) -> None:
    if any(callable(value) for value in (*args, *kwargs.values())):
        raise CallOrderError(
            f"{type(optimizer).__name__} was given a closure: it computes gradients within its "
            "step, perhaps several times as LBFGS does, which can't be followed. Use an optimiser "
            "that steps along the gradients it finds."
        )
    before()
