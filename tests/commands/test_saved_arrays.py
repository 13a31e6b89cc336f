"""What `--save` writes: keys and shapes, and that it suffices to redo the losses and gradients."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from measured import SCALAR, SMALL, loaded, measured

from gradcli.commands.compare import compare
from gradcli.commands.simulate import simulate
from gradcli.errors import UsageError

R, T, B, H, I = 3, 12, 2, 5, 3  # noqa: E741 - as the documentation calls them
Arrays = dict[str, np.ndarray[Any, Any]]


def saved(cell: Any = "rnn", **fields: object) -> Arrays:
    """Simulate, save and read back."""
    file = io.BytesIO()
    simulate(loaded(cell, **{**SMALL, **fields}), record=True).save_arrays(file)
    file.seek(0)
    with np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)


def gradient(arrays: Arrays, name: str) -> np.ndarray[Any, Any]:
    """Return ``grad_*`` as plain numbers: mantissa * 2**log2."""
    mantissa, log2 = arrays[f"grad_{name}"], arrays[f"log2_{name}"]
    return np.ldexp(mantissa, log2.reshape(log2.shape + (1,) * (mantissa.ndim - log2.ndim)))


def test_keys_and_shapes_of_two_layers() -> None:
    arrays = saved("lstm", num_layers=2)
    matrices = {f"W_{kind}{gate}": size for kind, size in (("x", I), ("h", H)) for gate in "ifgo"}
    expected: dict[str, tuple[int, ...]] = {
        "x": (R, T, B, I),
        "loss": (R, B),
        "target": (R, 1, B, H),
        "at": (1,),
    }
    for layer in ("layer0", "layer1"):
        for state in "ch":
            expected[f"state.{layer}.{state}"] = expected[f"grad_state.{layer}.{state}"] = (R, T + 1, B, H)
            expected[f"log2_state.{layer}.{state}"] = (R, T + 1, B)
        shapes = {name: (H, size if layer == "layer0" else H) for name, size in matrices.items()}
        for name, shape in {**shapes, **{f"b_{gate}": (H,) for gate in "ifgo"}}.items():
            expected[f"param.{layer}.{name}"] = expected[f"grad_param.{layer}.{name}"] = (R, *shape)
            expected[f"log2_param.{layer}.{name}"] = (R,)
    assert {name: array.shape for name, array in arrays.items()} == expected
    assert all(array.dtype == np.int64 for name, array in arrays.items() if name.startswith(("log2_", "at")))
    assert arrays["at"].tolist() == [T]


def test_the_equations_lead_from_state_to_state() -> None:
    arrays = saved("rnn", num_layers=2, h_0={"normal": {"std": 1.0}})
    below = arrays["x"]
    for layer in ("layer0", "layer1"):
        w_x, w_h, b = (arrays[f"param.{layer}.{name}"] for name in ("W_xh", "W_hh", "b_h"))
        h = arrays[f"state.{layer}.h"]
        assert np.abs(h[:, 0]).min() > 0
        before = np.einsum("roi,rtbi->rtbo", w_x, below) + np.einsum("roi,rtbi->rtbo", w_h, h[:, :-1])
        np.testing.assert_allclose(h[:, 1:], np.tanh(before + b[:, None, None]), rtol=1e-12, atol=1e-14)
        below = h[:, 1:]


def test_squared_errors_and_their_gradients() -> None:
    arrays = saved("gru", loss={"kind": "mse", "at": [12, 4]})
    assert arrays["at"].tolist() == [4, 12]
    error = arrays["state.layer0.h"][:, arrays["at"]] - arrays["target"]
    np.testing.assert_allclose(arrays["loss"], 0.5 * np.square(error).sum(axis=(1, 3)), rtol=1e-12)
    np.testing.assert_allclose(gradient(arrays, "state.layer0.h")[:, 12], error[:, 1], rtol=1e-12)


def test_a_readout_and_its_gradients() -> None:
    arrays = saved("rnn", loss={"kind": "cross_entropy", "at": [2, 12], "classes": 7})
    assert arrays["target"].shape == (R, 2, B)
    assert arrays["param.readout.W_hy"].shape == arrays["grad_param.readout.W_hy"].shape == (R, 7, H)
    assert arrays["param.readout.b_y"].shape == arrays["grad_param.readout.b_y"].shape == (R, 7)
    h = arrays["state.layer0.h"][:, arrays["at"]]
    logits = np.einsum("rch,rkbh->rkbc", arrays["param.readout.W_hy"], h) + arrays["param.readout.b_y"][:, None, None]
    p = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    hit = arrays["target"][..., None] == np.arange(7)
    np.testing.assert_allclose(arrays["loss"], -np.log(p[hit].reshape(R, 2, B)).sum(axis=1), rtol=1e-12)
    error = p - hit
    np.testing.assert_allclose(
        gradient(arrays, "param.readout.W_hy"), np.einsum("rkbc,rkbh->rch", error, h) / B, rtol=1e-11
    )
    np.testing.assert_allclose(gradient(arrays, "param.readout.b_y"), error.sum(axis=(1, 2)) / B, rtol=1e-11)


def test_a_projection_keeps_its_vector() -> None:
    arrays = saved("rnn", loss={"kind": "projection"})
    assert arrays["vector"].shape == (R, H)
    assert "target" not in arrays
    np.testing.assert_allclose(np.linalg.norm(arrays["vector"], axis=1), 1.0, rtol=1e-14)
    np.testing.assert_allclose(
        gradient(arrays, "state.layer0.h")[:, T], np.broadcast_to(arrays["vector"][:, None], (R, B, H)), rtol=1e-14
    )


def test_parameter_gradients_are_those_of_the_batch_loss() -> None:
    arrays = saved("rnn")
    delta = gradient(arrays, "state.layer0.h")[:, 1:] * (1 - np.square(arrays["state.layer0.h"][:, 1:]))
    by_sequence = np.einsum("rtbo,rtbi->rboi", delta, arrays["x"])
    np.testing.assert_allclose(gradient(arrays, "param.layer0.W_xh"), by_sequence.mean(axis=1), rtol=1e-11)
    np.testing.assert_allclose(gradient(arrays, "param.layer0.b_h"), delta.sum(axis=1).mean(axis=1), rtol=1e-11)


def test_exponents_carry_what_floats_cannot() -> None:
    fields = {"hidden_size": 1, "batch_size": 1, "trials": 1, "seq_len": 3000}
    arrays = saved(SCALAR, **fields, params={"a": 0.5, "b": 0.0}, loss={"kind": "sum"})
    mantissa, log2 = arrays["grad_state.layer0.h"][0, :, 0, 0], arrays["log2_state.layer0.h"][0, :, 0]
    np.testing.assert_array_equal(np.log2(mantissa) + log2, np.arange(3001) - 3000)


def test_float32_is_what_was_computed_with() -> None:
    single, double = saved("gru", dtype="float32"), saved("gru")
    assert single.keys() == double.keys()
    for name in ("x", "param.layer0.W_hn", "state.layer0.h"):
        np.testing.assert_allclose(single[name], double[name], rtol=1e-3, atol=1e-5)
    assert np.abs(single["state.layer0.h"] - double["state.layer0.h"]).max() > 0
    found, expected = gradient(single, "state.layer0.h"), gradient(double, "state.layer0.h")
    # At each distance by itself: over all of them, the last step's gradient would hide what has vanished.
    error, size = np.linalg.norm(found - expected, axis=-1), np.linalg.norm(expected, axis=-1)
    assert np.all(error < 1e-4 * size)


def test_the_saved_run_is_the_reported_one() -> None:
    fields = {**SMALL, "batch_size": 1, "trials": 1}
    arrays, run = saved("mgu", batch_size=1, trials=1), measured("mgu", **fields)
    norms = np.linalg.norm(gradient(arrays, "state.layer0.h")[0, ::-1, 0], axis=1)
    assert run.curve is not None
    np.testing.assert_allclose(10**run.curve.median, norms, rtol=1e-12)
    for name, log10 in run.parameters.items():
        np.testing.assert_allclose(10**log10, np.linalg.norm(gradient(arrays, f"param.{name}")), rtol=1e-12)


def test_an_overflow_leaves_the_forward_pass_only() -> None:
    arrays = saved("rnn", activation="identity", init={"W_hh": {"identity": {"gain": 1e200}}})
    assert {"x", "state.layer0.h", "param.layer0.W_hh"} <= arrays.keys()
    assert not any(name.startswith(("grad_", "log2_")) for name in arrays)


def test_a_comparison_names_its_arms() -> None:
    fields = {**SMALL, "seq_len": 4}
    result = compare([loaded("rnn", **fields), loaded("rnn", **fields, seed=9), loaded("gru", **fields)], record=True)
    labels = {name.partition("/")[0] for name in result.arrays}
    assert labels == {"rnn", "rnn-2", "gru"}
    alone = simulate(loaded("gru", **fields), record=True).arrays
    assert {name.removeprefix("gru/") for name in result.arrays if name.startswith("gru/")} == alone.keys()
    for name, array in alone.items():
        np.testing.assert_array_equal(result.arrays[f"gru/{name}"], array)


def test_nothing_is_kept_unless_asked_for() -> None:
    result = simulate(loaded(**SMALL))
    assert result.arrays == {}
    with pytest.raises(UsageError, match="record=True"):
        result.save_arrays(io.BytesIO())
    assert measured(**SMALL).run is None
