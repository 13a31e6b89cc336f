"""The repository's real data and trained model: gradcli's numbers on them are PyTorch's."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from late_torch import torch

from gradcli.commands.simulate import simulate
from gradcli.prepare.sizing import parse
from gradcli.spec.reader import load_spec

EXAMPLES = Path(__file__).parents[1] / "examples"
CHECKPOINTS = EXAMPLES / "checkpoints"
MODEL = dict(np.load(CHECKPOINTS / "digits-lstm.npz"))
DIGITS = dict(np.load(EXAMPLES / "data" / "digits.npz"))
HIDDEN, T = 16, 8


def params() -> dict[str, Any]:
    """Return the model as exact values under gradcli's names; PyTorch has the gates in the order i f g o."""
    found: dict[str, Any] = {"readout.W_hy": MODEL["fc.weight"], "readout.b_y": MODEL["fc.bias"]}
    bias = MODEL["rnn.bias_ih_l0"].astype(np.float64) + MODEL["rnn.bias_hh_l0"]
    for number, gate in enumerate("ifgo"):
        rows = slice(number * HIDDEN, (number + 1) * HIDDEN)
        found |= {f"W_x{gate}": MODEL["rnn.weight_ih_l0"][rows], f"W_h{gate}": MODEL["rnn.weight_hh_l0"][rows]}
        found[f"b_{gate}"] = bias[rows]
    return {name: value.tolist() for name, value in found.items()}


def simulated(batch: int, **changes: Any) -> dict[str, Any]:
    options = {"hidden_size": HIDDEN, "batch_size": batch, "trials": 1, "params": params()} | changes
    result = simulate(load_spec(str(EXAMPLES / "configs" / "digits-rows.yaml"), options=options, examine_cell=parse))
    run: dict[str, Any] = result.report.data["runs"][0]
    return run


def torch_curve(rows: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the mean loss, and the norm of dL/dh_t of each sequence, (T+1, batch), t = 0 ... T, by autograd."""
    weights = {name: torch.tensor(array, dtype=torch.float64) for name, array in MODEL.items()}
    x = torch.tensor(rows)
    h = torch.zeros(len(rows), HIDDEN, dtype=torch.float64, requires_grad=True)
    c = torch.zeros(len(rows), HIDDEN, dtype=torch.float64)
    states = [h]
    for t in range(rows.shape[1]):
        gates = x[:, t] @ weights["rnn.weight_ih_l0"].T + weights["rnn.bias_ih_l0"]
        i, f, g, o = (gates + h @ weights["rnn.weight_hh_l0"].T + weights["rnn.bias_hh_l0"]).chunk(4, dim=1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        h.retain_grad()
        states.append(h)
    logits = h @ weights["fc.weight"].T + weights["fc.bias"]
    losses = torch.nn.functional.cross_entropy(logits, torch.tensor(labels.astype(np.int64)), reduction="none")
    losses.sum().backward()
    return float(losses.mean().detach()), np.stack([state.grad.norm(dim=1).numpy() for state in states])


@pytest.mark.torch
@pytest.mark.parametrize("reverse", [False, True])
def test_the_trained_model_on_the_digits_has_the_gradients_of_pytorch(reverse: bool) -> None:
    batch = 41  # odd, so that the median is the curve of one sequence
    data = {"kind": "file", "path": "../data/digits.npz", "key": "rows", "scale": 0.0625, "reverse": reverse}
    run = simulated(batch, input=data)
    rows = DIGITS["rows"][:batch].astype(np.float64) / 16
    loss, norms = torch_curve(rows[:, ::-1].copy() if reverse else rows, DIGITS["labels"][:batch])
    assert run["loss"] == pytest.approx(loss, rel=1e-12)
    found = np.power(10.0, run["states"]["layer0.h"]["log10_norm"])
    assert found == pytest.approx(np.median(norms, axis=1)[::-1], rel=1e-10)


def test_training_has_lowered_the_loss() -> None:
    assert simulated(400)["loss"] < 0.05
    assert simulated(400, params={})["loss"] > 2.0


def _torch() -> dict[str, np.ndarray]:
    tensors = torch.load(CHECKPOINTS / "digits-lstm.pt", weights_only=True)
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def _safetensors() -> dict[str, np.ndarray]:
    numpy = pytest.importorskip("safetensors.numpy")
    return dict(numpy.load_file(CHECKPOINTS / "digits-lstm.safetensors"))


@pytest.mark.parametrize("read", [pytest.param(_torch, marks=pytest.mark.torch), _safetensors])
def test_files_of_pytorch_hold_the_same_tensors(read: Any) -> None:
    found = read()
    assert sorted(found) == sorted(MODEL)
    for name, array in MODEL.items():
        assert np.array_equal(found[name], array), name


def test_the_onnx_file_holds_the_same_numbers() -> None:
    onnx = pytest.importorskip("onnx")
    graph = onnx.load(CHECKPOINTS / "digits-lstm.onnx", load_external_data=False).graph
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    (lstm,) = (node for node in graph.node if node.op_type == "LSTM")
    order = [0, 3, 1, 2]  # of i f g o in ONNX's i o f c
    blocks = [slice(number * HIDDEN, (number + 1) * HIDDEN) for number in range(4)]
    for name, wanted in {lstm.input[1]: "rnn.weight_ih_l0", lstm.input[2]: "rnn.weight_hh_l0"}.items():
        expected = np.concatenate([MODEL[wanted][blocks[gate]] for gate in order])
        assert np.array_equal(tensors[name][0], expected), wanted


def _kernels(file: Any) -> list[np.ndarray]:
    """Return all arrays of an HDF5 file with two or more entries, in the order of their paths."""
    h5py = pytest.importorskip("h5py")
    found: list[np.ndarray] = []
    with h5py.File(file) as weights:
        weights.visititems(lambda _, node: found.append(node[()]) if hasattr(node, "dtype") and node.size > 1 else None)
    return found


@pytest.mark.parametrize("ending", ["weights.h5", "h5", "keras"])
def test_files_of_keras_hold_the_same_numbers_transposed(ending: str) -> None:
    path = CHECKPOINTS / f"digits-lstm.{ending}"
    file: Any = path
    if ending == "keras":
        with zipfile.ZipFile(path) as archive:
            file = io.BytesIO(archive.read("model.weights.h5"))
    found = [array for array in _kernels(file) if array.dtype == np.float32]
    bias = MODEL["rnn.bias_ih_l0"] + MODEL["rnn.bias_hh_l0"]
    expected = [MODEL["rnn.weight_ih_l0"].T, MODEL["rnn.weight_hh_l0"].T, bias, MODEL["fc.weight"].T, MODEL["fc.bias"]]
    for array in expected:
        assert any(other.shape == array.shape and np.array_equal(other, array) for other in found), array.shape


def test_all_files_are_small() -> None:
    for path in [*CHECKPOINTS.iterdir(), *(EXAMPLES / "data").iterdir()]:
        assert path.stat().st_size < 60_000, path.name


def test_the_pixels_are_the_rows_one_number_at_a_time() -> None:
    assert DIGITS["rows"].shape == (500, T, 8)
    assert np.array_equal(DIGITS["pixels"], DIGITS["rows"].reshape(500, 64, 1))
    assert np.array_equal(np.unique(DIGITS["labels"]), np.arange(10))
    assert DIGITS["rows"].max() == 16
