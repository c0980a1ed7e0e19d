"""Every kind of plain data goes through a checkpoint unchanged, and its structure with it."""

import math
import random
import struct
from collections import Counter, OrderedDict, defaultdict, deque
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from si_avalanche import CheckpointError
from si_avalanche.checkpoint.document import from_bytes, to_bytes
from si_avalanche.checkpoint.nodes import ABSENT
from si_avalanche.checkpoint.reader import Reader
from si_avalanche.checkpoint.writer import Writer
from tests.interruption.trainings import bits

DTYPES = [
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.complex64,
]


def through(value: Any, live: Any = ABSENT) -> Any:
    writer = Writer()
    payload = to_bytes(writer.encode(value, "value"), writer.tensors)
    tree, tensors = from_bytes(payload)
    reader = Reader(tensors)
    result = reader.read(tree, live, "value")
    reader.apply()
    return result


def same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return struct.pack("d", one) == struct.pack("d", other) or one != one
    if isinstance(one, Tensor):
        alike = one.dtype == other.dtype and one.shape == other.shape
        return alike and torch.equal(bits(one), bits(other))
    if isinstance(one, np.ndarray | np.generic):
        return (
            one.dtype == other.dtype
            and one.shape == other.shape
            and one.tobytes() == other.tobytes()
        )
    if isinstance(one, dict):
        keys = all(same(a, b) for a, b in zip(one, other, strict=True))
        return keys and all(same(a, b) for a, b in zip(one.values(), other.values(), strict=True))
    if isinstance(one, list | tuple | deque):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


def tensors() -> st.SearchStrategy[Tensor]:
    def make(dtype: torch.dtype, shape: list[int], seed: int, transposed: bool) -> Tensor:
        torch.manual_seed(seed)
        tensor = (torch.randn(shape, dtype=torch.float32) * 100).to(dtype)
        return tensor.T if transposed and tensor.dim() == 2 else tensor

    shapes = st.lists(st.integers(0, 3), max_size=3)
    return st.builds(make, st.sampled_from(DTYPES), shapes, st.integers(0, 99), st.booleans())


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.binary(),
    st.sampled_from([torch.float32, torch.bfloat16, torch.device("cpu")]),
    st.builds(np.float32, st.floats(width=32)),
    st.builds(np.int64, st.integers(-9, 9)),
)
keys = st.one_of(st.integers(), st.text(), st.booleans(), st.tuples(st.integers(), st.text()))
hashable = st.one_of(st.integers(), st.text(), st.binary(), st.none())
trees = st.recursive(
    scalars | tensors(),
    lambda inner: st.one_of(
        st.lists(inner),
        st.lists(inner).map(tuple),
        st.dictionaries(keys, inner),
        st.dictionaries(keys, inner).map(OrderedDict),
        st.lists(inner).map(deque),
        st.sets(hashable),
        st.frozensets(hashable),
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(trees)
def test_any_tree_of_plain_data_comes_back_the_same(tree: Any) -> None:
    assert same(tree, through(tree))


@settings(deadline=None)
@given(trees, trees)
def test_it_comes_back_the_same_whatever_stood_in_its_place(tree: Any, live: Any) -> None:
    assert same(tree, through(tree, live))


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        math.inf,
        -math.inf,
        -0.0,
        10**5000,
        -(2**63),
        "\ud800",
        deque([1, 2], maxlen=2),
        Counter({"a": -1, "b": 0}),
        defaultdict(list, {1: [2]}),
        torch.Size([2, 3]),
        {1: "int", "1": "str", True + 1: "two", (1, (2,)): None},
        np.array([[1, 2], [3, 4]], dtype=np.uint32)[:, ::-1],
        np.array(3.5),
        torch.tensor([math.nan, math.inf, -0.0]),
        torch.arange(4).expand(3, 4),
        torch.tensor(1.0, requires_grad=True),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_with_traps_come_back_the_same(value: Any) -> None:
    assert same(value, through(value))


def test_what_was_one_object_is_one_object_again_and_what_was_two_is_two() -> None:
    tensor, shared = torch.ones(2), [1]
    cycle: list[Any] = []
    cycle.append(cycle)
    live = [0]
    back = through(
        {"a": tensor, "b": tensor, "c": tensor.clone(), "d": shared, "e": (shared,), "f": cycle},
        {"a": tensor, "d": live, "e": (live,), "f": [live]},
    )
    assert back["a"] is back["b"] is not back["c"]
    assert back["a"] is not tensor
    assert back["d"] is back["e"][0] is live
    assert live == [1]
    assert back["f"][0] is back["f"]
    one = [7]
    apart = through({"x": [1], "y": [2]}, {"x": one, "y": one})
    assert apart == {"x": [1], "y": [2]}


def test_tensors_that_share_memory_come_back_with_memory_of_their_own() -> None:
    base = torch.arange(6.0)
    back = through([base, base[2:4]])
    assert torch.equal(back[1], base[2:4])
    back[0].zero_()
    assert torch.equal(back[1], base[2:4])


def test_a_parameter_keeps_its_identity_and_gets_the_stored_values() -> None:
    stored = nn.Parameter(torch.tensor([1.0, 2.0]), requires_grad=False)
    live = nn.Parameter(torch.zeros(2))
    assert through({"p": stored}, {"p": live})["p"] is live
    assert live.tolist() == [1.0, 2.0]
    assert not live.requires_grad
    fresh = through({"p": stored})["p"]
    assert isinstance(fresh, nn.Parameter)


@pytest.mark.parametrize("kind", ["python", "numpy", "numpy legacy", "torch"])
def test_random_generators_go_on_where_they_were(kind: str) -> None:
    make: Any = {
        "python": lambda: (g := random.Random(3), g.random),
        "numpy": lambda: (g := np.random.default_rng(3), g.random),
        "numpy legacy": lambda: (g := np.random.RandomState(3), g.rand),
        "torch": lambda: (g := torch.Generator(), lambda: torch.rand(1, generator=g).item()),
    }[kind]
    stored, draw = make()
    draw()
    live, draw_live = make()
    assert through([stored], [live])[0] is live
    assert draw() == draw_live()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (iter([1]), "list_iterator"),
        (torch.zeros(2, device="meta"), "dense tensors that have values"),
        (torch.zeros(2).to_sparse(), "dense tensors"),
        (np.array(["a"]), "numpy.ndarray"),
        (np.array([None]), "numpy.ndarray"),
        (bytearray(b"x"), "bytearray"),
        (object(), "builtins.object"),
        (nn.UninitializedParameter(), "UninitializedParameter"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_stored_is_refused_by_place_and_kind(value: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=rf"plugin\.a\[0\].*{message}.*state_dict"):
        Writer().encode([value], "plugin.a")
