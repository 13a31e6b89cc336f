"""What stands around recurrent layers: linear heads, and embedding tables.

    PyTorch   weight (out, in) and bias; a table is a weight (tokens, features) without a bias
    Flax      kernel (in, out) and bias; embedding (tokens, features)
    Haiku     w (in, out) and b; embeddings (tokens, features)

A matrix without a bias says little. It is taken for a head where its inputs are the outputs of a recurrent layer, and
PyTorch's, which may be either, for a table where its features are the inputs of one, or where it is called one.
"""

from __future__ import annotations

from collections.abc import Sequence

from gradcli.weights.checkpoint import FLOATS, Checkpoint, Tensor
from gradcli.weights.layers import Contents, Embedding, LinearHead, RecurrentLayer, Slice, Value
from gradcli.weights.layouts.groups import Group, groups

#: The matrix and the bias of a linear layer, and whether the matrix is stored (in, out).
_LINEAR = (("weight", "bias", False), ("kernel", "bias", True), ("w", "b", True))
_TABLES = ("embedding", "embeddings")


def find(checkpoint: Checkpoint, taken: set[str], layers: Sequence[RecurrentLayer]) -> Contents:
    """Return the linear layers and the embedding tables; `layers` are the recurrent ones that were found."""
    inputs = {layer.input_size for layer in layers}
    outputs = {layer.output_size for layer in layers}
    names = {name for matrix, bias, _ in _LINEAR for name in (matrix, bias)} | set(_TABLES)
    heads: list[LinearHead] = []
    tables: list[Embedding] = []
    for group in groups(checkpoint, taken, "|".join(sorted(names))):
        tables += [_table(group, group.tensors[name]) for name in _TABLES if _is_matrix(group, name)]
        for matrix, bias, transposed in _LINEAR:
            if not _is_matrix(group, matrix):
                continue
            head = _head(group, matrix, bias, transposed=transposed)
            if head is None:
                continue
            fits_a_table = not transposed and head.weight.shape[1] in inputs
            is_called_one = not transposed and "emb" in group.prefix.replace("/", ".").rpartition(".")[2].lower()
            if head.bias is not None or (head.weight.shape[1] in outputs and not is_called_one):
                heads.append(head)
            if head.bias is None and (fits_a_table or is_called_one):
                tables.append(_table(group, group.tensors[matrix]))
    return Contents(heads=tuple(heads), embeddings=tuple(tables))


def _is_matrix(group: Group, name: str) -> bool:
    tensor = group.tensors.get(name)
    return tensor is not None and tensor.dtype in FLOATS and len(tensor.shape) == 2 and 0 not in tensor.shape


def _head(group: Group, matrix: str, bias: str, *, transposed: bool) -> LinearHead | None:
    """Return the linear layer of a matrix; None where what should be its bias does not fit it."""
    weight, vector = group.tensors[matrix], group.tensors.get(bias)
    shape = weight.shape[::-1] if transposed else weight.shape
    if vector is not None and (vector.dtype not in FLOATS or vector.shape != shape[:1]):
        return None
    parts = [weight] if vector is None else [weight, vector]
    return LinearHead(
        group.prefix or "linear",
        Value((Slice(weight.name, transposed=transposed),), shape),
        None if vector is None else Value((Slice(vector.name),), shape[:1]),
        tuple(part.name for part in parts),
    )


def _table(group: Group, tensor: Tensor) -> Embedding:
    return Embedding(group.prefix or "embedding", Value((Slice(tensor.name),), tensor.shape), (tensor.name,))
