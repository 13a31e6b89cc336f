"""Every example runs, and does what its header says; where theory gives a number, it is the number."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doc_snippets import CONFIGS, ROOT, Terminal, stated_verdict, verdict_line

import gradcli
from gradcli.diagnostics.verdict_words import KIND_WORDS
from gradcli.spec.reader import load_spec

SPECS = sorted(CONFIGS.glob("*.yaml"))
SCRIPT = CONFIGS / "ci-gate.sh"
_COMMAND = re.compile(r"^#   (gradcli (?:.*\\\n# +)*.*)$", re.MULTILINE)


def simulated(target: str, *overrides: str, **options: object) -> dict[str, Any]:
    """Return the run of a spec as the JSON gives it."""
    result = gradcli.simulate(target, set=overrides, **options)
    run: dict[str, Any] = result.to_dict()["runs"][0]
    return run


def example(name: str, *overrides: str, **options: object) -> dict[str, Any]:
    return simulated(str(CONFIGS / name), *overrides, **options)


def ratios(run: dict[str, Any]) -> np.ndarray:
    """Return the norm at every distance relative to distance 0, (T+1,)."""
    curve = np.array(run["curve"]["log10_norm"])
    return np.asarray(np.power(10.0, curve - curve[0]))


def commands_in(path: Path) -> list[str]:
    """Return the commands that the header of an example shows."""
    return [re.sub(r" *\\\n# +", " ", command) for command in _COMMAND.findall(path.read_text(encoding="utf-8"))]


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return Terminal(tmp_path)


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_the_header_states_the_verdict(path: Path) -> None:
    assert stated_verdict(path) == verdict_line(path)


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_the_commands_of_the_header_run(path: Path, terminal: Terminal) -> None:
    commands = commands_in(path)
    assert any(path.name in command for command in commands)
    for command in commands:
        lines = terminal.run(command)
        assert terminal.code == 0, "\n".join(lines)


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_it_expects_the_verdict_that_the_header_states(path: Path) -> None:
    expect = load_spec(str(path)).spec.expect
    assert expect is not None
    assert isinstance(expect.verdict, str)
    assert stated_verdict(path).startswith(f"{KIND_WORDS[expect.verdict].upper()}, ")
    assert path.read_text(encoding="utf-8").splitlines()[-1].startswith("expect: {verdict: ")


def test_all_of_them_are_what_they_expect(terminal: Terminal) -> None:
    lines = terminal.run("gradcli check examples/configs")
    assert terminal.code == 0, "\n".join(lines)
    assert re.fullmatch(rf"PASSED   1\d\d checks passed, in {len(SPECS)} files", lines[0])


def test_the_index_lists_every_example() -> None:
    index = (CONFIGS / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `([^`]+)` \|", index, re.MULTILINE)
    assert sorted(listed) == sorted(p.name for p in CONFIGS.iterdir() if p.suffix in (".yaml", ".sh", ".csv"))


# Kind, pattern, and what the verdict's numbers are near: closed forms (theory) with a tight tolerance, else measured.
EXPECTED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "accumulator.yaml": ("stable", "exponential", {"rate_per_step": pytest.approx(2.0)}),
    "activation-sigmoid.yaml": ("vanishing", "exponential", {"rate_per_step": pytest.approx(0.237, abs=0.005)}),
    "activation-relu.yaml": ("vanishing", "exponential", {"rate_per_step": pytest.approx(math.sqrt(0.5), abs=0.03)}),
    "clipping.yaml": ("exploding", "exponential", {"rate_per_step": pytest.approx(1.49, abs=0.1)}),
    # relu halves the square, and weights of variance c/n multiply it by c.
    "deep-plain.yaml": ("vanishing", "exponential", {"rate_per_step": pytest.approx(math.sqrt(1 / 2), abs=0.03)}),
    "deep-residual.yaml": ("stable", "exponential", {"rate_per_step": pytest.approx(math.sqrt(1.08), abs=0.01)}),
    "deep-identity.yaml": ("stable", "flat", {"rate_per_step": pytest.approx(1.0, abs=1e-9), "half_life": None}),
    "deep-dense.yaml": ("stable", "exponential", {"rate_per_step": pytest.approx(math.sqrt(13 / 12), abs=0.02)}),
    "deep-plain-bn.yaml": (
        "stable",
        "exponential",
        {"rate_per_step": pytest.approx(math.sqrt(math.pi / (math.pi - 1)), abs=0.02)},
    ),
    "deep-residual-bn.yaml": ("stable", "polynomial", {}),
    "deep-dense-bn.yaml": ("stable", "polynomial", {}),
    "forget-bias-chrono.yaml": ("stable", "exponential", {"horizon": {"threshold": None, "float32": None}}),
    # The zero state of the LSTM: sigmoid(b_f) + rho(W_hg) / 4.
    "framework-torch.yaml": ("vanishing", "exponential", {"rate_per_step": pytest.approx(0.644, abs=0.03)}),
    "framework-keras.yaml": ("vanishing", "exponential", {"rate_per_step": pytest.approx(0.856, abs=0.04)}),
    "irnn.yaml": ("stable", "flat", {"rate_per_step": pytest.approx(1.0, abs=1e-9), "half_life": None}),
    "jordan-block.yaml": (
        "transient",
        "exponential",
        # Relative to distance 1, where the norm is |(0.9, 1)|.
        {
            "peak": {
                "distance": 9,
                "log10_ratio": pytest.approx(math.log10(math.hypot(0.9**9, 9 * 0.9**8) / math.hypot(0.9, 1.0))),
            }
        },
    ),
    "nilpotent-shift.yaml": ("dead", "flat", {"horizon": {"threshold": 4, "float32": 4}}),
    "notes-rnn-small-w.yaml": ("vanishing", "exponential", {"rate_per_step": pytest.approx(0.5)}),
    "notes-rnn.yaml": ("stable", "flat", {"rate_per_step": pytest.approx(1.0)}),
    "notes-rnn-large-w.yaml": ("exploding", "exponential", {"rate_per_step": pytest.approx(2.0)}),
    "one-unit-cliff.yaml": ("exploding", "exponential", {"rate_per_step": pytest.approx(0.2350037122 * 5)}),
    # Mean-field theory: norm ~ t^(-1/2).
    "orthogonal-rnn.yaml": ("stable", "polynomial", {"exponent": pytest.approx(-0.5, abs=0.05)}),
    "stacked-linear.yaml": ("vanishing", "exponential", {"rate_per_step": pytest.approx(0.5)}),
    "vanishing-rnn.yaml": ("vanishing", "exponential", {"rate_per_step": pytest.approx(0.69, abs=0.03)}),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_the_verdict_is_what_theory_says(name: str) -> None:
    kind, pattern, numbers = EXPECTED[name]
    verdict = example(name)["verdict"]
    assert (verdict["kind"], verdict["pattern"]) == (kind, pattern)
    assert {field: verdict[field] for field in numbers} == numbers


def test_accumulator_gives_the_gradients_that_a_hook_does_not_show() -> None:
    assert ratios(example("accumulator.yaml")) == pytest.approx([1, 2, 4, 8], rel=1e-12)


def test_nilpotent_shift_is_exactly_zero_and_not_small() -> None:
    curve = example("nilpotent-shift.yaml")["curve"]
    assert curve["zero_from"] == 5
    assert list(curve["log10_norm"]) == [0.0] * 5 + [None] * 16


def test_one_unit_cliff_has_pascanus_derivatives() -> None:
    run = example("one-unit-cliff.yaml")
    slope = 0.2350037122 * 5
    assert ratios(run)[50] == pytest.approx(3178.603422, rel=1e-6)
    # L = h_50, so dL/db = 1 + a + ... + a^49, and dL/dw is sigmoid(1/2) times that.
    in_b = (slope**50 - 1) / (slope - 1)
    norms = {name: 10 ** parameter["log10_norm"] for name, parameter in run["parameters"].items()}
    assert norms == pytest.approx({"layer0.b": in_b, "layer0.w": 0.6224593312 * in_b}, rel=1e-6)
    assert example("one-unit-cliff.yaml", "params.b=-2.5")["verdict"]["kind"] == "vanishing"


def test_jordan_block_has_its_closed_form() -> None:
    # (W.T)^d (1, 0) = (0.9^d, d 0.9^(d-1))
    expected = [math.hypot(0.9**d, d * 0.9 ** (d - 1)) for d in range(101)]
    assert ratios(example("jordan-block.yaml")) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("steps", "expected"), [(1, 0.9), (2, 1.26), (5, 1.25829), (10, 0.7823292246), (20, 0.2735453271)]
)
def test_stacked_linear_has_its_closed_form(steps: int, expected: float) -> None:
    states = example("stacked-linear.yaml", seq_len=steps)["states"]
    curve = np.power(10.0, states["layer0.h"]["log10_norm"])
    inside = [(0.9 ** (d + 1) - 0.5 ** (d + 1)) / (0.9 - 0.5) for d in range(steps)]
    assert curve == pytest.approx([*inside, expected], rel=1e-9)


def test_stacked_linear_has_its_peak_where_the_header_says() -> None:
    curve = example("stacked-linear.yaml")["states"]["layer0.h"]["log10_norm"]
    assert int(np.argmax(curve)) == 2
    assert 10 ** curve[2] == pytest.approx(1.51)


def test_a_dense_block_loses_once_and_then_gains() -> None:
    """E r_d^2 = (13/12)^(d-1) / 12: twelve matrices share the variance, and every layer adds those behind it."""
    expected = [1.0, *(math.sqrt((13 / 12) ** (d - 1) / 12) for d in range(1, 13))]
    assert ratios(example("deep-dense.yaml", "clip=[]", trials=24)) == pytest.approx(expected, rel=0.05)


def test_he_normal_suits_the_plain_stack_and_not_the_residual_one() -> None:
    plain = ratios(example("deep-plain.yaml", "init.W_hh=he_normal", "clip=[]", trials=64))
    assert 0.5 < plain[30] < 2
    assert example("deep-residual.yaml", "init.W_h2=he_normal")["verdict"]["kind"] == "exploding"
    assert ratios(example("deep-identity.yaml", "init.W_hh.identity=0.8"))[30] == pytest.approx(
        0.71 * 0.8**30, rel=0.02
    )


def test_a_gain_below_one_turns_the_power_into_an_exponential() -> None:
    verdict = example("orthogonal-rnn.yaml", "init.W_hh.orthogonal.gain=0.99")["verdict"]
    assert (verdict["kind"], verdict["pattern"]) == ("vanishing", "exponential")
    assert verdict["rate_per_step"] == pytest.approx(0.99, abs=1e-3)


def test_irnn_dies_where_the_input_changes_its_sign() -> None:
    assert example("irnn.yaml", "input={kind: normal, std: 1.0}")["verdict"]["kind"] == "dead"


def test_the_same_weights_explode_or_vanish_with_the_input() -> None:
    assert example("vanishing-rnn.yaml")["verdict"]["kind"] == "vanishing"
    assert example("vanishing-rnn.yaml", "input.std=0.001")["verdict"]["kind"] != "vanishing"
    assert example("notes-rnn-large-w.yaml", "init.U.normal.std=1")["verdict"]["rate_per_step"] < 1


def test_only_clipping_inside_bptt_changes_the_curve() -> None:
    clipped = {row["method"]: row for row in example("clipping.yaml")["clip"]}
    assert "curve" not in clipped["norm"]
    assert "curve" not in clipped["value"]
    assert clipped["norm"]["cosine"] == pytest.approx(1.0)
    assert max(clipped[method]["cosine"] for method in ("value", "step_norm", "step_value")) < 0.5
    # The headline curve joins one state here, so the threshold bounds the norm at every distance.
    assert max(clipped["step_norm"]["curve"]["log10_norm"]) <= 1.0 + 1e-12
    assert max(clipped["step_value"]["curve"]["log10_norm"]) <= math.log10(math.sqrt(64)) + 1e-12


def test_the_forms_of_the_lstm_agree() -> None:
    """The gates on the concatenation are the built-in lstm with its two matrices a gate side by side."""
    rng = np.random.default_rng(0)
    hidden, inputs = 4, 3
    matrices: dict[str, np.ndarray] = {}
    for gate in "ifgo":
        matrices[f"W_x{gate}"] = rng.normal(size=(hidden, inputs))
        matrices[f"W_h{gate}"] = rng.normal(size=(hidden, hidden))
    apart = {name: value.tolist() for name, value in matrices.items()} | {"b_*": 0.5}
    joined = {f"W_{g}": np.hstack([matrices[f"W_h{g}"], matrices[f"W_x{g}"]]).tolist() for g in "ifgo"} | {"b_*": 0.5}
    sizes = {"hidden_size": hidden, "input_size": inputs, "seq_len": 20}
    builtin = simulated("lstm", **sizes, params=apart)
    textbook = example("textbook-lstm.yaml", **sizes, params=joined)
    assert textbook["curve"]["log10_norm"] == pytest.approx(builtin["curve"]["log10_norm"], rel=1e-12)
    for ours, theirs in (("layer0.c", "layer0.C"), ("layer0.h", "layer0.h")):
        built_in = builtin["states"][ours]["log10_norm"]
        assert textbook["states"][theirs]["log10_norm"] == pytest.approx(built_in, rel=1e-12)


needs_sh = pytest.mark.skipif(shutil.which("sh") is None, reason="a POSIX shell")


@needs_sh
@pytest.mark.parametrize(
    ("specs", "code", "says"),
    [
        (["irnn.yaml"], 0, "passed: examples/configs/irnn.yaml"),
        (["irnn.yaml", "lstm.yaml"], 3, "failed: examples/configs/lstm.yaml"),
        (["lstm.yaml", "missing.yaml"], 4, "broken: examples/configs/missing.yaml (exit code 4)"),
        ([], 2, "usage:"),
    ],
)
def test_ci_gate(specs: list[str], code: int, says: str, terminal: Terminal) -> None:
    line = " ".join(["sh", "examples/configs/ci-gate.sh", *(f"examples/configs/{name}" for name in specs)])
    lines = terminal.run(line)
    assert terminal.code == code, "\n".join(lines)
    assert any(says in shown for shown in lines)
    kept = {path.name for path in (terminal.folder / "gradcli-reports").glob("*.json")}
    assert kept == {Path(name).with_suffix(".json").name for name in specs if name != "missing.yaml"}


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_ci_gate_is_clean() -> None:
    done = subprocess.run(["shellcheck", str(SCRIPT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_no_example_names_a_place_of_one_machine() -> None:
    for path in CONFIGS.iterdir():
        assert not re.search(r"(?<![.\w])/(home|root|tmp|work|Users)/", path.read_text(encoding="utf-8")), path.name


@pytest.mark.parametrize("path", [*SPECS, SCRIPT], ids=lambda path: path.name)
def test_lines_fit(path: Path) -> None:
    long = [line for line in path.read_text(encoding="utf-8").splitlines() if len(line) > 120]
    assert not long


def test_the_repository_carries_the_text_that_is_read() -> None:
    assert (ROOT / "LICENSE").is_file()


def test_three_steps_have_the_terms_that_the_notes_write_out() -> None:
    """dL_3/dU and dL_3/dW by hand: each step back one more factor tanh' W."""
    U, W, V, b1, y = 0.5, 0.8, 1.5, 0.1, 2.0
    s = [0.0]
    for _ in range(3):
        s.append(math.tanh(U + W * s[-1] + b1))
    slope = [1 - value**2 for value in s]
    at_3 = (V * s[3] - y) * V * slope[3]
    at_2 = at_3 * W * slope[2]
    at_1 = at_2 * W * slope[1]
    report = gradcli.contributions(CONFIGS / "notes-three-steps.yaml").report
    found = report.data["runs"][0]["parameters"]

    def terms(name: str) -> list[float]:
        return [found[name]["value"] * share for share in found[name]["terms"]["share"]]

    assert terms("U") == pytest.approx([at_3, at_2, at_1], rel=1e-12)
    assert terms("W") == pytest.approx([at_3 * s[2], at_2 * s[1], 0.0], rel=1e-12)
    assert terms("V") == pytest.approx([(V * s[3] - y) * s[3], 0.0, 0.0], rel=1e-12)
    assert found["W"]["value"] == pytest.approx(at_3 * s[2] + at_2 * s[1], rel=1e-12)


def test_of_ten_words_an_orthogonal_matrix_keeps_more_of_the_first() -> None:
    def share_of_the_first(*overrides: str) -> float:
        report = gradcli.contributions(CONFIGS / "notes-ten-words.yaml", set=overrides).report
        return float(report.data["runs"][0]["parameters"]["U"]["terms"]["share"][9])

    assert abs(share_of_the_first()) < 1e-3
    assert share_of_the_first("init.W=orthogonal") > 0.03


def test_the_last_output_of_two_directions_says_little_about_the_reverse_one() -> None:
    last, every, first = (example("bidirectional.yaml", f"loss.at={at}") for at in ("last", "every", "[1]"))
    gates = [f"W_h{gate}" for gate in "ifgo"]
    for gate in gates:
        assert last["parameters"][f"layer0.reverse.{gate}"]["log10_norm"] is None
        assert every["parameters"][f"layer0.reverse.{gate}"]["log10_norm"] is not None
        assert first["parameters"][f"layer0.{gate}"]["log10_norm"] is None
    reverse = list(last["states"]["layer0.reverse.h"]["log10_norm"])
    assert reverse[:59] == [None] * 59
    assert None not in reverse[59:]
    assert [run["curve"]["layers"] for run in (last, every, first)] == [
        ["layer0"],
        ["layer0", "layer0.reverse"],
        ["layer0.reverse"],
    ]
