"""The metric values that an evaluator has collected."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

_RESULTS = ("all_metric_results", "last_metric_results")


def plain_results(values: Mapping[str, Any], is_plain: Callable[[object], bool]) -> dict[str, Any]:
    """Return an evaluator's attributes without the metrics whose values cannot be stored.

    Such values (figures, images) are left out of the checkpoint with a warning: after resuming,
    their curves begin anew. All other metrics are stored.

    :param values: the attributes; they are only read.
    :param is_plain: whether a value can be stored.
    """
    kept = dict(values)
    for attribute in _RESULTS:
        left_out = [name for name, value in values[attribute].items() if not is_plain(value)]
        if left_out:
            warnings.warn(
                f"The checkpoint leaves out the values of {', '.join(left_out)}: they are neither "
                "numbers nor tensors. After resuming, these curves begin anew.",
                stacklevel=2,
            )
            kept[attribute] = values[attribute].copy()
            for name in left_out:
                del kept[attribute][name]
    return kept
