"""What a checkpoint does with each kind of object: store, keep, refer to, construct or refuse."""

import enum
import functools
import io
import logging
import pathlib
import random
import re
import threading
import types
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import psutil
import torch
from avalanche.benchmarks import CLExperience, CLScenario, CLStream
from avalanche.evaluation.metrics import Accuracy, LossMetric, Mean, Sum
from avalanche.evaluation.metrics.amca import AverageMeanClassAccuracy
from avalanche.logging import BaseLogger
from avalanche.training import Cumulative, LearningWithoutForgetting
from avalanche.training.plugins import (
    AGEMPlugin,
    BiCPlugin,
    EvaluationPlugin,
    FeatureDistillationPlugin,
    GDumbPlugin,
    GenerativeReplayPlugin,
    LFLPlugin,
)
from avalanche.training.storage_policy import ExemplarsBuffer
from avalanche.training.utils import ParamData
from torch import nn
from torch.utils.data import DataLoader, Dataset

from si_avalanche.checkpoint.document import Value

CODE = (
    type,
    types.BuiltinFunctionType,
    types.FunctionType,
    types.MethodType,
    types.MethodDescriptorType,
    types.ModuleType,
    functools.partial,
    np.ufunc,
)
"""Configuration: the freshly built strategy must have the same at the same place."""

CONSTANTS = (complex, enum.Enum, pathlib.PurePath, range, re.Pattern, slice, types.EllipsisType)
"""Values that never change in place: the fresh strategy must have the same value there."""

HANDLES = (BaseLogger, io.IOBase, logging.Handler, logging.Logger, psutil.Process, threading.Thread)
"""Ties to the running process: whatever the fresh strategy has there stays."""

DATA = (CLExperience, CLScenario, CLStream, DataLoader, Dataset, ExemplarsBuffer)
"""Samples, which a checkpoint does not store."""

KEEPERS: Mapping[type, str] = {
    AGEMPlugin: "buffers",
    BiCPlugin: "model_old",
    Cumulative: "dataset",
    FeatureDistillationPlugin: "prev_model",
    GDumbPlugin: "init_model",
    GenerativeReplayPlugin: "old_generator",
    LFLPlugin: "prev_model",
    LearningWithoutForgetting: "prev_model",
}
"""Classes that will hold samples or a copy of the model, and the attribute; refused at the start,
when it is still empty."""

SEQUENCES: Mapping[type, str] = {
    deque: "deque",
    frozenset: "frozenset",
    list: "list",
    set: "set",
    torch.Size: "size",
    tuple: "tuple",
}
MAPPINGS: Mapping[type, str] = {
    Counter: "counter",
    OrderedDict: "ordered_dict",
    defaultdict: "defaultdict",
    dict: "dict",
}

DTYPES: Mapping[str, torch.dtype] = {
    str(value): value for value in vars(torch).values() if isinstance(value, torch.dtype)
}


def class_name(value: object) -> str:
    """Return the full name of an object's class."""
    return f"{type(value).__module__}.{type(value).__qualname__}"


def code_name(value: Value) -> str:
    """Return a name by which a function, class or module is told from another."""
    if isinstance(value, functools.partial):
        return f"partial of {code_name(value.func)}"
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", repr(value))
    return f"{getattr(value, '__module__', None)}.{name}"


def attributes(value: object) -> dict[str, Any]:
    """Return the attributes that make up an object's state; loggers are configuration."""
    hidden = {"loggers"} if isinstance(value, EvaluationPlugin) else set()
    return {name: content for name, content in vars(value).items() if name not in hidden}


def is_stateful(value: object) -> bool:
    """Tell whether an object stores and restores itself; plain modules are stored by name."""
    if isinstance(value, nn.Module) and type(value).state_dict is nn.Module.state_dict:
        return False
    methods = (getattr(value, name, None) for name in ("state_dict", "load_state_dict"))
    return all(callable(method) for method in methods)


_MADE = (Accuracy, AverageMeanClassAccuracy, LossMetric, Mean, Sum)

CONSTRUCTED: Mapping[str, Callable[[], Any]] = {
    **{code_name(make): make for make in _MADE},
    code_name(ParamData): lambda: ParamData("", shape=(0,)),
}
"""All objects that are made anew where the fresh strategy has none yet, by class name."""

FACTORIES: Mapping[str, Callable[[], Any] | None] = {
    "None": None,
    **{code_name(make): make for make in (dict, float, int, list, set, tuple, Accuracy, Mean)},
}
"""All factories of a defaultdict that is made anew, by name."""


def _get_numpy(generator: Value) -> Value:
    return generator.bit_generator.state


def _set_numpy(generator: Value, state: Value) -> None:
    generator.bit_generator.state = state


GENERATORS: Mapping[str, tuple[type, Callable[[Any], Any], Callable[[Any, Any], object]]] = {
    "torch": (torch.Generator, torch.Generator.get_state, torch.Generator.set_state),
    "python": (random.Random, random.Random.getstate, random.Random.setstate),
    "numpy": (np.random.Generator, _get_numpy, _set_numpy),
    "numpy legacy": (
        np.random.RandomState,
        np.random.RandomState.get_state,
        np.random.RandomState.set_state,
    ),
}
"""Random generators: the type, and how its state is read and written."""
