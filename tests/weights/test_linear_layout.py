"""Linear heads and embedding tables, told apart by the recurrent layers between them."""

from __future__ import annotations

import numpy as np
import pytest
from fake_checkpoint import FakeCheckpoint, of_shapes

from gradcli.weights.layers import Contents, RecurrentLayer
from gradcli.weights.layouts import linear as linear_layout

Shapes = dict[str, tuple[int, ...]]


def layer(inputs: int, outputs: int) -> RecurrentLayer:
    """Return a recurrent layer of these sizes, with nothing else to it."""
    return RecurrentLayer("rnn", "PyTorch", "RNN", "rnn", inputs, outputs, outputs, {}, (), "float32")


def names(contents: Contents) -> tuple[list[str], list[str]]:
    assert contents.layers == contents.unsupported == ()
    return [head.name for head in contents.heads], [table.name for table in contents.embeddings]


def find(shapes: Shapes, *layers: RecurrentLayer, dtype: str = "float32") -> tuple[list[str], list[str]]:
    return names(linear_layout.find(of_shapes(shapes, dtype), set(), layers))


@pytest.mark.parametrize(
    ("matrix", "bias", "is_transposed"),
    [("fc.weight", "fc.bias", False), ("fc/kernel", "fc/bias", True), ("fc/w", "fc/b", True)],
)
def test_linear_layers_compute_what_their_framework_does(matrix: str, bias: str, is_transposed: bool) -> None:
    rng = np.random.default_rng(0)
    W, b, h = rng.normal(size=(5, 4)), rng.normal(size=5), rng.normal(size=4)
    checkpoint = FakeCheckpoint({matrix: W.T if is_transposed else W, bias: b})
    (head,) = linear_layout.find(checkpoint, set(), []).heads
    assert head.name == "fc"
    assert set(head.tensors) == {matrix, bias}
    assert head.bias is not None
    # x @ kernel + bias in Flax and Haiku, weight @ x + bias in PyTorch: the same numbers, drawn so.
    np.testing.assert_allclose(head.weight.read(checkpoint) @ h + head.bias.read(checkpoint), W @ h + b, rtol=1e-14)


@pytest.mark.parametrize("name", ["embed/embedding", "embed.embedding", "embed/embeddings"])
def test_tables_that_are_called_tables(name: str) -> None:
    values = np.arange(12.0).reshape(4, 3)
    checkpoint = FakeCheckpoint({name: values})
    (table,) = linear_layout.find(checkpoint, set(), []).embeddings
    assert (table.name, table.tensors) == ("embed", (name,))
    np.testing.assert_array_equal(table.table.read(checkpoint), values)


def test_a_matrix_without_a_bias_is_told_by_the_recurrent_layers() -> None:
    shapes: Shapes = {"a.weight": (9, 3), "b.weight": (9, 5), "c.weight": (9, 7)}
    assert find(shapes, layer(3, 5)) == (["b"], ["a"])
    assert find(shapes) == ([], [])


def test_a_matrix_that_may_be_either_is_both_unless_its_name_decides() -> None:
    shapes: Shapes = {"a.weight": (9, 5), "word_emb.weight": (9, 5)}
    assert find(shapes, layer(5, 5)) == (["a"], ["a", "word_emb"])
    assert find({"word_emb.weight": (9, 8), "embedder.fc.weight": (2, 8)}) == ([], ["word_emb"])


def test_only_heads_have_kernels() -> None:
    shapes: Shapes = {"a/kernel": (5, 9), "b/kernel": (3, 9), "c/w": (5, 9)}
    assert find(shapes, layer(3, 5)) == (["a", "c"], [])


@pytest.mark.parametrize(
    "shapes",
    [
        {"norm.weight": (5,), "norm.bias": (5,)},
        {"conv.weight": (5, 5, 3), "conv.bias": (5,)},
        {"fc.weight": (5, 4), "fc.bias": (4,)},
        {"fc.weight": (5, 0), "fc.bias": (5,)},
        {"fc.bias": (5,)},
        {"fc.weights": (5, 5)},
        {"embedding": (5,)},
    ],
)
def test_what_is_no_linear_layer_is_left_alone(shapes: Shapes) -> None:
    assert find(shapes, layer(5, 5)) == ([], [])


def test_integers_and_what_is_taken_are_left_alone() -> None:
    shapes: Shapes = {"fc.weight": (5, 4), "fc.bias": (5,), "embed/embedding": (9, 3)}
    assert find(shapes, layer(3, 4), dtype="int8") == ([], [])
    assert names(linear_layout.find(of_shapes(shapes), set(shapes), [])) == ([], [])


def test_a_file_that_is_one_linear_layer() -> None:
    assert find({"weight": (5, 4), "bias": (5,)}) == (["linear"], [])
    assert find({"embedding": (9, 4)}) == ([], ["embedding"])
