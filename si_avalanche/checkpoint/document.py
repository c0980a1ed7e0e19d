"""A tree of plain data and its tensors as bytes, by safetensors and JSON alone."""

import json
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from si_avalanche.errors import CheckpointError

Node: TypeAlias = Any
"""A value as JSON has it: None, bool, int, float, str, or lists and dictionaries of these."""

Value: TypeAlias = Any
"""An object of a strategy, of whatever type."""

_TREE = "tree"


def to_bytes(tree: Node, tensors: dict[str, Tensor]) -> bytes:
    """Return a document as bytes.

    :param tree: the plain data, without NaN or infinity; it refers to tensors by their names.
    :param tensors: dense tensors on any device, without a name ``"tree"``; they are copied.
    :raises CheckpointError: if a tensor has a dtype that safetensors lacks.
    """
    text = json.dumps(tree, allow_nan=False, separators=(",", ":")).encode()
    copies = {name: _dense_copy(tensor) for name, tensor in tensors.items()}
    copies[_TREE] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    try:
        return save(copies)
    except (SafetensorError, KeyError, ValueError, RuntimeError, TypeError) as error:
        dtypes = ", ".join(sorted({str(tensor.dtype) for tensor in tensors.values()}))
        raise CheckpointError(
            f"safetensors cannot store these tensors (dtypes {dtypes}): {error}. Hold them in a "
            "common dtype, such as torch.float32."
        ) from error


def from_bytes(payload: bytes) -> tuple[Node, dict[str, Tensor]]:
    """Return the tree and the tensors of a document; nothing but data is made of the bytes.

    :raises CheckpointError: if the bytes are no such document.
    """
    try:
        tensors = load(payload)
        tree = tensors.pop(_TREE)
        if tree.dtype != torch.uint8 or tree.dim() != 1:
            raise ValueError(f"its tree is a tensor of {tree.dtype}, shape {tuple(tree.shape)}")
        return json.loads(tree.numpy().tobytes()), tensors
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise CheckpointError(
            f"The checkpoint's content is malformed ({reason}): save_training() did not write it. "
            "Resume from another copy, or delete the file to start anew."
        ) from error


def _dense_copy(tensor: Tensor) -> Tensor:
    # A copy of its own: safetensors refuses tensors that share memory.
    dense = tensor.detach().resolve_conj().resolve_neg()
    return dense.to("cpu", copy=True, memory_format=torch.contiguous_format).contiguous()
