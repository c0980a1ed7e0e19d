"""Avalanche's own warnings that say nothing to a user of the experiments, each by its message."""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

_KNOWN = (
    # On import, for GEM, which is not among the strategies here.
    "no QP solver found on your system",
    # Accuracies are read from the evaluator; its loggers are only on request.
    "No loggers specified, metrics will not be logged",
    # Avalanche's replay plugin calls its own storage policy's old name.
    "Call to deprecated function update ",
    # Avalanche's own SI writes tensors with numpy.
    "__array_wrap__ must accept context and return_scalar",
)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the known warnings from the terminal while the body runs; let all others through."""
    with warnings.catch_warnings():
        for message in _KNOWN:
            warnings.filterwarnings("ignore", message=re.escape(message))
        # Avalanche puts a filter of its own before these each time it calls a deprecated
        # function, so what must not be shown has to be held back where it is shown.
        show = warnings.showwarning

        def show_unknown(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if not str(message).startswith(_KNOWN):
                show(message, category, filename, lineno, file, line)

        warnings.showwarning = show_unknown
        yield


def quiet_profiler() -> None:
    """Keep PyTorch's profiler and timer from the terminal; call it before PyTorch is imported.

    The profiler logs that it starts and stops, that there is no GPU, and that it does not know
    memory that was allocated before it looked; the timer, that a compiler for GPUs is there and
    no GPU.
    """
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
