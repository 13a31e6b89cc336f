"""What `gradcli contributions` and `gradcli gates` print, for people and for programs."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from in_process import gradcli
from measured import table_of

import gradcli as package

COMMANDS = ("contributions", "gates")
SMALL = ("--hidden-size", 5, "--input-size", 3, "-T", 20, "--trials", 2, "--batch-size", 2)

# One unit, one input, one sequence; tanh' = 1 at s = 0 and U x = 0: dL/dW is what s carries.
POWER = {
    "cell": {"name": "power", "equations": "s[t] = W * s[t-1] + U * x[t]"},
    "hidden_size": 1,
    "input_size": 1,
    "batch_size": 1,
    "trials": 1,
    "seq_len": 3,
    "params": {"W": 0.5, "U": 1.0},
    "s_0": [1.0],
    "input": {"kind": "zeros"},
    "loss": {"kind": "sum"},
}


def spec_file(folder: Path, **fields: object) -> Path:
    path = folder / "spec.yaml"
    path.write_text(json.dumps({**POWER, **fields}), encoding="utf-8")
    return path


def run_of(command: str, *arguments: object) -> dict[str, Any]:
    finished = gradcli(command, *arguments, "--format", "json")
    assert finished.code == 0, finished.stderr
    report = finished.report()
    assert report["schema_version"] == 1
    assert report["command"] == command
    (run,) = report["runs"]
    found: dict[str, Any] = run
    return found


def screen(command: str, target: str, width: int, **options: object) -> str:
    run = {"contributions": package.contributions, "gates": package.gates}[command]
    return table_of(run(target, **options).report, width)


# --- contributions ---------------------------------------------------------------------------------------------------


def test_every_term_has_its_name_where_there_are_few(tmp_path: Path) -> None:
    """s_3 = W^3: dL/dW = 3 W^2, a quarter from each of the three steps; x is 0, and so is every term of dL/dU."""
    lines = gradcli("contributions", spec_file(tmp_path)).stdout.splitlines()
    start = lines.index("dL_3/dW = term of step 3 + step 2 + step 1")
    rows = [line.split() for line in lines[start + 2 : start + 6]]
    assert rows == [
        ["3", "0.25", "0.333", "0.333"],
        ["2", "0.25", "0.333", "0.667"],
        ["1", "0.25", "0.333", "1"],
        ["sum", "0.75", "1"],
    ]
    start = lines.index("dL_3/dU = term of step 3 + step 2 + step 1")
    assert lines[start + 5].split() == ["sum", "0"]


def test_longer_sequences_have_a_row_for_each_parameter() -> None:
    text = gradcli("contributions", "lstm", *SMALL, "--full").stdout
    assert "term of step" not in text
    assert "W_hf" in text
    assert "K for 95 %" in text


def test_both_curves_are_printed_and_told_apart(tmp_path: Path) -> None:
    text = gradcli("contributions", spec_file(tmp_path, seq_len=50, params={"W": 0.9, "U": 0.0})).stdout
    assert "from distance 0 to 49 the first falls by a factor 175, the second stays level." in text
    assert "norms do not add" in text


def test_curves_that_wait_for_a_clock_are_compared_by_the_largest_of_each_half() -> None:
    """Modules of a clockwork network take in the input at their turns alone: the last distance is between two."""
    sizes = ("-T", 30, "--hidden-size", 8, "--input-size", 4)
    text = gradcli("contributions", "clockwork-rnn", *sizes).stdout
    run = run_of("contributions", "clockwork-rnn", *sizes)
    curves = run["state_curve"]["log10_norm_mean"][:30], run["joint"]["terms"]["log10_norm"]
    first, second = (max(curve[:15]) - max(curve[15:]) for curve in curves)
    assert curves[1][0] - curves[1][29] > 20
    where = "from the largest of distances 0 to 14 to that of 15 to 29"
    falls = r"falls by a factor (\S+)"
    words = re.search(rf"{where} the first {falls}, the second {falls}\.", text)
    assert words is not None
    assert [float(word) for word in words.groups()] == pytest.approx([10**first, 10**second], rel=0.05)


def test_contributions_for_programs() -> None:
    run = run_of("contributions", "rnn", *SMALL)
    assert (run["status"], run["layer"], run["loss_step"], run["verdict"]) == ("ok", "layer0", 20, None)
    for terms in (run["joint"], *run["parameters"].values()):
        assert terms["terms"]["distance"] == list(range(20))
        assert terms["truncated"]["window"] == list(range(1, 21))
        assert math.fsum(terms["terms"]["share"]) == pytest.approx(1.0)
        assert [window["tolerance"] for window in terms["smallest_window"]] == [0.05, 0.01]
    assert len(run["state_curve"]["log10_norm"]) == 21
    rows = list(csv.DictReader(io.StringIO(gradcli("contributions", "rnn", *SMALL, "--format", "csv").stdout)))
    assert [row["parameter"] for row in rows[::20]] == ["all", "W_xh", "W_hh", "b_h"]
    assert float(rows[3]["bias"]) == run["joint"]["truncated"]["bias"][3]
    assert float(rows[3]["state_log10_norm"]) == run["state_curve"]["log10_norm"][3]
    assert float(rows[3]["state_log10_norm_mean"]) == run["state_curve"]["log10_norm_mean"][3]


def test_a_layer_without_parameters_says_so(tmp_path: Path) -> None:
    path = spec_file(tmp_path, cell={"name": "none", "equations": "s[t] = 0.5 * s[t-1] + x[t]"}, params={})
    assert "The layer has no parameters" in gradcli("contributions", path).stdout
    assert run_of("contributions", path)["joint"] is None


# --- gates -----------------------------------------------------------------------------------------------------------


def test_gates_for_programs() -> None:
    run = run_of("gates", "lstm", *SMALL)
    assert list(run["activations"]) == ["i", "f", "g", "o", "tanh(c)"]
    assert run["activations"]["f"]["gamma"] == 0.25
    assert run["sampled_distance"] == [0, 1, 10, 19]
    assert len(run["activations"]["f"]["p10"]) == 4
    assert len(run["activations"]["f"]["mean"]) == len(run["rates"]["rate"]) == 20
    assert run["rates"]["other"] is None
    assert [(route["state"], route["factor"]) for route in run["direct_routes"]] == [("c", "f")]
    assert run["cause"]["kind"] == "gates"
    rows = list(csv.DictReader(io.StringIO(gradcli("gates", "lstm", *SMALL, "--format", "csv").stdout)))
    assert [float(row["f.mean"]) for row in rows] == run["activations"]["f"]["mean"]
    assert [float(row["weights"]) for row in rows] == run["rates"]["weights"]
    assert {row["other"] for row in rows} == {""}


def test_the_main_cause_stands_right_below_the_verdict() -> None:
    title, verdict, *_ = gradcli("gates", "rnn", "-T", 30).stdout.split("\n\n")
    assert title.startswith("rnn")
    assert verdict.startswith("VANISHING")
    assert verdict.splitlines()[-1].startswith("main cause   the weights: ")


def test_a_cell_without_activations_says_so(tmp_path: Path) -> None:
    text = gradcli("gates", spec_file(tmp_path), "--full").stdout
    assert "calls no function that can saturate" in text
    assert "s[t-1] -> s[t]: W = 0.500 a step where the gradient is" in text


# --- both ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("width", [80, 40])
@pytest.mark.parametrize("seq_len", [3, 60])
def test_it_fits_the_screen(command: str, width: int, seq_len: int) -> None:
    for cell in ("lstm", "rnn-lags"):
        text = screen(command, cell, width, hidden_size=4, seq_len=seq_len)
        assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize("command", COMMANDS)
def test_the_layer_is_the_top_one_unless_it_is_named(command: str) -> None:
    layers = ("rnn", *SMALL, "--set", "num_layers=3")
    assert run_of(command, *layers)["layer"] == "layer2"
    assert run_of(command, *layers, "--layer", 1)["layer"] == "layer1"
    refused = gradcli(command, *layers, "--layer", 3)
    assert refused.refused()
    assert "--layer: no layer is called '3'; layers: layer0, layer1, layer2" in refused.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_of_several_losses_the_last_alone_is_told(command: str) -> None:
    text = gradcli(command, "rnn", *SMALL, "--set", "loss.at=[4, 11]").stdout
    assert "The loss at step 11 alone, the last of its 2 steps: distance is steps back from there." in text
    assert run_of(command, "rnn", *SMALL, "--set", "loss.at=[4, 11]")["loss_step"] == 11
    assert "The loss at" not in gradcli(command, "rnn", *SMALL).stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_a_forward_pass_that_overflows_is_a_finding(command: str, tmp_path: Path) -> None:
    path = spec_file(tmp_path, cell={"name": "e", "equations": "s[t] = exp(s[t-1])"}, seq_len=9, params={})
    finished = gradcli(command, path)
    assert finished.code == 0
    assert "NONFINITE" in finished.stdout
    assert "the forward pass overflows at step 4" in finished.stdout
    run = run_of(command, path)
    assert (run["status"], run["verdict"]["kind"]) == ("nonfinite", "nonfinite")
    assert gradcli(command, path, "--format", "csv").stdout.count("\n") == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_too_much_memory_is_refused_with_its_reason(command: str) -> None:
    refused = gradcli(command, "rnn", "-T", 1_000_000, "--batch-size", 1, "--hidden-size", 2, "--max-memory", "300M")
    assert refused.code == 5
    assert "this run, with what is kept of every step, would need about" in refused.stderr


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", ["table", "markdown"])
def test_one_step_and_one_sequence_are_enough(command: str, kind: str) -> None:
    finished = gradcli(command, "gru", "-T", 1, "--batch-size", 1, "--trials", 1, "--format", kind)
    assert (finished.code, finished.stderr) == (0, "")


@pytest.mark.parametrize("command", COMMANDS)
def test_single_precision_is_told_as_such(command: str) -> None:
    run = run_of(command, "lstm", *SMALL, "--set", "dtype=float32")
    assert run["spec"]["dtype"] == "float32"
    if command == "contributions":
        assert run["joint"]["truncated"]["bias"][-1] < 1e-5
        assert "< 8e-6" in gradcli(command, "lstm", *SMALL, "--full", "--set", "dtype=float32").stdout


# --- what is refused, and what says what it means ---------------------------------------------------------------------


@pytest.mark.parametrize("command", [*COMMANDS, "paths"])
@pytest.mark.parametrize("layer", [(), ("--layer", "layer0.reverse")])
def test_bidirectional_layers_are_refused_with_what_to_use_instead(command: str, layer: tuple[str, ...]) -> None:
    finished = gradcli(command, "rnn", *SMALL, "--set", "bidirectional=true", *layer)
    assert (finished.code, finished.stdout) == (2, "")
    assert f"gradcli {command} does not go back through bidirectional layers" in finished.stderr
    assert "`gradcli simulate`" in finished.stderr
    assert "`gradcli jacobian --layer layer0.reverse`" in finished.stderr


def test_the_formulas_of_a_bidirectional_layer_are_those_of_its_cell() -> None:
    both = gradcli("paths", "lstm", *SMALL, "--set", "bidirectional=true", "--format", "latex")
    assert both.code == 0, both.stderr
    assert both.stdout == gradcli("paths", "lstm", *SMALL, "--format", "latex").stdout


def test_untied_weights_are_said_to_be_each_step_s_own() -> None:
    text = gradcli("contributions", "plain-stack", *SMALL, "-T", 3).stdout
    assert "Each step has weights of its own, with one term" in text
    assert "dL_3/dW_hh, of each step's own W_hh" in text
    assert "of each step's own" not in gradcli("contributions", "rnn", *SMALL, "-T", 3).stdout


def test_functions_across_are_named_among_the_activations_part() -> None:
    text = " ".join(gradcli("gates", "layer-norm-lstm", *SMALL).stdout.split())
    assert "slopes, gates, direct routes, layer_norm)" in text
