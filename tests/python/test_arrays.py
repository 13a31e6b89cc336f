"""Arrays given to a function enter as a file's do: the same runs, the same checks, and the sizes are theirs."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from late_torch import torch
from numpy.typing import NDArray

import gradcli
from gradcli.results.simulate import Simulation

Array = NDArray[np.float64]
B, T, F, H = 3, 8, 2, 4
DRAWN = np.random.default_rng(11)
X, G = DRAWN.normal(size=(B, T, F)), DRAWN.normal(size=(B, T, H))
PARAMS = {"W_hf": DRAWN.normal(size=(H, H)), "b_f": DRAWN.normal(size=H), "W_xi": DRAWN.normal(size=(H, F))}
H_0, C_0 = DRAWN.normal(size=(B, H)), DRAWN.normal(size=H)


def run(**options: Any) -> Simulation:
    return gradcli.simulate("lstm", **{"hidden_size": H, "trials": 2, "remedies": False, **options})


def refused(**options: Any) -> str:
    with pytest.raises(gradcli.GradcliError) as error:
        run(**options)
    return str(error.value)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("arrays")
    np.save(folder / "x.npy", X)
    np.save(folder / "g.npy", G)
    (folder / "lstm.yaml").write_text(
        f"cell: lstm\nhidden_size: {H}\nseq_len: {T}\nbatch_size: {B}\ntrials: 2\n"
        "input: {kind: file, path: x.npy}\nloss: {kind: given, file: g.npy}\n"
        f"params: {{{', '.join(f'{name}: {value.tolist()}' for name, value in PARAMS.items())}}}\n"
        f"h_0: {H_0.tolist()}\nc_0: {C_0.tolist()}\n"
    )
    return folder


def arrays() -> dict[str, Any]:
    return {"inputs": X, "params": PARAMS, "h_0": {"h": H_0, "c": C_0}, "output_gradient": G}


def without_names(result: Any) -> dict[str, Any]:
    """Return a document without what tells where the numbers come from."""
    document: dict[str, Any] = result.to_dict()
    for one in document["runs"]:
        del one["spec"], one["label"]
    return document


def test_a_run_on_arrays_is_that_on_files(files: Path) -> None:
    by_file = gradcli.simulate(files / "lstm.yaml", remedies=False, record=True)
    by_array = run(**arrays(), record=True)
    assert without_names(by_array) == without_names(by_file)
    assert set(by_array.arrays) == set(by_file.arrays)
    for name, array in by_file.arrays.items():
        assert np.array_equal(by_array.arrays[name], array), name


@pytest.mark.parametrize("command", ["jacobian", "paths", "contributions", "gates"])
def test_other_functions_take_them_too(command: str, files: Path) -> None:
    function = getattr(gradcli, command)
    by_file = function(files / "lstm.yaml")
    assert without_names(function("lstm", hidden_size=H, trials=2, **arrays())) == without_names(by_file)


def test_what_is_run_is_what_was_given() -> None:
    saved = run(**arrays(), record=True).arrays
    for trial in range(2):
        assert np.array_equal(saved["x"][trial], X.swapaxes(0, 1))
        assert np.array_equal(saved["param.layer0.W_hf"][trial], PARAMS["W_hf"])
        assert np.array_equal(saved["state.layer0.h"][trial, 0], H_0)
        assert np.array_equal(saved["state.layer0.c"][trial, 0], np.broadcast_to(C_0, (B, H)))
    assert np.array_equal(saved["output_gradient"], G)
    states = saved["state.layer0.h"][:, 1:]  # (trials, T, batch, hidden)
    assert np.allclose(saved["loss"], (states * G.swapaxes(0, 1)).sum(axis=(1, 3)), rtol=1e-12)


def test_comparisons_take_them_too() -> None:
    both = gradcli.compare(["lstm", "gru"], hidden_size=H, trials=1, inputs=X, h_0=H_0, output_gradient=G)
    alone = gradcli.simulate("gru", hidden_size=H, trials=1, inputs=X, h_0=H_0, output_gradient=G, remedies=False)
    assert np.array_equal(both.runs[1].curve.log10_norm_mean, alone.curve.log10_norm_mean)


def test_h_0_is_the_state_of_the_output_whatever_it_is_called() -> None:
    cell = {"equations": "u[t] = 0.5 * u[t-1] + W @ x[t]\nv[t] = 0.9 * v[t-1] + tanh(u[t])", "output": "v"}
    found = gradcli.simulate({"cell": cell}, hidden_size=H, inputs=X, h_0=C_0, trials=1, record=True, remedies=False)
    assert np.array_equal(found.arrays["state.layer0.v"][0, 0], np.broadcast_to(C_0, (B, H)))
    assert not found.arrays["state.layer0.u"][0, 0].any()


def test_sizes_follow_the_arrays() -> None:
    spec = run(inputs=X).spec
    assert [spec[name] for name in ("batch_size", "seq_len", "input_size")] == [B, T, F]
    spec = run(output_gradient=G).spec
    assert [spec[name] for name in ("batch_size", "seq_len")] == [B, T]
    assert run(inputs=X, seq_len=T, batch_size=B, input_size=F).seq_len == T


def test_the_resolved_spec_says_what_was_given_and_is_no_other_run() -> None:
    spec = run(**arrays()).to_dict()["runs"][0]["spec"]
    assert spec["input"]["path"] == {"given": [B, T, F]}
    assert spec["loss"] == {"kind": "given", "file": {"given": [B, T, H]}}
    assert spec["params"]["W_hf"] == {"given": [H, H]}
    assert spec["h_0"] == {"values": {"given": [B, H]}}
    with pytest.raises(gradcli.GradcliError) as error:
        gradcli.simulate(spec)
    for path in ("input.path", "loss.file", "params.W_hf", "h_0"):
        assert f"{path}: " in str(error.value) or f"{path}." in str(error.value), error.value
    again = gradcli.simulate(spec, **arrays(), remedies=False)
    assert without_names(again) == without_names(run(**arrays()))


def test_a_name_or_glob_means_what_it_means_in_a_spec() -> None:
    same = {"W_h*": PARAMS["W_hf"]}
    saved = run(inputs=X, params=same, record=True, set={"num_layers": 2}).arrays
    for layer in ("layer0", "layer1"):
        for gate in "ifgo":
            assert np.array_equal(saved[f"param.{layer}.W_h{gate}"][1], PARAMS["W_hf"])
    only = run(inputs=X, params={**same, "layer1.W_hf": np.zeros((H, H))}, record=True, set={"num_layers": 2}).arrays
    assert only["param.layer0.W_hf"].any()
    assert not only["param.layer1.W_hf"].any()


def test_what_is_set_of_the_input_counts() -> None:
    lengths = [T, 3, 5]
    saved = run(inputs=X, record=True, set={"input.lengths": lengths, "input.scale": 2.0}).arrays
    assert saved["start"].tolist() == [T - n for n in lengths]
    assert np.array_equal(saved["x"][0, -3:, 1], 2.0 * X[1, :3])


def test_remedies_run_on_the_same_arrays() -> None:
    found = gradcli.simulate(
        "lstm", hidden_size=H, inputs=np.repeat(X, 15, axis=1), output_gradient=np.repeat(G, 15, 1)
    )
    assert found.verdict.kind == "vanishing"
    assert any("b_f" in " ".join(remedy.set) for remedy in found.remedies)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "uint8", ">f8"])
def test_any_real_numbers(dtype: str) -> None:
    whole = np.round(3 * np.abs(X)).astype(dtype)
    assert np.array_equal(run(inputs=whole).curve.log10_norm, run(inputs=whole.astype(float)).curve.log10_norm)


def test_other_layouts_in_memory_and_lists() -> None:
    expected = run(inputs=X, params=PARAMS).curve.log10_norm
    turned = {name: np.asfortranarray(value) for name, value in PARAMS.items()}
    for inputs in (np.asfortranarray(X), X[::-1][::-1], X.tolist(), X.astype(X.dtype.newbyteorder())):
        assert np.array_equal(run(inputs=inputs, params=turned).curve.log10_norm, expected)


def test_read_only_arrays_stay_as_they_are() -> None:
    given = {"inputs": X.copy(), "output_gradient": G.copy(), "params": {"W_hf": PARAMS["W_hf"].copy()}}
    for array in (given["inputs"], given["output_gradient"], given["params"]["W_hf"]):
        array.setflags(write=False)
    run(**given)
    assert np.array_equal(given["inputs"], X)


@pytest.mark.torch
def test_tensors_that_require_a_gradient() -> None:
    inputs = torch.tensor(X, requires_grad=True)
    params = {name: torch.nn.Parameter(torch.tensor(value)) for name, value in PARAMS.items()}
    by_tensor = run(inputs=inputs, params=params, output_gradient=torch.tensor(G), h_0=torch.tensor(H_0))
    by_array = run(inputs=X, params=PARAMS, output_gradient=G, h_0=H_0)
    assert by_tensor.to_dict() == by_array.to_dict()
    assert inputs.grad is None


def test_a_long_array_is_not_turned_into_numbers() -> None:
    inputs = np.zeros((1, 50_000, 32), np.float32)
    tracemalloc.start()
    try:
        run(inputs=inputs, hidden_size=2, trials=1, params={"W_h*": np.zeros((2, 2))})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * inputs.nbytes, "a Python float for each would be more"


EACH_MISUSE: dict[str, tuple[dict[str, Any], str]] = {
    "steps": ({"inputs": X, "seq_len": 9}, "--seq-len: seq_len is 9, but inputs of shape (3, 8, 2) has 8 steps"),
    "set": (
        {"inputs": X, "set": {"batch_size": 9}},
        "--set batch_size=9: batch_size: batch_size is 9, but inputs of shape (3, 8, 2) has 3 sequences",
    ),
    "features": ({"inputs": X, "input_size": 9}, "--input-size: input_size is 9, but inputs of shape (3, 8, 2) has 2"),
    "both": (
        {"inputs": X, "output_gradient": G[:2]},
        "inputs: batch_size is 3, but output_gradient of shape (2, 8, 4) has 2 sequences",
    ),
    "outputs": (
        {"output_gradient": G[:, :, :3]},
        "output_gradient: expected an array (3, 8, 4): sequences, steps, outputs; got shape (3, 8, 3)",
    ),
    "two axes": (
        {"inputs": X[0]},
        "inputs: expected an array (batch, T, features); got shape (8, 2); of a single sequence give inputs[None]",
    ),
    "parameter": ({"params": {"W_hf": X[0]}}, "params['W_hf']: expected an array (4, 4); got shape (8, 2)"),
    "no parameter": ({"params": {"W_hq": C_0}}, "params['W_hq']: no parameter matches 'W_hq'"),
    "state": ({"inputs": X, "h_0": G[0]}, "h_0: expected an array (4,), or (3, 4); got shape (8, 4)"),
    "no state": ({"h_0": {"q": C_0}}, "h_0['q']: the cell has no state 'q'; states: c, h"),
    "texts": ({"inputs": [[["a"]]]}, "inputs: expected real numbers; got an array of strings"),
    "complex": ({"inputs": X + 1j}, "inputs: expected real numbers; got an array of complex numbers"),
    "booleans": ({"inputs": X > 0}, "inputs: expected real numbers; got an array of booleans"),
    "objects": ({"params": {"b_f": object()}}, "params['b_f']: expected real numbers; got an array of Python objects"),
    "ragged": ({"inputs": [[[1.0]], [[1.0], [2.0]]]}, "inputs: expected an array of real numbers: "),
    "empty": ({"inputs": X[:0]}, "inputs: the array is empty: its shape is (0, 8, 2)"),
    "a path": ({"inputs": "x.npy"}, "inputs: expected an array or a list; got 'x.npy' (str)"),
    "no table": ({"params": C_0}, "params: expected a mapping; got array("),
}


@pytest.mark.parametrize(("options", "words"), EACH_MISUSE.values(), ids=EACH_MISUSE)
def test_misuse_is_told(options: dict[str, Any], words: str) -> None:
    assert words in refused(**options)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused(number: float) -> None:
    def spoilt(array: Array, *place: int) -> Array:
        found = array.copy()
        found[place] = number
        return found

    shown = str(number)
    assert f"inputs: sequence 2, row 4, column 1: expected a finite number; got {shown}" in refused(
        inputs=spoilt(X, 1, 3, 0)
    )
    assert f"output_gradient: sequence 3, step 1, output 4: expected a finite number; got {shown}" in refused(
        output_gradient=spoilt(G, 2, 0, 3)
    )
    params = {"W_hf": spoilt(PARAMS["W_hf"], 1, 2)}
    assert f"params['W_hf']: expected finite numbers; got {shown} at [1, 2]" in refused(params=params)
    assert f"h_0: expected finite numbers; got {shown} at [0]" in refused(h_0=spoilt(C_0, 0))


def test_a_spec_that_says_another_size_is_told_with_its_place(files: Path) -> None:
    with pytest.raises(gradcli.GradcliError, match=r"lstm.yaml:3:10: seq_len: seq_len is 8, but inputs of shape"):
        gradcli.simulate(files / "lstm.yaml", inputs=X[:, :5])


def test_a_checkpoint_that_reads_other_features_is_told() -> None:
    checkpoint = Path(__file__).parents[2] / "examples" / "checkpoints" / "digits-lstm.safetensors"
    with pytest.raises(gradcli.GradcliError, match=r"input_size is 8, but inputs of shape .* has 2 features"):
        gradcli.simulate(checkpoint, inputs=X)
