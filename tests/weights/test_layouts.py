"""The layouts, asked one after the other: each tensor is one thing, and what cannot be run is nothing else instead."""

from __future__ import annotations

from fake_checkpoint import of_shapes

from gradcli.weights import layouts


def test_layers_of_several_frameworks_in_one_file() -> None:
    shapes = {
        "emb.weight": (9, 3),
        "rnn.weight_ih_l0": (16, 3),
        "rnn.weight_hh_l0": (16, 4),
        "decoder.weight": (9, 4),
        "net/lstm/linear/w": (7, 16),
        "net/lstm/linear/b": (16,),
        "net/out/w": (4, 2),
        "net/out/b": (2,),
        "cell/dense_i/kernel": (3, 12),
        "cell/dense_i/bias": (12,),
        "cell/dense_h/kernel": (4, 12),
        "embed/embedding": (9, 3),
    }
    contents = layouts.find_layers(of_shapes(shapes))
    assert [(layer.framework, layer.name) for layer in contents.layers] == [
        ("PyTorch", "rnn"),
        ("Haiku", "net/lstm"),
        ("Flax", "gru"),
    ]
    assert [head.name for head in contents.heads] == ["decoder", "net/out"]
    assert [table.name for table in contents.embeddings] == ["emb", "embed"]
    parts = (*contents.layers, *contents.heads, *contents.embeddings)
    assert sorted(name for part in parts for name in part.tensors) == sorted(shapes)


def test_a_broken_cell_is_not_taken_for_linear_layers() -> None:
    shapes = {"net/dense_i/kernel": (3, 12), "net/dense_i/bias": (12,), "net/dense_h/kernel": (4, 10)}
    contents = layouts.find_layers(of_shapes(shapes))
    assert [each.name for each in contents.unsupported] == ["net"]
    assert contents.layers == contents.heads == contents.embeddings == ()
