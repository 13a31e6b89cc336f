"""Bidirectional layers from the spec to the report: names, values, files, the headline curve, what is refused."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from in_process import Finished, gradcli
from measured import SMALL, loaded, measured, screen
from simulated import simulate

from gradcli.diagnostics.measure import headline_layers
from gradcli.engine.run import Engine
from gradcli.errors import ExitCode, SpecError
from gradcli.prepare.build import build

R, T, B, H, I = 3, 12, 2, 5, 3  # noqa: E741 - those of SMALL, as the documentation calls them
BOTH = {**SMALL, "bidirectional": True}
BOTH_LAYERS = ["layer0", "layer0.reverse", "layer1", "layer1.reverse"]


def parameters(cell: str = "rnn", **fields: object) -> dict[str, Any]:
    """Return the values of all parameters, by full name."""
    problem = build(loaded(cell, **{**BOTH, "num_layers": 2, **fields})).problem
    tables = zip(problem.names, problem.parameters, strict=True)
    return {f"{layer}.{name}": value for layer, table in tables for name, value in table.items()}


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "meant"),
    [
        ("b_h", BOTH_LAYERS),
        ("b_*", BOTH_LAYERS),
        ("layer*.b_h", BOTH_LAYERS),
        ("layer1*.b_h", ["layer1", "layer1.reverse"]),
        ("layer1.b_h", ["layer1"]),
        ("layer1.b_*", ["layer1"]),
        ("layer1.reverse.b_h", ["layer1.reverse"]),
        ("*.reverse.b_h", ["layer0.reverse", "layer1.reverse"]),
    ],
)
@pytest.mark.parametrize("field", ["init", "params"])
def test_a_name_or_glob_means_layers_and_directions(field: str, pattern: str, meant: list[str]) -> None:
    values = parameters(**{field: {pattern: 7.0}})
    assert [layer for layer in BOTH_LAYERS if (values[f"{layer}.b_h"] == 7.0).all()] == meant
    assert not (values["layer0.W_xh"] == 7.0).any()


@pytest.mark.parametrize(
    ("both", "pattern", "words"),
    [
        (False, "layer0.reverse.W_hh", "only bidirectional layers have a reverse direction (bidirectional: true)"),
        (True, "layer3.reverse.W_hh", "layers: layer0 to layer1"),
        (True, "layer0.revers.W_hh", "layers: layer0 to layer1"),
    ],
)
def test_a_direction_that_is_not_there_is_explained(both: bool, pattern: str, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        build(loaded("rnn", num_layers=2, bidirectional=both, init={pattern: 0.0}))
    assert words in str(caught.value)


def test_directions_have_draws_of_their_own_and_leave_those_of_others_alone() -> None:
    both, single = parameters(), parameters(bidirectional=False)
    np.testing.assert_array_equal(both["layer0.W_hh"], single["layer0.W_hh"])
    assert not np.isclose(both["layer0.W_hh"], both["layer0.reverse.W_hh"]).any()
    states = build(loaded("rnn", **BOTH, h_0={"normal": 1.0})).problem.initial
    assert not np.isclose(states[0]["h"], states[1]["h"]).any()


def test_chrono_sets_the_gates_of_each_direction() -> None:
    values = parameters("lstm", init={"b_f": "chrono", "b_i": "chrono"})
    for layer in BOTH_LAYERS:
        np.testing.assert_array_equal(values[f"{layer}.b_f"], -values[f"{layer}.b_i"])
        assert (values[f"{layer}.b_f"] >= 0).all()
    assert not np.isclose(values["layer0.b_f"], values["layer0.reverse.b_f"]).any()


# --- what comes out --------------------------------------------------------------------------------------------------


def test_sizes_are_those_of_both_directions_together(tmp_path: Path) -> None:
    run = simulate(
        {"cell": "gru", **BOTH, "num_layers": 2, "loss": {"kind": "cross_entropy", "classes": 4}}, tmp_path, save=True
    )
    shapes = {name: entry["shape"] for name, entry in run.report["parameters"].items()}
    assert shapes["layer0.W_xr"] == shapes["layer0.reverse.W_xr"] == [H, I]
    assert shapes["layer1.W_xr"] == shapes["layer1.reverse.W_xr"] == [H, 2 * H]
    assert shapes["readout.W_hy"] == [4, 2 * H]
    assert run.report["parameter_count"] == 2 * sum(
        3 * (H * size + H * H + 2 * H) for size in (I, 2 * H)
    )  # two biases a gate
    assert list(run.report["states"]) == [f"{layer}.h" for layer in BOTH_LAYERS]
    for layer in BOTH_LAYERS:
        assert run.arrays[f"state.{layer}.h"].shape == run.arrays[f"grad_state.{layer}.h"].shape == (R, T + 1, B, H)
        assert run.arrays[f"param.{layer}.W_hr"].shape == run.arrays[f"grad_param.{layer}.W_hr"].shape == (R, H, H)


def test_a_saved_run_can_be_redone_by_hand(tmp_path: Path) -> None:
    spec = {"cell": "rnn", **BOTH, "num_layers": 2, "h_0": {"normal": 1.0}, "loss": {"kind": "mse", "at": "every"}}
    arrays = simulate(spec, tmp_path, save=True).arrays
    below = arrays["x"]
    for layer in ("layer0", "layer1"):
        outputs = []
        for name, order in ((layer, 1), (f"{layer}.reverse", -1)):
            w_x, w_h, b = (arrays[f"param.{name}.{p}"] for p in ("W_xh", "W_hh", "b_h"))
            h = arrays[f"state.{name}.h"]
            read = np.einsum("roi,rtbi->rtbo", w_x, below[:, ::order]) + np.einsum("roi,rtbi->rtbo", w_h, h[:, :-1])
            np.testing.assert_allclose(h[:, 1:], np.tanh(read + b[:, None, None]), rtol=1e-11)
            outputs.append(h[:, 1:][:, ::order])
        below = np.concatenate(outputs, axis=3)
    error = below - arrays["target"]
    np.testing.assert_allclose(arrays["loss"], 0.5 * np.square(error).sum(axis=(1, 3)), rtol=1e-12)
    # The last state of each direction is read by the loss alone: at position T, and at position 1.
    for name, position, rows in (("layer1", -1, slice(H)), ("layer1.reverse", 0, slice(H, None))):
        gradient = np.ldexp(arrays[f"grad_state.{name}.h"][:, -1], arrays[f"log2_state.{name}.h"][:, -1, :, None])
        np.testing.assert_allclose(gradient, error[:, position, :, rows], rtol=1e-12)


def test_the_resolved_spec_gives_the_same_run(tmp_path: Path) -> None:
    first = simulate({"cell": "lstm", **BOTH}, tmp_path)
    assert first.report["spec"]["bidirectional"] is True
    again = simulate(first.report["spec"], tmp_path)
    assert again.report["curve"] == first.report["curve"]
    assert again.report["parameters"] == first.report["parameters"]


def test_float32_is_float64_rounded(tmp_path: Path) -> None:
    spec = {"cell": "gru", **BOTH, "num_layers": 2, "loss": {"kind": "mse", "at": "every"}, "seq_len": 100}
    double, single = (simulate({**spec, "dtype": dtype}, tmp_path) for dtype in ("float64", "float32"))
    for state in double.report["states"]:
        np.testing.assert_allclose(single.curve(state), double.curve(state), atol=1e-4)
        assert (single.curve(state) != double.curve(state)).any()


def test_clipping_after_bptt_takes_the_parameters_of_both_directions(tmp_path: Path) -> None:
    run = simulate({"cell": "rnn", **BOTH, "clip": [{"norm": 1e-3}, {"value": 1e-4}], "trials": 1}, tmp_path)
    copies = {name: entry["copies"] for name, entry in run.report["parameters"].items()}
    assert copies["layer0.b_h"] == copies["layer0.reverse.b_h"] == 2
    whole = np.sqrt(sum(count * 10.0 ** (2 * run.parameter(name)) for name, count in copies.items()))
    assert any(".reverse." in name for name in run.report["parameters"])
    for row in run.report["clip"]:
        assert 10 ** row["log10_norm_before"] == pytest.approx(whole, rel=1e-12)
        assert row["loss_after_unclipped"] < row["loss_after_clipped"] < row["loss_before"]


def test_compare_ranks_matches_and_lists(tmp_path: Path) -> None:
    arguments = ("compare", "gru", "lstm", "-T", T, "--set", "bidirectional=true", "--match", "params")
    done = gradcli(*arguments, "--format", "json")
    runs = done.report()["runs"]
    assert [run["spec"]["bidirectional"] for run in runs] == [True, True]
    assert runs[1]["parameter_count"] == pytest.approx(runs[0]["parameter_count"], rel=0.05)
    rows = list(csv.DictReader(io.StringIO(gradcli(*arguments, "--format", "csv").stdout)))
    assert len(rows) == 2 * (T + 1)
    assert [float(row["log10_norm"]) for row in rows[: T + 1]] == runs[0]["curve"]["log10_norm"]
    table = gradcli(*arguments).stdout
    assert table.count("the curve of the forward direction") == 2
    assert gradcli("compare", "gru", "gru", "--set", "bidirectional=true", "-T", T).code == ExitCode.DONE


# --- the headline ----------------------------------------------------------------------------------------------------

FORWARD, REVERSE = "layer1", "layer1.reverse"


@pytest.mark.parametrize(
    ("at", "layers"),
    [
        ("last", [FORWARD]),
        ([T], [FORWARD]),
        ([1], [REVERSE]),
        ("every", [FORWARD, REVERSE]),
        ([1, T], [FORWARD, REVERSE]),
        ([T - 2, T - 1], [FORWARD]),
        ([T // 2], [REVERSE]),
        ([T // 2 + 1], [FORWARD]),
        ([3, T - 2], [FORWARD, REVERSE]),
        ("final", [FORWARD, REVERSE]),
    ],
)
def test_the_headline_joins_the_directions_that_the_loss_reaches(at: Any, layers: list[str], tmp_path: Path) -> None:
    run = simulate(
        {"cell": "lstm", **BOTH, "num_layers": 2, "trials": 1, "batch_size": 1, "loss": {"kind": "sum", "at": at}},
        tmp_path,
    )
    assert run.report["curve"]["layers"] == layers
    squares = sum(10.0 ** (2 * run.curve(f"{layer}.{state}")) for layer in layers for state in "ch")
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(run.curve(), 0.5 * np.log10(squares), rtol=1e-9)


@pytest.mark.parametrize("seq_len", [1, 2, 3])
def test_some_direction_is_always_in_the_headline(seq_len: int) -> None:
    for at in range(1, seq_len + 1):
        fields = {**BOTH, "seq_len": seq_len, "loss": {"kind": "sum", "at": [at]}}
        assert headline_layers(build(loaded("rnn", **fields)).problem)
    assert headline_layers(build(loaded("rnn", **SMALL, num_layers=3)).problem) == ["layer2"]


def test_with_a_loss_at_the_last_position_the_report_says_what_the_reverse_direction_saw() -> None:
    found = measured("gru", **BOTH)
    reverse = found.states["layer0.reverse.h"].median
    assert np.isneginf(reverse[: T - 1]).all()
    assert np.isfinite(reverse[T - 1 :]).all()
    text = " ".join(screen(None, "gru", **BOTH).split())
    assert "hidden 5, input 3, bidirectional, T = 12" in text
    assert (
        "the curve of the forward direction: position 12 is the reverse direction's first step, so that its gradient is"
        " exactly zero at distances below 11" in text
    )
    assert (
        "try --set loss.at=final (each direction at its own last step: h_n of PyTorch, return_sequences=False of Keras)"
        in text
    )
    assert re.search(r"layer0\.reverse\.h 0 exactly", text)


def test_with_a_loss_everywhere_there_is_nothing_to_suggest() -> None:
    text = screen(None, "gru", **BOTH, loss={"kind": "mse", "at": "every"})
    assert "the curve of both directions joined, each at distances from its own last step" in text
    assert "loss.at" not in text
    assert "direction" not in screen(None, "gru", **SMALL)


def test_a_loss_near_the_beginning_is_the_reverse_direction_s() -> None:
    text = screen(None, "gru", **BOTH, loss={"kind": "mse", "at": [2, 3]})
    assert (
        "the curve of the reverse direction: the last loss is farther from the end of the forward direction, whose"
        " gradient is exactly zero at distances below 9" in text
    )


@pytest.mark.parametrize(("at", "layers"), [([6, 12], ["layer0"]), ([1, 7], ["layer0.reverse"]), ([2, 11], None)])
def test_directions_that_begin_at_two_distances_are_no_hump_together(at: list[int], layers: list[str] | None) -> None:
    """Each alone falls from where its last loss enters: joined, the later one would be a second rise."""
    small = {key: value for key, value in BOTH.items() if key != "seq_len"}
    found = measured("lstm", **small, seq_len=12, loss={"kind": "mse", "at": at})
    assert found.headline == (layers or ["layer0", "layer0.reverse"])
    assert found.curve is not None
    assert found.verdict.kind == "stable"
    assert (np.diff(found.curve.mean[np.isfinite(found.curve.mean)]) < 0).all()


@pytest.mark.parametrize("width", [80, 40])
def test_it_fits_the_screen(width: int) -> None:
    text = screen(width, "lstm", **BOTH, num_layers=2, clip=[{"norm": 1.0}, {"step_norm": 0.1}])
    assert max(map(len, text.splitlines())) <= width


# --- what is not finite, what is too large ---------------------------------------------------------------------------

GROWING = "cell:\n  equations: 'h[t] = a * h[t-1] + W @ x[t]'\n"


def run_text(text: str, *options: object) -> Finished:
    return gradcli("simulate", "-", "--hidden-size", 2, "--trials", 2, "-T", 9, *options, stdin=text)


def test_an_overflow_is_told_by_the_direction_s_own_step() -> None:
    text = (
        f"{GROWING}num_layers: 2\nbidirectional: true\nh_0: 1.0\nparams: {{a: 0.5, layer0.reverse.a: 1e100, W: 0.0}}\n"
    )
    finished = run_text(text)
    assert finished.code == ExitCode.DONE
    # 1 -> 1e100 -> ... -> 1e300 -> infinity at its fourth step, position 6, after which layer1 is not finite either.
    place = "step 4, layer0.reverse: h[t] = a * h[t-1] + W @ x[t]"
    assert f"{place}, where 1e100 is multiplied by 1e300 (in all 2 trials)" in finished.stdout


@pytest.mark.parametrize("at_once", [1, 2])
def test_a_lower_layer_overflows_before_an_upper_one_at_any_step(at_once: int) -> None:
    cell = {"name": "growing", "equations": "h[t] = a * h[t-1] + W @ x[t]"}
    fields = {**BOTH, "trials": 2, "num_layers": 2, "h_0": 1.0, "params": {"W": 0.0, "a": 0.5}}
    problem = build(loaded(cell, **fields)).problem
    problem.parameters[1]["a"][1] = 1e100  # layer0.reverse, at its step 4
    problem.parameters[2]["a"][0] = 1e200  # layer1, at its step 2
    overflow = Engine(problem, at_once=at_once).run().overflow
    assert overflow is not None
    assert (overflow.step, problem.names[overflow.layer]) == (4, "layer0.reverse")
    assert overflow.trials.tolist() == [False, True]


def test_a_derivative_that_is_not_finite_is_told() -> None:
    text = "cell:\n  equations: 'h[t] = sqrt(h[t-1]) + x[t]'\nbidirectional: true\nnum_layers: 1\n"
    finished = run_text(text, "--input-size", 2, "--set", "input.kind=zeros", "--set", "loss.at=every")
    assert "NONFINITE" in finished.stdout
    assert "step 9, layer0: h[t] = sqrt(h[t-1]) + x[t], that of sqrt at 0" in finished.stdout


def test_a_run_that_does_not_fit_is_refused_with_the_reason() -> None:
    finished = gradcli("simulate", "lstm", "-T", 100_000, "--set", "bidirectional=true")
    assert finished.code == ExitCode.RESOURCE
    assert finished.refused()
    assert re.search(
        r"about [\d.]+ GiB of memory \(bidirectional layers keep the whole sequence\); 4\.0 GiB", finished.stderr
    )
    assert gradcli("simulate", "lstm", "-T", 10, "--set", "bidirectional=true", free_memory=2**30).code == ExitCode.DONE


def test_the_tape_holds_the_whole_sequence_where_one_direction_would_be_cut() -> None:
    fields: dict[str, Any] = {"hidden_size": 32, "batch_size": 16, "trials": 1, "seq_len": 3000}
    limit = 200 * 2**20
    assert build(loaded("lstm", **fields), max_memory=limit).problem.sizes.segment < 3000
    both = build(loaded("lstm", **fields, bidirectional=True), max_memory=4 * limit).problem
    assert both.sizes.segment == 3000


# --- other commands --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "rate"), [("0", 0.9), ("layer0.reverse", 0.5), (None, 0.8), ("1", 0.8), ("1.reverse", 0.25)]
)
def test_the_jacobian_is_that_of_the_direction_asked_for(layer: str | None, rate: float) -> None:
    rates = {"layer0.a": 0.9, "layer0.reverse.a": 0.5, "layer1.a": 0.8, "layer1.reverse.a": 0.25}
    text = f"{GROWING}num_layers: 2\nbidirectional: true\nparams: {rates}\n"
    asked = [] if layer is None else ["--layer", layer]
    finished = gradcli("jacobian", "-", "--hidden-size", 2, "-T", 9, *asked, "--format", "json", stdin=text)
    run = finished.report()["runs"][0]
    assert run["verdict"]["rate_per_step"] == pytest.approx(rate, rel=1e-12)
