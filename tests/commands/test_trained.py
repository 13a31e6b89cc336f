"""Specs with trained weights, from the file to the gradient: layers, maps, readouts, and what is refused."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from in_process import Finished, gradcli
from late_torch import torch
from numpy.typing import NDArray

sys.path.append(str(Path(__file__).parents[1] / "weights"))

from running import run_layer
from stored import FOLDER, checkpoint_of

import gradcli as package
from gradcli.weights.formats import open_checkpoint
from gradcli.weights.layers import Contents, RecurrentLayer
from gradcli.weights.layouts import find_layers

EXAMPLES = Path(__file__).parents[2] / "examples"
DIGITS = EXAMPLES / "data" / "digits.npz"
TRAINED = sorted(path.name for path in (EXAMPLES / "checkpoints").glob("digits-lstm.*"))
T, BATCH = 5, 2  # as many sequences as the initial states in the files are for

Arrays = Mapping[str, NDArray[Any]]


def contents_of(path: Path) -> Contents:
    with open_checkpoint(path, path.name) as checkpoint:
        return find_layers(checkpoint)


def layers_of(file: str) -> list[RecurrentLayer]:
    return list(contents_of(FOLDER / file).layers)


def every_file() -> list[str]:
    """Return the committed checkpoints."""
    endings = (".pt", ".safetensors", ".npz", ".keras", ".h5", ".onnx")
    return sorted(p.name for p in FOLDER.iterdir() if p.name.endswith(endings) and ".expected." not in p.name)


def arrays_of(target: object, **arguments: Any) -> Arrays:
    result = package.simulate(str(target), **{"record": True, **arguments})
    return result.arrays


@pytest.mark.parametrize("file", every_file())
def test_every_layer_of_every_file_runs_as_what_it_is(file: str) -> None:
    """The layers themselves are held against their frameworks in tests/weights."""
    for layer in layers_of(file):
        assert_runs_as_what_it_is(file, layer)


def assert_runs_as_what_it_is(file: str, layer: RecurrentLayer) -> None:
    v = np.linspace(-1.0, 1.0, layer.output_size)
    changes = {"seq_len": T, "batch_size": BATCH, "loss": {"kind": "projection", "vector": v}}
    found = arrays_of(FOLDER / file, layer=layer.name, set=changes)
    # What is saved is what the layer has read: of one that reads backwards, the last step first.
    x = found["x"][0].transpose(0, 1, 2)
    ran = run_layer(layer, checkpoint_of(file), x[::-1] if layer.reversed else x, v)
    for state, expected in ran.states.items():
        assert found[f"state.{state}"][0] == pytest.approx(expected, rel=1e-12, abs=1e-300)
        gradient = np.ldexp(found[f"grad_state.{state}"], found[f"log2_state.{state}"].astype(int)[..., None])[0]
        assert gradient == pytest.approx(ran.state_gradients[state], rel=1e-12, abs=1e-300)


def torch_digits(batch: int) -> tuple[float, NDArray[Any], dict[str, NDArray[Any]]]:
    """Return PyTorch's mean loss, |dL/dh_t| of each sequence by step, and the gradients of the mean loss."""
    digits = np.load(DIGITS)
    state = torch.load(EXAMPLES / "checkpoints" / "digits-lstm.pt", weights_only=True)
    rnn, fc = torch.nn.LSTMCell(8, 16).double(), torch.nn.Linear(16, 10).double()
    rnn.load_state_dict({key.removesuffix("_l0").removeprefix("rnn."): w for key, w in state.items() if "rnn" in key})
    fc.load_state_dict({key.removeprefix("fc."): w for key, w in state.items() if "fc" in key})
    x = torch.tensor(digits["rows"][:batch] / 16)
    h = torch.zeros(batch, 16, dtype=torch.float64, requires_grad=True)
    c = torch.zeros(batch, 16, dtype=torch.float64)
    states = [h]
    for t in range(8):
        h, c = rnn(x[:, t], (h, c))
        h.retain_grad()
        states.append(h)
    losses = torch.nn.functional.cross_entropy(fc(h), torch.tensor(digits["labels"][:batch].astype(int)))
    losses.backward()
    norms = np.stack([batch * state.grad.norm(dim=1).numpy() for state in states])
    gradients = {"W_hy": fc.weight.grad, "b_y": fc.bias.grad, "W_hh": rnn.weight_hh.grad}
    return float(losses.detach()), norms, {name: gradient.numpy() for name, gradient in gradients.items()}


@pytest.mark.torch
@pytest.mark.parametrize("file", TRAINED)
def test_a_trained_model_on_its_own_data_in_every_format(file: str, tmp_path: Path) -> None:
    batch = 21
    spec = {
        "weights": {"file": str(EXAMPLES / "checkpoints" / file)},
        "seq_len": 8,
        "batch_size": batch,
        "input": {"kind": "file", "path": str(DIGITS), "key": "rows", "scale": 0.0625},
        "loss": {"kind": "cross_entropy", "target": {"file": {"path": str(DIGITS), "key": "labels"}}},
    }
    path = written(tmp_path, spec)
    result = package.simulate(path, record=True)
    loss, norms, gradients = torch_digits(batch)
    # Keras adds PyTorch's two biases in float32.
    tolerance = 1e-10 if file.endswith((".pt", ".safetensors", ".npz", ".onnx")) else 1e-5
    run = result.report.data["runs"][0]
    assert run["loss"] == pytest.approx(loss, rel=tolerance)
    assert run["spec"]["loss"]["readout"] == run_readout(file)
    found = np.power(10.0, run["states"]["layer0.h"]["log10_norm"])
    assert found == pytest.approx(np.median(norms, axis=1)[::-1], rel=tolerance)
    for name in ("W_hy", "b_y"):
        gradient = value_of(result.arrays, f"readout.{name}")
        assert np.linalg.norm(gradient - gradients[name]) <= tolerance * np.linalg.norm(gradients[name])
    recurrent = np.concatenate([value_of(result.arrays, f"layer0.W_h{gate}") for gate in "ifgo"])
    assert np.linalg.norm(recurrent - gradients["W_hh"]) <= tolerance * np.linalg.norm(gradients["W_hh"])


def run_readout(file: str) -> str:
    (head,) = contents_of(EXAMPLES / "checkpoints" / file).heads
    return head.name


def value_of(arrays: Arrays, name: str) -> NDArray[Any]:
    return np.ldexp(arrays[f"grad_param.{name}"][0], int(arrays[f"log2_param.{name}"][0]))


def written(folder: Path, spec: Mapping[str, Any]) -> Path:
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump(dict(spec), sort_keys=False, width=10_000), encoding="utf-8")
    return path


RNG = np.random.default_rng(3)
TENSORS: dict[str, NDArray[Any]] = {
    "cell/in:0": RNG.standard_normal((2, 4)),
    "cell/kernel:0": RNG.standard_normal((4, 8)) / 2,
    "cell/bias": RNG.standard_normal((2, 4)),
    "head.weight": RNG.standard_normal((1, 4)),
    "head.bias": RNG.standard_normal(1),
    "steps": np.array(3),
}
OWN = {"name": "own", "equations": "h[t] = tanh(W_in @ x[t] + W_rec @ h[t-1] + b)\n"}
MAP = {"W_in": "cell/in:0:T", "W_rec": "cell/kernel:0[:, 4:8]:T", "b": "cell/bias[0] + cell/bias[1]"}


@pytest.fixture
def own(tmp_path: Path) -> dict[str, Any]:
    """A spec with a cell of its own, and weights by a map of names."""
    np.savez(tmp_path / "own.npz", **TENSORS)
    return {"cell": OWN, "weights": {"file": "own.npz", "map": dict(MAP)}, "seq_len": T, "batch_size": BATCH}


def test_a_map_gives_any_cell_its_parameters_and_sizes(own: dict[str, Any], tmp_path: Path) -> None:
    found = arrays_of(written(tmp_path, own))
    assert np.array_equal(found["param.layer0.W_in"][0], TENSORS["cell/in:0"].T)
    assert np.array_equal(found["param.layer0.W_rec"][0], TENSORS["cell/kernel:0"][:, 4:8].T)
    assert np.array_equal(found["param.layer0.b"][0], TENSORS["cell/bias"].sum(axis=0))
    assert found["x"].shape == (1, T, BATCH, 2)


ASSUMED = "head has one output, and the file does not say what it is: taken for a number (mse);"


@pytest.mark.torch
def test_a_head_with_one_output_is_the_logit_of_a_choice_where_the_spec_says_so(
    own: dict[str, Any], tmp_path: Path
) -> None:
    target = {"path": "labels.csv"}
    (tmp_path / "labels.csv").write_text("label\n1\n0\n", encoding="utf-8")
    loss = {"kind": "binary_cross_entropy", "reduction": "mean", "at": "every", "target": {"file": target}}
    np.savez(tmp_path / "x.npz", x=RNG.standard_normal((BATCH, T, 2)))
    found = arrays_of(written(tmp_path, {**own, "input": {"kind": "file", "path": "x.npz", "key": "x"}, "loss": loss}))
    weights = {k: torch.tensor(v, requires_grad=True) for k, v in TENSORS.items() if v.ndim}
    h = torch.zeros(BATCH, 4, dtype=torch.float64)
    logits = []
    for x in torch.tensor(found["x"][0]):
        kernel = weights["cell/kernel:0"][:, 4:8]
        h = torch.tanh(x @ weights["cell/in:0"] + h @ kernel + weights["cell/bias"].sum(dim=0))
        logits.append(h @ weights["head.weight"].T + weights["head.bias"])
    labels = torch.tensor([[1.0], [0.0]], dtype=torch.float64).expand(T, BATCH, 1)
    loss_of_torch = torch.nn.BCEWithLogitsLoss()(torch.stack(logits), labels)
    loss_of_torch.backward()
    assert found["loss"][0].mean() == pytest.approx(float(loss_of_torch.detach()), rel=1e-12)
    assert value_of(found, "readout.W_hy") == pytest.approx(weights["head.weight"].grad.numpy(), rel=1e-10)
    expected = weights["cell/kernel:0"].grad.numpy()[:, 4:8].T
    assert value_of(found, "layer0.W_rec") == pytest.approx(expected, rel=1e-10)


def test_what_is_assumed_of_a_head_with_one_output_is_said_unless_the_spec_says_it(
    own: dict[str, Any], tmp_path: Path
) -> None:
    file = written(tmp_path, own)
    for option in ([], ["--set", "loss.at=every"], ["--set", "loss.reduction=mean"]):
        told = " ".join(gradcli("simulate", file, *option).stdout.split())
        assert "loss mse" in told
        assert ASSUMED + " for the logit of a yes or no --set loss.kind=binary_cross_entropy" in told
    assert gradcli("simulate", file, "--format", "json").report()["runs"][0]["notes"] != []
    for kind in ("mse", "binary_cross_entropy"):
        told = gradcli("simulate", file, "--set", f"loss.kind={kind}").stdout
        assert f"loss {kind} through head" in told
        assert "has one output" not in told


def test_labels_from_a_file_are_probabilities(own: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("label\n1\n2\n", encoding="utf-8")
    loss = {"kind": "binary_cross_entropy", "target": {"file": "labels.csv"}}
    refused = gradcli("simulate", written(tmp_path, {**own, "loss": loss}))
    assert refused.code == 2
    assert "labels.csv: sequence 2, column 1: expected a number from 0 to 1; got 2.0" in refused.stderr


@pytest.mark.torch
def test_a_head_with_one_output_is_read_out_by_mse(own: dict[str, Any], tmp_path: Path) -> None:
    found = arrays_of(written(tmp_path, own))
    weights = {k: torch.tensor(v, requires_grad=True) for k, v in TENSORS.items() if v.ndim}
    h = torch.zeros(BATCH, 4, dtype=torch.float64)
    for x in torch.tensor(found["x"][0]):
        kernel = weights["cell/kernel:0"][:, 4:8]
        h = torch.tanh(x @ weights["cell/in:0"] + h @ kernel + weights["cell/bias"].sum(dim=0))
    y = h @ weights["head.weight"].T + weights["head.bias"]
    losses = ((y - torch.tensor(found["target"][0, 0])) ** 2).sum(dim=1) / 2
    losses.mean().backward()
    assert found["loss"][0] == pytest.approx(losses.detach().numpy(), rel=1e-12)
    assert value_of(found, "readout.W_hy") == pytest.approx(weights["head.weight"].grad.numpy(), rel=1e-12)
    assert value_of(found, "readout.b_y") == pytest.approx(weights["head.bias"].grad.numpy(), rel=1e-12)
    expected = weights["cell/kernel:0"].grad.numpy()[:, 4:8].T
    assert value_of(found, "layer0.W_rec") == pytest.approx(expected, rel=1e-10)


def test_a_layer_within_a_network_is_no_readout_unless_it_is_named(own: dict[str, Any], tmp_path: Path) -> None:
    deeper = {"head.weight": RNG.standard_normal((6, 4)), "head.bias": np.zeros(6)}
    deeper |= {"out.weight": RNG.standard_normal((3, 6)), "out.bias": np.zeros(3)}
    np.savez(tmp_path / "own.npz", **(TENSORS | deeper))
    path = written(tmp_path, own)
    assert "param.readout.W_hy" not in arrays_of(path)
    found = arrays_of(path, set=["loss={kind: cross_entropy, readout: head}"])
    assert np.array_equal(found["param.readout.W_hy"][0], deeper["head.weight"])


def test_params_win_over_weights_and_init_does_not(own: dict[str, Any], tmp_path: Path) -> None:
    found = arrays_of(written(tmp_path, own | {"params": {"b": 7.0}, "init": {"W_rec": 0.5}}))
    assert (found["param.layer0.b"] == 7.0).all()
    assert np.array_equal(found["param.layer0.W_rec"][0], TENSORS["cell/kernel:0"][:, 4:8].T)


def test_an_initialiser_of_the_spec_draws_what_the_file_does_not_give(own: dict[str, Any], tmp_path: Path) -> None:
    del own["weights"]["map"]["b"]
    found = arrays_of(written(tmp_path, own | {"init": {"b": 0.25}}))
    assert (found["param.layer0.b"] == 0.25).all()


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "no such layer": (
        {"weights": {"file": "own.npz", "layer": "rnn"}, "cell": None},
        "error: own.npz: holds no recurrent layer that gradcli knows; it holds 6 tensors, cell/in:0",
    ),
    "a parameter from nowhere": (
        {"weights": {"file": "own.npz", "map": {"W_in": MAP["W_in"], "W_rec": MAP["W_rec"]}}},
        "weights: own.npz gives no layer0.b; name tensors in weights.map, or values in params",
    ),
    "no such parameter": (
        {"weights": {"file": "own.npz", "map": MAP | {"W_ni": "cell/kernel:0"}}},
        "weights.map.W_ni: no parameter matches 'W_ni'; parameters: W_in, W_rec, b, readout.W_hy, readout.b_y; did",
    ),
    "no such tensor": (
        {"weights": {"file": "own.npz", "map": MAP | {"b": "cell/bais"}}},
        "weights.map.b: own.npz has no tensor 'cell/bais'",
    ),
    "another shape": (
        {"weights": {"file": "own.npz", "map": MAP | {"b": "cell/bias"}}},
        "weights.map.b: layer0.b is 4, but own.npz gives 2 x 4",
    ),
    "an index beyond the tensor": (
        {"weights": {"file": "own.npz", "map": MAP | {"b": "cell/bias[2]"}}},
        "weights.map.b: [2]: expected a number below 2 or a range a:b of them for 'cell/bias'; got '2'",
    ),
    "sums of two shapes": (
        {"weights": {"file": "own.npz", "map": MAP | {"b": "cell/bias[0] + cell/bias"}}},
        "weights.map.b: adds tensors of different shapes: 4 + 2 x 4",
    ),
    "whole numbers as weights": (
        {"weights": {"file": "own.npz", "map": MAP | {"b": "steps"}}},
        "weights.map.b: the tensor 'steps' of own.npz holds int64; weights are real numbers",
    ),
    "a map without a cell": (
        {"cell": None},
        "weights.map: a map needs a `cell:` whose parameters it gives",
    ),
    "no such head": (
        {"loss": {"kind": "cross_entropy", "readout": "haed"}},
        "loss.readout: own.npz has no linear head 'haed'; linear heads: head; did you mean 'head'?",
    ),
    "classes that the head has not": (
        {"loss": {"kind": "cross_entropy", "readout": "head", "classes": 3}},
        "loss.classes: the head head has 1 output; leave classes out",
    ),
    "outputs that the head has not": (
        {"loss": {"kind": "binary_cross_entropy", "outputs": 3}},
        "loss.outputs: the head head has 1 output; leave outputs out",
    ),
    "one class": (
        {"loss": {"kind": "cross_entropy"}},
        "loss.kind: the head head has one output; for a choice between two: binary_cross_entropy",
    ),
    "untied weights": (
        {"tied": False},
        "weights: trained weights are those of all steps; with tied: false every step has its own",
    ),
    "an input of another size": (
        {"input": {"kind": "file", "path": str(DIGITS), "key": "rows"}},
        "input: has 8 features a step, but own.npz reads 2",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_told_where_they_are(
    name: str, own: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes, message = MISTAKES[name]
    spec = {key: value for key, value in (own | changes).items() if value is not None}
    written(tmp_path, spec)
    monkeypatch.chdir(tmp_path)
    finished = gradcli("simulate", "./spec.yaml")
    assert finished.refused(), finished
    assert message in finished.stderr
    assert finished.stderr.count("\n") <= 2


def test_sizes_that_disagree_with_the_file_are_told_all_at_once(tmp_path: Path) -> None:
    spec = {"weights": {"file": str(FOLDER / "pytorch-lstm.pt")}, "hidden_size": 3, "num_layers": 2}
    finished = gradcli("simulate", written(tmp_path, spec))
    layer = layers_of("pytorch-lstm.pt")[0]
    assert finished.code == 2
    assert f"hidden_size: the PyTorch LSTM {layer.name} of" in finished.stderr
    assert f"has {layer.hidden_size}; got 3; leave hidden_size out" in finished.stderr
    assert "has 1; got 2; leave num_layers out" in finished.stderr


def test_a_cell_of_another_form_than_the_layer_is_refused(tmp_path: Path) -> None:
    spec = {"weights": {"file": str(FOLDER / "pytorch-lstm.pt")}, "cell": "gru"}
    finished = gradcli("simulate", written(tmp_path, spec))
    assert finished.code == 2
    assert "has layer0.W_xi, but the cell has no parameter 'W_xi'" in finished.stderr
    assert "gives no layer0.W_xr" in finished.stderr


# On the command line.


def trained(name: str) -> Path:
    return EXAMPLES / "checkpoints" / name


def test_a_layer_is_named_by_the_end_of_its_name() -> None:
    (layer,) = layers_of("pytorch-model.pt")
    short = layer.name.rpartition(".")[2]
    assert short != layer.name
    runs = [
        gradcli("simulate", FOLDER / "pytorch-model.pt", "-T", 4, "--format", "csv", *option)
        for option in ([], ["--layer", layer.name], ["--layer", short], ["--set", f"weights.layer={layer.name}"])
    ]
    assert {run.code for run in runs} == {0}
    assert len({run.stdout for run in runs}) == 1


def test_the_file_alone_stands_for_the_block_of_the_weights(tmp_path: Path) -> None:
    file = trained("digits-lstm.pt")
    named = gradcli("simulate", file, "-T", 4, "--format", "csv")
    for arguments in (
        [written(tmp_path, {"weights": str(file)})],
        [written(tmp_path, {"weights": str(file)}), "--layer", "rnn"],
        ["lstm", "--set", f"weights={file}"],
        ["lstm", "--set", f"weights.file={file}"],
    ):
        finished = gradcli("simulate", *arguments, "-T", 4, "--format", "csv")
        assert [line.partition(",")[2] for line in finished.stdout.split()] == [
            line.partition(",")[2] for line in named.stdout.split()
        ]


def test_a_part_of_the_models_own_loss_can_be_set() -> None:
    runs = [
        gradcli("simulate", trained("digits-lstm.pt"), "-T", 4, "--format", "json", *option).report()["runs"][0]
        for option in ([], ["--set", "loss.at=every"], ["--set", "loss.readout=drawn"], ["--set", "loss=mse"])
    ]
    losses = [(run["spec"]["loss"]["kind"], run["spec"]["loss"].get("readout")) for run in runs]
    assert losses == [("cross_entropy", "fc"), ("cross_entropy", "fc"), ("cross_entropy", "drawn"), ("mse", None)]
    assert [run["spec"]["loss"]["at"] for run in runs] == ["last", "every", "last", "last"]


def test_an_unknown_layer_is_refused_with_those_that_there_are() -> None:
    finished = gradcli("simulate", FOLDER / "pytorch-model.pt", "--layer", "encoder.gru")
    assert finished.code == 2
    assert "--layer: " in finished.stderr
    assert "has no recurrent layer 'encoder.gru'; layers: " in finished.stderr


@pytest.mark.parametrize("command", ["simulate", "compare"])
def test_a_layer_of_no_checkpoint_is_refused(command: str) -> None:
    finished = gradcli(command, "rnn", *(["lstm"] if command == "compare" else []), "--layer", "encoder")
    assert finished.code == 2
    assert "names a layer of a checkpoint, but there are no trained weights in" in finished.stderr


@pytest.mark.parametrize("command", ["jacobian", "gates", "paths", "contributions"])
@pytest.mark.parametrize("layer", ["rnn", "layer0", "0"])
def test_other_commands_take_a_layer_of_the_file_or_of_the_stack(command: str, layer: str) -> None:
    finished = gradcli(command, trained("digits-lstm.pt"), "-T", 4, "--layer", layer, "--format", "json")
    assert finished.code == 0, finished.stderr
    assert finished.report()["runs"][0]["spec"]["weights"]["file"] == str(trained("digits-lstm.pt"))


def test_what_a_run_says_of_its_weights(tmp_path: Path) -> None:
    finished = gradcli("simulate", trained("digits-lstm.pt"), "-T", 4)
    assert "loss cross_entropy through fc at the last step" in finished.stdout
    assert f"weights of the PyTorch LSTM rnn of {trained('digits-lstm.pt')}" in finished.stdout
    assert "--set init." not in finished.stdout  # an initialisation is no remedy for trained weights
    run = gradcli("simulate", trained("digits-lstm.pt"), "-T", 4, "--format", "json").report()["runs"][0]
    assert (run["weights"]["layer"], run["spec"]["trials"]) == ("rnn", 1)
    # The resolved spec, read again, gives the same run.
    again = gradcli("simulate", written(tmp_path, run["spec"]), "--format", "json").report()["runs"][0]
    assert again["curve"] == run["curve"]


def test_training_is_seen_in_the_curve_the_gates_and_the_spectra() -> None:
    files = [trained("digits-lstm-untrained.pt"), trained("digits-lstm.safetensors")]
    result = package.compare(files, seq_len=6, record=True)
    weights = result.report.data["weights"]
    assert list(weights) == ["digits-lstm-untrained", "digits-lstm"]
    for label, told in weights.items():
        for gate in "ifgo":
            matrix = result.arrays[f"{label}/param.layer0.W_h{gate}"][0]
            radius, norm = np.abs(np.linalg.eigvals(matrix)).max(), np.linalg.norm(matrix, 2)
            assert told["spectral_radius"][f"layer0.W_h{gate}"] == pytest.approx(radius, rel=1e-9)
            assert told["spectral_norm"][f"layer0.W_h{gate}"] == pytest.approx(norm, rel=1e-9)
        bias = result.arrays[f"{label}/param.layer0.b_f"][0]
        assert told["bias"]["layer0.b_f"] == pytest.approx(bias.mean(), rel=1e-9)
        own = run_gate_means(result.arrays, label)
        for gate, mean in own.items():
            assert told["gates"][gate]["mean"] == pytest.approx(mean, rel=1e-9)


def run_gate_means(arrays: Arrays, label: str) -> dict[str, float]:
    """Return the means of the gates over steps, sequences and units, from the states that were saved."""
    x, h = arrays[f"{label}/x"][0], arrays[f"{label}/state.layer0.h"][0]
    means = {}
    for gate in "ifo":
        W_x, W_h, b = (arrays[f"{label}/param.layer0.{name}{gate}"][0] for name in ("W_x", "W_h", "b_"))
        total = x @ W_x.T + h[:-1] @ W_h.T + b
        means[gate] = float((1 / (1 + np.exp(-total))).mean())
    return means


def compared(*targets: object, options: tuple[object, ...] = ()) -> Finished:
    return gradcli("compare", *targets, "-T", 4, "--format", "json", *options)


def test_a_trained_layer_beside_the_same_cell_as_initialised() -> None:
    finished = compared(trained("digits-lstm.pt"), "lstm")
    data = finished.report()
    assert [run["weights"] is None for run in data["runs"]] == [False, True]
    assert data["runs"][1]["parameters"]["readout.b_y"]["shape"] == [10]
    assert list(data["weights"]) == ["digits-lstm", "lstm"]


def test_the_gates_of_bidirectional_layers_are_said_to_be_left_out() -> None:
    file = FOLDER / "pytorch-gru-both-ways.pt"
    finished = gradcli("compare", file, file, "-T", 4, "--full")
    assert finished.code == 0, finished.stderr
    assert "the gates of bidirectional layers are not looked at" in finished.stdout
    assert "layer0.reverse.W_hz" in finished.stdout


def test_the_gates_of_sequences_of_different_lengths_are_said_to_be_left_out(tmp_path: Path) -> None:
    """Before a sequence begins there are no gates, and what stands in their place is another sequence's."""
    np.save(tmp_path / "n.npy", np.resize([8, 3, 5], 500))
    data = {"kind": "file", "path": str(DIGITS), "key": "rows", "lengths": "n.npy"}
    path = written(tmp_path, {"weights": str(trained("digits-lstm.pt")), "seq_len": 8, "batch_size": 6, "input": data})
    finished = gradcli("compare", path, path, "--full")
    assert finished.code == 0, finished.stderr
    assert "the gates of sequences of different lengths are not looked at" in finished.stdout
    assert "activations of the top layer" not in finished.stdout


def test_the_forget_gate_of_a_cell_of_its_own_has_its_bias_told() -> None:
    """Keras's LSTM with other activations is no built-in cell."""
    layer = next(each for each in layers_of("keras-variants.keras") if not isinstance(each.cell, str))
    file = FOLDER / "keras-variants.keras"
    found = compared(file, file, options=("--layer", layer.name)).report()["weights"]["keras-variants"]["bias"]
    assert set(found) == {name for name in layer.parameters if name.endswith((".b_f", ".b_i", ".b_z"))} != set()


def test_cells_of_two_kinds_are_compared_without_a_table_of_weights() -> None:
    assert compared(trained("digits-lstm.pt"), "gru").report()["weights"] == {}
    assert compared("lstm", "lstm").report()["weights"] == {}


def test_checkpoints_that_read_other_sizes_are_each_run_on_their_own() -> None:
    finished = compared(trained("digits-lstm.pt"), FOLDER / "pytorch-lstm.pt")
    assert finished.code == 0, finished.stderr
    runs = finished.report()["runs"]
    sizes = [run["spec"]["input_size"] for run in runs]
    assert sizes[0] != sizes[1]
    assert f"input size: {sizes[0]} (digits-lstm); {sizes[1]} (pytorch-lstm)" in finished.report()["notes"]
    for file, run in zip((trained("digits-lstm.pt"), FOLDER / "pytorch-lstm.pt"), runs, strict=True):
        alone = gradcli("simulate", file, "-T", 4, "--format", "json").report()["runs"][0]
        assert run["verdict"] == alone["verdict"]


def test_a_cell_beside_a_checkpoint_is_run_as_the_checkpoint_wherever_it_stands() -> None:
    first = compared("lstm", trained("digits-lstm.pt")).report()["runs"]
    last = compared(trained("digits-lstm.pt"), "lstm").report()["runs"]
    assert first[0] == last[1]
    assert first[0]["spec"]["input_size"] == 8


def test_the_size_of_trained_weights_is_not_matched() -> None:
    finished = compared("lstm", trained("digits-lstm.pt"), options=("--match", "params", "--input-size", 8))
    assert finished.code == 2
    assert "--match params cannot change the hidden size of trained weights: digits-lstm" in finished.stderr


def test_tokens_are_rows_of_the_checkpoints_embedding(tmp_path: Path) -> None:
    (layer,) = layers_of("pytorch-model.pt")
    (embedding,) = contents_of(FOLDER / "pytorch-model.pt").embeddings
    table = embedding.table.read(checkpoint_of("pytorch-model.pt"))
    tokens = np.arange(6).reshape(2, 3) % len(table)
    np.save(tmp_path / "tokens.npy", tokens)
    spec = {
        "weights": {"file": str(FOLDER / "pytorch-model.pt"), "layer": layer.name},
        "input": {"kind": "tokens", "path": "tokens.npy"},
        "seq_len": 3,
        "batch_size": 2,
        "loss": "sum",
    }
    found = arrays_of(written(tmp_path, spec))
    assert np.array_equal(found["x"][0].transpose(1, 0, 2), table[tokens])


def test_initial_states_of_the_file_are_taken_unless_the_spec_gives_its_own(tmp_path: Path) -> None:
    layer = next(each for each in layers_of("onnx-operators.onnx") if each.initial_states)
    expected = layer.initial_states["layer0.h"].read(checkpoint_of("onnx-operators.onnx"))
    options = {"seq_len": T, "batch_size": len(np.atleast_2d(expected))}
    found = arrays_of(FOLDER / "onnx-operators.onnx", layer=layer.name, **options)
    assert np.array_equal(found["state.layer0.h"][0, 0], np.atleast_2d(expected))
    found = arrays_of(FOLDER / "onnx-operators.onnx", set=["h_0=0.5"], layer=layer.name, **options)
    assert (found["state.layer0.h"][0, 0] == 0.5).all()
