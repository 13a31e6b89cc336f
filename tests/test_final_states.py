"""`loss.at: final`: each direction at its own last step, in the curve, the reports, the other commands, and files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from in_process import gradcli
from measured import SMALL, loaded, measured, screen
from simulated import simulate

from gradcli.diagnostics.measure import first_distances
from gradcli.errors import ExitCode
from gradcli.prepare.build import build

T, B, H = 12, 2, 5  # those of SMALL
BOTH = {**SMALL, "bidirectional": True}
KINDS: dict[str, dict[str, Any]] = {
    "mse": {"kind": "mse"},
    "cross_entropy": {"kind": "cross_entropy"},
    "binary_cross_entropy": {"kind": "binary_cross_entropy", "outputs": 2},
    "projection": {"kind": "projection"},
    "sum": {"kind": "sum"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_both_directions_have_a_gradient_from_their_last_step_on(kind: str, tmp_path: Path) -> None:
    run = simulate({"cell": "gru", **BOTH, "loss": {**KINDS[kind], "at": "final"}}, tmp_path)
    assert run.report["curve"]["layers"] == ["layer0", "layer0.reverse"]
    assert run.report["spec"]["loss"]["at"] == "final"
    for name in ("layer0.h", "layer0.reverse.h"):
        assert np.isfinite(run.curve(name)).all()
        assert np.argmax(run.curve(name)) <= 1


def test_the_curve_joins_both_at_distances_from_each_one_s_own_last_step(tmp_path: Path) -> None:
    fields = {"trials": 1, "batch_size": 1, "loss": {"kind": "sum", "at": "final"}}
    run = simulate({"cell": "lstm", **BOTH, **fields}, tmp_path)
    squares = sum(10.0 ** (2 * run.curve(f"{name}.{s}")) for name in ("layer0", "layer0.reverse") for s in "hc")
    np.testing.assert_allclose(run.curve(), 0.5 * np.log10(squares), rtol=1e-9)
    assert first_distances(build(loaded("lstm", **{**BOTH, **fields})).problem) == {"layer0": 0, "layer0.reverse": 0}


@pytest.mark.parametrize("kind", KINDS)
def test_of_one_direction_the_final_state_is_the_last(kind: str, tmp_path: Path) -> None:
    final, last = (
        simulate({"cell": "lstm", **SMALL, "loss": {**KINDS[kind], "at": at}}, tmp_path) for at in ("final", "last")
    )
    assert final.report["curve"] == last.report["curve"]
    assert final.report["parameters"] == last.report["parameters"]


def test_a_saved_run_has_what_the_loss_reads(tmp_path: Path) -> None:
    spec = {"cell": "gru", **BOTH, "num_layers": 2, "loss": {"kind": "mse", "at": "final", "reduction": "mean"}}
    arrays = simulate(spec, tmp_path, save=True).arrays
    read = np.concatenate([arrays[f"state.{layer}.h"][:, -1] for layer in ("layer1", "layer1.reverse")], axis=2)
    error = read - arrays["target"][:, 0]
    np.testing.assert_allclose(arrays["loss"], np.square(error).mean(axis=2), rtol=1e-12)
    for layer, rows in (("layer1", slice(H)), ("layer1.reverse", slice(H, None))):
        gradient = np.ldexp(arrays[f"grad_state.{layer}.h"][:, -1], arrays[f"log2_state.{layer}.h"][:, -1, :, None])
        np.testing.assert_allclose(gradient, 2 * error[..., rows] / (2 * H), rtol=1e-12)
    assert arrays["at"].tolist() == [T]


def test_the_report_says_where_the_loss_is_and_suggests_nothing() -> None:
    text = " ".join(screen(None, "gru", **BOTH, loss={"kind": "mse", "at": "final", "reduction": "mean"}).split())
    assert "loss mse (mean) at each direction's last step" in text
    assert "the curve of both directions joined, each at distances from its own last step" in text
    assert "loss.at" not in text
    assert "at the last step" in screen(None, "gru", **SMALL, loss={"kind": "mse", "at": "final"})


def test_norms_are_those_of_each_direction_alone() -> None:
    """L = v . [h, g] falls apart: each direction's curve is that of a single layer with the same weights and input."""
    both = measured("gru", **BOTH, loss={"kind": "projection", "at": "final", "vector": [1.0] * H + [0.0] * H})
    alone = measured("gru", **SMALL, loss={"kind": "projection", "vector": [1.0] * H})
    np.testing.assert_allclose(both.states["layer0.h"].median, alone.states["layer0.h"].median, rtol=1e-12)
    assert np.isneginf(both.states["layer0.reverse.h"].median).all()


def lengths_spec(folder: Path, **fields: Any) -> Path:
    np.savez(folder / "x.npz", x=np.random.default_rng(0).normal(size=(4, 9, 3)))
    spec = {
        "cell": "gru",
        "hidden_size": 4,
        "seq_len": 9,
        "trials": 2,
        "bidirectional": True,
        "input": {"kind": "file", "path": "x.npz", "key": "x", "lengths": [9, 4, 6, 1]},
        **fields,
    }
    file = folder / "lengths.yaml"
    file.write_text(json.dumps(spec), encoding="utf-8")
    return file


def test_lengths_go_together_with_two_directions_in_the_commands(tmp_path: Path) -> None:
    file = lengths_spec(tmp_path, loss={"kind": "mse", "at": "final"})
    run = gradcli("simulate", file, "--format", "json").report()["runs"][0]
    assert run["curve"]["sequences"] == [4, 4, 3, 3, 3, 2, 2, 1, 1, 1]
    assert run["curve"]["layers"] == ["layer0", "layer0.reverse"]
    assert None not in run["curve"]["log10_norm"]
    assert gradcli("compare", file, "lstm", "--set", "bidirectional=true").code == ExitCode.DONE
    for layer in ("layer0", "layer0.reverse"):
        assert gradcli("jacobian", file, "--layer", layer).code == ExitCode.DONE
    for command in ("gates", "paths", "contributions"):
        refused = gradcli(command, file)
        assert refused.code == ExitCode.USAGE
        assert f"gradcli {command} does not go back through bidirectional layers" in refused.stderr


def test_lengths_are_saved_by_each_direction_s_own_steps(tmp_path: Path) -> None:
    file, saved = lengths_spec(tmp_path, loss={"kind": "sum", "at": "last"}, num_layers=2), tmp_path / "run.npz"
    assert gradcli("simulate", file, "--save", saved).code == ExitCode.DONE
    arrays = dict(np.load(saved))
    assert arrays["start"].tolist() == [0, 5, 3, 8]
    for sequence, start in enumerate(arrays["start"].tolist()):
        assert np.isnan(arrays["x"][:, :start, sequence]).all()
        for layer in ("layer0", "layer0.reverse", "layer1", "layer1.reverse"):
            for name in (f"state.{layer}.h", f"grad_state.{layer}.h"):
                assert np.isnan(arrays[name][:, :start, sequence]).all()
                assert np.isfinite(arrays[name][:, start:, sequence]).all()
        # The top reverse direction meets the last position at its first step, which is s + 1.
        assert not arrays["grad_state.layer1.reverse.h"][:, start + 2 :, sequence].any()
        assert arrays["grad_state.layer1.reverse.h"][:, start + 1, sequence].all()


def test_a_direction_alone_says_from_where_of_the_longest_sequence(tmp_path: Path) -> None:
    text = " ".join(gradcli("simulate", lengths_spec(tmp_path)).stdout.split())
    assert "is exactly zero at distances below 8 (in the longest sequence)" in text


def test_of_a_loss_everywhere_each_direction_is_measured_from_its_own_last_position() -> None:
    """The last loss alone is that at T for forward directions and that at 1 for reverse ones, in every layer."""
    fields = {**BOTH, "num_layers": 2}
    every, first, last = (measured("gru", **fields, loss={"kind": "sum", "at": at}) for at in ("every", [1], [T]))
    for name, state in every.states.items():
        alone = (first if ".reverse." in name else last).states[name]
        np.testing.assert_allclose(state.mean, alone.mean, rtol=1e-12)


def test_of_different_lengths_the_last_position_of_a_reverse_direction_is_each_one_s_first(tmp_path: Path) -> None:
    reverse = {"kind": "projection", "vector": [0.0] * 4 + [1.0] * 4}
    curves = []
    for at in ("every", "final"):
        file = lengths_spec(tmp_path, loss={**reverse, "at": at})
        run = gradcli("simulate", file, "--format", "json").report()["runs"][0]
        curves.append(run["states"]["layer0.reverse.h"]["log10_norm"])
    assert None not in curves[0]
    np.testing.assert_allclose(curves[0], curves[1], rtol=1e-10)
