"""ONNX's own test vectors of RNN, LSTM and GRU, which the onnx package carries, against gradcli's forward pass."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from weights.running import relative_error, run_layer

from gradcli.weights.layouts import onnx as onnx_layout
from gradcli.weights.readers.onnx_file import open_file

onnx = pytest.importorskip("onnx")
node_cases = importlib.import_module("onnx.backend.test.case.node")

OPERATORS = ("RNN", "LSTM", "GRU")
#: Vectors that need what gradcli does not offer, and the error that they give. So far there are none.
NOT_OFFERED: dict[str, str] = {}
#: The vectors are float32.
TOLERANCE = 1e-5


def vectors() -> dict[str, Any]:
    """Return the package's test cases by name."""
    for operator in OPERATORS:
        # A module's cases are put down where it is imported.
        importlib.import_module(f"{node_cases.__name__}.{operator.lower()}")
    cases = {case.name: case for case in node_cases._NodeTestCases}
    return {name: case for name, case in cases.items() if case.model.graph.node[0].op_type in OPERATORS}


VECTORS = vectors()


def test_there_are_vectors_of_every_operator() -> None:
    operators = [case.model.graph.node[0].op_type for case in VECTORS.values()]
    assert all(operators.count(operator) >= 4 for operator in OPERATORS)
    assert set(NOT_OFFERED) <= set(VECTORS)


@pytest.mark.parametrize("name", sorted(VECTORS))
def test_vector(name: str, tmp_path: Path) -> None:
    case = VECTORS[name]
    inputs, outputs = case.data_sets[0]
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    graph = model.graph
    # The vectors put the weights in as inputs, a model of one's own has them in the file.
    for value, entries in zip(list(graph.input)[1:], inputs[1:], strict=True):
        graph.initializer.append(onnx.numpy_helper.from_array(entries, value.name))
        graph.input.remove(value)
    node = graph.node[0]
    batch_first = any(each.name == "layout" and each.i for each in node.attribute)
    path = tmp_path / "vector.onnx"
    onnx.save(model, path)
    with open_file(path, name) as checkpoint:
        contents = onnx_layout.find(checkpoint, set())
        if name in NOT_OFFERED:
            assert [each.reason for each in contents.unsupported] == [NOT_OFFERED[name]]
            return
        (layer,) = contents.layers
        x = inputs[0].transpose(1, 0, 2) if batch_first else inputs[0]
        ran = run_layer(layer, checkpoint, x, np.ones(layer.output_size))
    found: dict[str, NDArray[Any]] = {}
    directions = ("", ".reverse") if layer.bidirectional else ("",)
    y = ran.outputs[::-1] if layer.reversed else ran.outputs
    # Y is (T, D, B, H), or (B, T, D, H); Y_h and Y_c are (D, B, H), or (B, D, H).
    y = y.reshape(*y.shape[:2], len(directions), -1)
    found["Y"] = y.transpose(1, 0, 2, 3) if batch_first else y.transpose(0, 2, 1, 3)
    for role, state in (("Y_h", "h"), ("Y_c", "c")):
        if f"layer0.{state}" in ran.states:
            last = np.stack([ran.states[f"layer0{direction}.{state}"][-1] for direction in directions])
            found[role] = last.transpose(1, 0, 2) if batch_first else last
    roles = [role for role, output in zip(("Y", "Y_h", "Y_c"), node.output, strict=False) if output]
    assert len(roles) == len(outputs) > 0
    for role, expected in zip(roles, outputs, strict=True):
        assert relative_error(found[role], expected) < TOLERANCE, role
