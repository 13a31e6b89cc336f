"""The spec that `gradcli inspect --spec` writes: it reads as YAML, and as the fields that it should."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from checkpoints_by_hand import PROJECTED, Table, embedding, head, of_parameters

from gradcli.spec import yaml12
from gradcli.spec.models import Spec
from gradcli.weights.layers import Contents
from gradcli.weights.layouts import equations
from gradcli.weights.starter import layer_spec

ARRAYS = {
    "rnn.layer0.W_xh": np.ones((2, 3)),
    "rnn.layer0.W_hh": np.eye(2),
    "rnn.layer0.b_h": np.ones(2),
    "fc.weight": np.ones((5, 2)),
    "fc.bias": np.ones(5),
    "score.weight": np.ones((1, 2)),
    "score.bias": np.ones(1),
    "wide.weight": np.ones((5, 9)),
    "wide.bias": np.ones(5),
    "emb.weight": np.ones((7, 3)),
}


def written(
    *heads: str, cell: Any = "rnn", file: str = "model.pt", embeddings: tuple[str, ...] = (), **fields: Any
) -> str:
    table = Table(ARRAYS)
    layer = of_parameters(table, "rnn", cell, "RNN", **fields)
    found = Contents(
        (layer,), tuple(head(table, name) for name in heads), tuple(embedding(table, e) for e in embeddings)
    )
    return layer_spec(file, layer, found)


def read(text: str) -> dict[str, Any]:
    found = yaml12.read(text, "spec.yaml")
    assert not found.mistakes
    data: dict[str, Any] = found.data
    return data


def uncommented(text: str, start: str) -> dict[str, Any]:
    """Return the spec with the commented line that starts so, in place of the field that is there."""
    field = start.partition(":")[0]
    lines = [line for line in text.split("\n") if not line.startswith(f"{field}:")]
    return read("\n".join(line.removeprefix("# ") if line.startswith(f"# {start}") else line for line in lines))


def test_the_weights_are_named_and_the_rest_are_the_defaults() -> None:
    data = read(written())
    assert data.pop("weights") == {"file": "model.pt", "layer": "rnn"}
    assert "cell" not in data
    assert "hidden_size" not in data
    assert Spec.model_validate(data | {"cell": "rnn"}) == Spec.model_validate({"cell": "rnn", "trials": 1})


def test_one_head_that_fits_is_the_readout() -> None:
    text = written("wide", "fc")
    assert read(text)["loss"] == {"kind": "cross_entropy", "readout": "fc"}
    assert "wide" not in text
    assert uncommented(text, "loss: {kind: mse")["loss"]["kind"] == "mse"


def test_a_head_with_one_output_is_a_regression_and_it_says_that_this_is_assumed() -> None:
    assert read(written("score"))["loss"] == {"kind": "mse", "readout": "score"}
    assert "# The file does not say what its one output is: for the logit of a yes or no, binary_cross" in written(
        "score"
    )
    assert "one output" not in written("fc")


def test_of_several_heads_the_user_chooses() -> None:
    text = written("fc", "score")
    assert read(text)["loss"].get("readout") is None
    assert uncommented(text, "loss: {kind: cross_entropy")["loss"] == {"kind": "cross_entropy", "readout": "fc"}


def test_an_embedding_of_as_many_features_is_offered() -> None:
    offered = uncommented(written(embeddings=("emb",)), "input: {kind: tokens")["input"]
    assert offered == {"kind": "tokens", "path": "tokens.npy", "embedding": "emb"}
    assert "kind: tokens" not in written()


def test_own_data_is_offered() -> None:
    offered = uncommented(written(), "input: {kind: file")
    assert offered["input"] == {"kind": "file", "path": "data.npz", "key": "x"}


def test_equations_and_notes_stand_in_comments() -> None:
    text = written(cell=PROJECTED, notes=("first line\nloss: sum",), activation="relu")
    assert "#       h[t] = W_mh @ m\n" in text
    assert "#   activation: relu\n" in text
    assert "#   (first line loss: sum)\n" in text
    assert read(text)["loss"]["kind"] == "mse"


@pytest.mark.parametrize("name", ["a\nloss: sum", "a # b", "a: b", "ä'\"\\", "\U0001f600", "-", "true", "", "1"])
def test_no_name_breaks_out_of_its_place(name: str) -> None:
    arrays = {f"{name}.layer0.W_xh": np.ones((2, 3)), f"{name}.layer0.W_hh": np.eye(2)}
    arrays |= {f"{name}.weight": np.ones((5, 2)), f"{name}.bias": np.ones(5)}
    table = Table(arrays)
    layer = of_parameters(table, name, equations.rnn(bias=False), "RNN")
    data = read(layer_spec(f"{name}.pt", layer, Contents((layer,), (head(table, name),))))
    assert data["weights"] == {"file": f"{name}.pt", "layer": name}
    assert data["loss"] == {"kind": "cross_entropy", "readout": name}
    assert next(iter(data)) == "weights"
    assert len(data) == 11
