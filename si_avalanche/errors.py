"""Named errors: each says what was given, what is allowed and how to mend it."""


class SIError(Exception):
    """Base of every error that si-avalanche raises by itself."""


class ConfigurationError(SIError, ValueError):
    """A setting is outside its allowed values."""


class UnknownOptionError(ConfigurationError, TypeError):
    """There is no option of this name."""


class ParameterSelectionError(ConfigurationError):
    """The patterns and the model leave nothing to protect, or a pattern matches nothing."""


class CallOrderError(SIError, RuntimeError):
    """The calls of one training step came in an order that would lose or falsify a step."""


class ModelChangedError(SIError, RuntimeError):
    """The model no longer has a parameter that carries importance, or has it in a smaller shape."""


class NonFiniteError(SIError, ArithmeticError):
    """A path integral or a weight is not finite, so that importance would be poisoned for good."""


class StateDictError(SIError, ValueError):
    """A state dictionary does not fit the object that should load it."""


class CheckpointError(SIError, RuntimeError):
    """A checkpoint cannot be read, or a training holds what a checkpoint cannot store."""
