"""Files with a valid checksum and hostile content do nothing but fail."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from si_avalanche import CheckpointError, StateDictError, resume_training
from si_avalanche.checkpoint.container import read_file, write_file
from si_avalanche.checkpoint.document import from_bytes, to_bytes
from tests.interruption.portraits import whole
from tests.interruption.trainings import TRAININGS, streams_of

Change = Callable[[Any, dict[str, Tensor]], Any]

BUILD = TRAININGS["one head, momentum"][0]


def put(*path: Any, value: Any) -> Change:
    """A change of one entry of the tree."""

    def change(tree: Any, _: dict[str, Tensor]) -> None:
        for step in path[:-1]:
            tree = tree[step]
        tree[path[-1]] = value

    return change


def swap(name: str, make: Callable[[Tensor], Tensor]) -> Change:
    def change(_: Any, tensors: dict[str, Tensor]) -> None:
        tensors[name] = make(tensors[name])

    return change


def deep(kind: str) -> Any:
    node: Any = 1
    for _ in range(2000):
        node = {"is": kind, "id": 0, "items": [node]}
    return node


def bomb(module: str, name: str) -> dict[str, Any]:
    return {"is": "object", "id": 900, "class": f"{module}.{name}", "state": []}


EVALUATOR = ("plugins", 1, 1, "state")
CLOCK = ("plugins", 3, 1, "state")
RANDOM = ("random", "items")


def lose(_: Any, tensors: dict[str, Tensor]) -> None:
    del tensors["t0"]


def damage_si(tree: Any, tensors: dict[str, Tensor]) -> None:
    text = json.dumps(tree["plugins"][0][1])
    names = [name for name in tensors if f'"{name}"' in text]
    assert names
    tensors[names[0]] = torch.zeros(3)


MALFORMED: dict[str, Change] = {
    "no tree": lambda *_: [],
    "a number for a tree": lambda *_: 3,
    "done is text": put("done", value="2"),
    "done is a bool": put("done", value=True),
    "done is negative": put("done", value=-1),
    "an unknown kind": put(*CLOCK, 0, 1, value={"is": "eval", "text": "1"}),
    "a list as a node": put(*CLOCK, 0, 1, value=[1]),
    "a node without kind": put(*CLOCK, 0, 1, value={"text": 1}),
    "nested too deeply": put(*CLOCK, 0, 1, value=deep("list")),
    "a missing tensor": lose,
    "an unknown object": put(*CLOCK, 0, 1, value={"is": "same", "id": 777}),
    "a float that is none": put(*CLOCK, 0, 1, value={"is": "float", "text": "__import__"}),
    "an int that is none": put(*CLOCK, 0, 1, value={"is": "int", "hex": "zz"}),
    "bytes that are none": put(*CLOCK, 0, 1, value={"is": "bytes", "hex": "zz"}),
    "a dtype that is none": put(*CLOCK, 0, 1, value={"is": "dtype", "name": "torch.load"}),
    "a device that is none": put(*CLOCK, 0, 1, value={"is": "device", "name": "rm -rf"}),
    "an unhashable key": put(
        *CLOCK,
        0,
        1,
        value={"is": "dict", "id": 901, "items": [[{"is": "list", "id": 902, "items": []}, 1]]},
    ),
    "an unhashable member": put(
        *CLOCK,
        0,
        1,
        value={"is": "set", "id": 901, "items": [{"is": "list", "id": 902, "items": []}]},
    ),
    "a size of text": put(*CLOCK, 0, 1, value={"is": "size", "id": 901, "items": ["a"]}),
    "a deque of huge length": put(
        *CLOCK, 0, 1, value={"is": "deque", "id": 901, "maxlen": 1 << 80, "items": []}
    ),
    "a method as an attribute": lambda tree, _: tree["plugins"][3][1]["state"].append(
        ["before_training_exp", 1]
    ),
    "a class as an attribute": lambda tree, _: tree["plugins"][3][1]["state"].append(
        ["__class__", 1]
    ),
    "a plugin list as an attribute": put("strategy", 0, 0, value="plugins"),
    "parameters as an attribute": lambda tree, _: tree["model"]["attributes"].append(
        ["", "_parameters", {"is": "dict", "id": 901, "items": []}]
    ),
    "forward as an attribute": lambda tree, _: tree["model"]["attributes"].append(
        ["", "forward", 1]
    ),
    "a parameter twice": lambda tree, _: tree["model"]["parameters"].append(
        tree["model"]["parameters"][0]
    ),
    "parameter entries too short": put("model", "parameters", 0, value=["features.weight"]),
    "options without a dictionary": put("optimizer", "groups", 0, 1, value=3),
    "parameters among the options": lambda tree, _: tree["optimizer"]["groups"][0][1][
        "items"
    ].append(["params", 1]),
    "the state of no parameter": put("optimizer", "states", 0, 0, value="model.nothing"),
    "a state that is no dictionary": put("optimizer", "states", 0, 1, value=4),
    "a gradient by text": put("model", "parameters", 0, 2, value="yes"),
    "known parameters of numbers": put("optimizer", "known", value=[1]),
    "members that are numbers": put("optimizer", "groups", 0, 0, value=[1]),
    "random states of text": put(*RANDOM, 0, 1, value="x"),
    "random states lacking": put("random", value={"is": "dict", "id": 903, "items": []}),
}

MISFITTING: dict[str, Change] = {
    "more experiences than the stream": put("done", value=99),
    "an os.system": put(*CLOCK, 0, 1, value=bomb("os", "system")),
    "a subprocess": put(*CLOCK, 0, 1, value=bomb("subprocess", "Popen")),
    "an object where there is none": put(*CLOCK, 0, 1, value=bomb("builtins", "object")),
    "code where there is none": put(*CLOCK, 0, 1, value={"is": "code", "name": "os.system"}),
    "a reference to nowhere": put(*CLOCK, 0, 1, value={"is": "reference", "to": "os"}),
    "a factory by name": put(
        *CLOCK, 0, 1, value={"is": "defaultdict", "id": 904, "factory": "os.getpid", "items": []}
    ),
    "a generator where there is none": put(
        *CLOCK, 0, 1, value={"is": "generator", "id": 905, "kind": "numpy", "state": 1}
    ),
    "a constant where there is none": put(*CLOCK, 0, 1, value={"is": "constant", "text": "1j"}),
    "a module where there is none": put(*CLOCK, 0, 1, value={"is": "module", "id": 906}),
    "an attribute lacking": lambda tree, _: tree["plugins"][3][1]["state"].pop() and None,
    "a plugin lacking": lambda tree, _: tree["plugins"].pop(0) and None,
    "another plugin": put("plugins", 0, 0, value="somewhere.Else"),
    "another optimiser": put("optimizer", "class", value="torch.optim.adam.Adam"),
    "a parameter group more": lambda tree, _: tree["optimizer"]["groups"].append(
        tree["optimizer"]["groups"][0]
    ),
    "an option lacking": lambda tree, _: tree["optimizer"]["groups"][0][1]["items"].pop(0) and None,
    "a counter of text": put(*CLOCK, 0, 1, value="many"),
    "a counter that is the strategy": put(
        *CLOCK, 0, 1, value={"is": "reference", "to": "strategy"}
    ),
    "an option that is the strategy": lambda tree, _: tree["optimizer"]["groups"][0][1][
        "items"
    ].append(["lr", {"is": "reference", "to": "strategy"}]),
    "an option of text": lambda tree, _: tree["optimizer"]["groups"][0][1]["items"].append(
        ["lr", "fast"]
    ),
    "another option that is the model": lambda tree, _: tree["optimizer"]["groups"][0][1][
        "items"
    ].append(["more", {"is": "reference", "to": "model"}]),
    "a part that is not there": put("model", "modes", 0, 0, value="nowhere"),
    "members twice": lambda tree, _: tree["optimizer"]["groups"][0][0].append(
        tree["optimizer"]["groups"][0][0][0]
    ),
    "a parameter of another shape": swap("t0", lambda t: t[:, :3]),
    "a parameter of another dtype": swap("t0", lambda t: t.double()),
    "the state of SI of another shape": damage_si,
    "the state of SI as text": put("plugins", 0, 1, "state", value="text"),
}


@contextmanager
def patience() -> Iterator[None]:
    """Let deep nesting be written; reading it has to do with the usual limit."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    yield
    sys.setrecursionlimit(limit)


def attacked(change: Change, saved: bytes, path: Path, kind: type[Exception]) -> None:
    path.write_bytes(saved)
    tree, tensors = from_bytes(read_file(path))
    replaced = change(tree, tensors)
    with patience():
        write_file(path, to_bytes(tree if replaced is None else replaced, tensors))
    stream, evaluated = streams_of("one head, momentum")
    strategy = BUILD()
    before = whole(strategy)
    with pytest.raises(kind) as caught:
        resume_training(path, strategy, stream, evaluated)
    assert whole(strategy) == before
    assert "Resume from another copy" in str(caught.value) or kind is StateDictError


@pytest.mark.parametrize("change", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_content_is_refused_without_a_trace(
    change: Change, saved: bytes, tmp_path: Path
) -> None:
    attacked(change, saved, tmp_path / "run.checkpoint", CheckpointError)


@pytest.mark.parametrize("change", MISFITTING.values(), ids=MISFITTING.keys())
def test_content_of_another_training_is_refused_without_a_trace(
    change: Change, saved: bytes, tmp_path: Path
) -> None:
    attacked(change, saved, tmp_path / "run.checkpoint", StateDictError)


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 200_000,
        b'{"a": NaN}',
        b"\xff\xfe",
        b"1" * 10_000,
        b"{",
    ],
    ids=["deep", "nan", "bytes", "huge number", "cut"],
)
def test_a_tree_that_is_no_plain_json_is_refused(text: bytes, tmp_path: Path) -> None:
    path = tmp_path / "run.checkpoint"
    write_file(path, save({"tree": torch.frombuffer(bytearray(text), dtype=torch.uint8)}))
    with pytest.raises(CheckpointError, match="malformed"):
        resume_training(path, BUILD(), streams_of("one head, momentum")[0])


@pytest.mark.parametrize(
    "header",
    [
        {"tree": {"dtype": "U8", "shape": [1 << 60], "data_offsets": [0, 1 << 60]}},
        {"tree": {"dtype": "U8", "shape": [4], "data_offsets": [0, 99]}},
        {"tree": {"dtype": "XX", "shape": [4], "data_offsets": [0, 4]}},
        {"tree": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}},
        {"tree": {"dtype": "U8", "shape": [2, 2], "data_offsets": [0, 4]}},
        {"tree": 3},
    ],
    ids=["huge", "beyond the end", "dtype", "floats", "square", "no tensor"],
)
def test_a_tensor_table_that_lies_is_refused(header: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.checkpoint"
    text = json.dumps(header).encode()
    write_file(path, len(text).to_bytes(8, "little") + text + b"1234")
    with pytest.raises(CheckpointError, match="malformed"):
        resume_training(path, BUILD(), streams_of("one head, momentum")[0])


def test_a_header_of_any_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.checkpoint"
    write_file(path, (1 << 62).to_bytes(8, "little") + b"{}")
    with pytest.raises(CheckpointError, match="malformed"):
        resume_training(path, BUILD(), streams_of("one head, momentum")[0])
