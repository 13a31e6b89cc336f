"""The command line as a newcomer gets it wrong: one message that helps, the right exit code, nothing half done."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from in_process import Finished, gradcli

GOOD = """\
cell:
  equations: |
    # a plain cell
    h[t] = tanh(W_xh @ x[t] + W_hh @ h[t-1] + b_h)
hidden_size: 3
input_size: 2
seq_len: 5
batch_size: 2
trials: 2
"""
# What takes a second or two here; enough for a busy machine, and far from what something quadratic would take.


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def says(finished: Finished, *words: str) -> bool:
    """Tell whether a refusal holds all these words, whatever box or line breaks the screen puts around them."""
    text = " ".join(finished.stderr.replace("│", " ").split())
    return finished.refused() and all(word in text for word in words)


# Each line: the arguments after `gradcli`, the exit code, and what the message must say.
WRONG = [
    # values of options
    ("simulate lstm -T 0", 2, ["--seq-len: must be at least 1; got 0"]),
    ("simulate lstm -T -5", 2, ["--seq-len: must be at least 1; got -5"]),
    ("simulate lstm -T 1e3", 2, ["'-T'", "valid int"]),
    ("simulate lstm -T 99999999999", 2, ["--seq-len: must be at most 10,000,000; got 99999999999"]),
    ("simulate lstm -T", 2, ["'-T' requires an argument"]),
    ("simulate lstm --hidden-size ten", 2, ["'--hidden-size'", "valid int"]),
    ("simulate lstm --hidden-size 65537", 2, ["--hidden-size: must be at most 65,536; got 65537"]),
    ("simulate lstm --trials 0 --seed -1", 2, ["--seed: must be at least 0", "--trials: must be", "2 mistakes in"]),
    ("simulate lstm --hiden-size 3", 2, ["No such option: --hiden-size", "--hidden-size"]),
    ("simulate lstm --clip norm", 2, ["--clip: expected METHOD=THRESHOLD, such as norm=1; got 'norm'"]),
    ("simulate lstm --clip nrom=1", 2, ["--clip: no clipping method is called 'nrom'", "did you mean 'norm'?"]),
    ("simulate lstm --clip norm=big", 2, ["--clip: the threshold of norm must be a number; got 'big'"]),
    ("simulate lstm --clip norm=0", 2, ["--clip: clip[0].norm: must be greater than 0"]),
    ("simulate lstm --clip norm=nan", 2, ["expected a finite number"]),
    ("simulate lstm --clip norm=inf", 2, ["expected a finite number"]),
    ("simulate lstm --format yaml", 2, ["--format: no format is called 'yaml'; known: table, json, csv, markdown"]),
    ("simulate lstm --format jsn", 2, ["did you mean 'json'?"]),
    ("simulate lstm --fail-on vanish", 2, ["--fail-on: no verdict is called 'vanish'", "did you mean 'vanishing'?"]),
    ("simulate lstm --fail-on ,", 2, ["--fail-on: expected at least one of stable"]),
    # --set
    ("simulate lstm --set seq_len", 2, ["--set seq_len: expected PATH=VALUE, such as init.b_f=1"]),
    ("simulate lstm --set =3", 2, ["--set =3: expected PATH=VALUE"]),
    ("simulate lstm --set seq_length=3", 2, ["--set seq_length=3: seq_length: unknown key; did you mean 'seq_len'?"]),
    ("simulate lstm --set loss.knd=mse", 2, ["loss.knd: unknown key", "did you mean 'kind'?"]),
    ("simulate lstm --set seq_len=ten", 2, ["seq_len: expected a whole number; got 'ten'"]),
    ("simulate lstm --set seq_len.x=1", 2, ["seq_len: holds no block"]),
    ("simulate lstm --set clip[7].norm=1", 2, ["clip: has 1 entry, numbered from 0; none is '7'"]),
    ("simulate lstm --set init.b_f=[1", 2, ["--set init.b_f=[1: init.b_f:", "is not closed"]),
    ("simulate lstm --set init.b_f=&a", 2, ["an anchor cannot stand in a spec"]),
    ("simulate lstm --set init.b_g=chrono", 2, ["--set init.b_g=chrono: init.b_g: chrono is for the biases of gates"]),
    ("simulate lstm --set cell.equations=h", 2, ["the cell is the built-in 'lstm', which cannot be changed"]),
    # cells and files
    ("simulate", 2, ["Missing argument 'SPEC'"]),
    ("simulate lsmt", 2, ["no built-in cell is called 'lsmt'; did you mean 'lstm'?", "'gradcli cells' lists them"]),
    ("simulate nn.LTSM", 2, ["no built-in cell is called 'nn.LTSM'; did you mean 'lstm'?"]),
    ("simulate good", 2, ["no built-in cell is called 'good'"]),
    ("simulate lstm rnn", 2, ["unexpected extra argument"]),
    ("simulate missing.yaml", 4, ["missing.yaml: there is no such file"]),
    ("simulate folder.yaml", 4, ["folder.yaml: is a folder; expected a spec, a YAML file"]),
    ("simulate ./", 4, ["./: is a folder"]),
    ("simulate empty.yaml", 2, ["empty.yaml:1:1: expected a block of keys, beginning with `cell:`; got nothing"]),
    ("simulate binary.yaml", 4, ["binary.yaml: not a text in UTF-8: byte 0xff at offset 0"]),
    ("simulate zeros.yaml", 2, ["zeros.yaml:1:1: the character U+0000"]),
    ("simulate huge.yaml", 4, ["huge.yaml: larger than 1,048,576 bytes"]),
    ("cells lsmt", 2, ["no built-in cell is called 'lsmt'; did you mean 'lstm'?"]),
    ("init lsmt", 2, ["no built-in cell is called 'lsmt'; did you mean 'lstm'?"]),
    # where results go
    ("simulate lstm --save missing/run.npz", 4, ["cannot write missing/run.npz", "missing does not exist"]),
    ("simulate lstm -o missing/run.json", 4, ["cannot write missing/run.json", "missing does not exist"]),
    ("simulate lstm -o folder.yaml", 4, ["cannot write folder.yaml"]),
    # compare
    ("compare", 2, ["Missing argument 'SPEC...'"]),
    ("compare lstm", 2, ["compare takes at least two specs, such as: gradcli compare lstm rnn"]),
    ("compare - -", 2, ["standard input (-) can be read once only"]),
    ("compare lstm lsmt", 2, ["no built-in cell is called 'lsmt'; did you mean 'lstm'?"]),
    ("compare lstm rnn --match nonsense", 2, ["'--match'", "'nonsense' is not"]),
    # commands
    ("simulte lstm", 2, ["No such command 'simulte'", "simulate"]),
    ("lstm", 2, ["No such command 'lstm'"]),
]  # fmt: skip


@pytest.mark.parametrize(("line", "code", "words"), WRONG, ids=[line for line, _, _ in WRONG])
def test_mistakes_on_the_command_line(line: str, code: int, words: list[str], tmp_path: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    for name, content in {
        "good": GOOD.encode(),
        "empty.yaml": b"",
        "binary.yaml": bytes(range(255, 0, -1)),
        "zeros.yaml": bytes(100),
        "huge.yaml": b"# " + b"x" * 2**20,
    }.items():
        (tmp_path / name).write_bytes(content)
    before = sorted(tmp_path.iterdir())
    finished = gradcli(*line.split())
    assert finished.code == code, finished
    assert says(finished, *words), finished.stderr
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read every file")
def test_a_file_without_permission(tmp_path: Path) -> None:
    (tmp_path / "secret.yaml").write_text(GOOD)
    (tmp_path / "secret.yaml").chmod(0)
    assert gradcli("simulate", "secret.yaml") == Finished(
        4, "", "error: secret.yaml: cannot be read: Permission denied\n"
    )


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("", 2, "<stdin>:1:1: expected a block of keys, beginning with `cell:`; got nothing"),
        ("lstm", 2, "<stdin>:1:1: expected a block of keys, beginning with `cell:`; got 'lstm'"),
        ("cell: lstm\nseq_len: [\n", 2, "<stdin>:"),
        ("cell: lstm\n\tseq_len: 3\n", 2, "<stdin>:2:1: a tab cannot stand here; indent with spaces"),
        (b"\xff\xfe", 4, "<stdin>: not a text in UTF-8"),
        (
            GOOD.replace("tanh", "tahn"),
            2,
            "<stdin>:4:12: cell.equations: no function is called tahn; did you mean 'tanh'?",
        ),
    ],
)
def test_bad_yaml_on_standard_input(text: str | bytes, code: int, words: str) -> None:
    finished = gradcli("simulate", "-", stdin=text)
    assert finished.code == code
    assert says(finished, words), finished.stderr


def test_mistakes_in_equations_from_an_option_are_placed_within_their_text() -> None:
    finished = gradcli("simulate", "-", "--set", "cell.equations=h[t] = tanh(h[t-1]) + x", stdin=GOOD)
    place = "--set cell.equations=h[t] = tanh(h[t-1]) + x: cell.equations: line 1, column 23"
    assert finished == Finished(2, "", f"{place}: x is the input: write x[t]\n1 mistake in {place.split(': ')[0]}\n")


def test_mistakes_of_a_file_and_of_options_are_told_together() -> None:
    finished = gradcli("simulate", "-", "-T", 0, "--set", "seed=x", stdin=GOOD.replace("tanh", "tahn"))
    assert says(finished, "no function is called tahn", "--seq-len: must be", "seed: expected", "3 mistakes in"), (
        finished
    )


# Work that is too large is refused at once, before any of it is done.


@pytest.mark.parametrize(
    "arguments",
    [
        ("lstm", "--hidden-size", 65536),
        ("lstm", "-T", 10_000_000, "--batch-size", 65536),
        ("lstm", "--trials", 65536, "--hidden-size", 4096),
        ("rnn", "--input-size", 65536, "--batch-size", 65536, "--set", "input.kind=sine"),
        ("rnn", "--input-size", 65536, "--batch-size", 65536, "--set", "input.kind=one_hot"),
        ("lstm", "--set", "num_layers=1000", "--hidden-size", 4096),
        ("rnn", "-T", 10_000_000, "--set", "loss.at=every", "--batch-size", 1000),
        ("rnn", "--set", "loss={kind: cross_entropy, classes: 1000000}", "--hidden-size", 9999),
    ],
)  # fmt: skip
def test_work_beyond_the_memory_is_refused(arguments: tuple[object, ...]) -> None:
    finished = gradcli("simulate", *arguments)
    assert finished.code == 5
    assert says(finished, "this run would need about", "4.0 GiB (half of what is free) is the limit", "smaller"), (
        finished
    )


def test_a_wide_cell_without_matrices_runs() -> None:
    wide = (
        "cell: {equations: 'h[t] = tanh(w * h[t-1] + b)'}\nhidden_size: 65536\nseq_len: 3\nbatch_size: 1\ntrials: 1\n"
    )
    finished = gradcli("simulate", "-", "--format", "json", stdin=wide)
    assert finished.code == 0
    assert finished.report()["runs"][0]["parameters"]["layer0.w"]["shape"] == [65536]


# Numbers that overflow are a finding, not a failure.


def simulate(equations: str, *arguments: object, fields: str = "", **sizes: int) -> Finished:
    lines = [f"{name}: {size}" for name, size in ({"hidden_size": 3, "input_size": 2, "seq_len": 8} | sizes).items()]
    spec = "\n".join(["cell:", "  equations: |", *(f"    {line}" for line in equations.split("\n")), *lines, fields])
    return gradcli("simulate", "-", *arguments, stdin=spec)


OVERFLOWS = {
    "huge weights": ("h[t] = W @ h[t-1]", "params: {W: 1e200}\nh_0: 1", "step 2, layer0", "h[t] = W @ h[t-1]"),
    "exp": ("f = exp(h[t-1])\nh[t] = 2 * f", "h_0: 800", "step 1, layer0", "f = exp(h[t-1])"),
    "log of a negative number": ("f = log(h[t-1])\nh[t] = f", "h_0: -1", "step 1, layer0", "f = log(h[t-1])"),
    "sqrt of a negative number": ("h[t] = sqrt(h[t-1]) - 1", "h_0: 0.25", "step 2, layer0", "h[t] = sqrt(h[t-1]) - 1"),
    "division by zero": ("h[t] = h[t-1] / (h[t-1] - h[t-2])", "h_0: 1", "step 2", "h[t] = h[t-1] / (h[t-1] - h[t-2])"),
    "beyond float32": ("h[t] = W @ h[t-1]", "dtype: float32\nparams: {W: 1e30}\nh_0: 1", "step 2", "h[t] = W @ h[t-1]"),
    "a constant beyond float32": ("h[t] = b * h[t-1] + 1e200", "dtype: float32", "step 1", "h[t] = b * h[t-1] + 1e200"),
}


@pytest.mark.parametrize("name", OVERFLOWS)
def test_an_overflow_is_a_verdict_that_names_step_layer_and_equation(name: str) -> None:
    equations, fields, *words = OVERFLOWS[name]
    finished = simulate(equations, fields=fields)
    assert finished.code == 0
    assert "NONFINITE" in finished.stdout
    assert all(word in finished.stdout for word in words), finished.stdout
    gate = simulate(equations, "--fail-on", "nonfinite", fields=fields)
    assert gate == Finished(3, finished.stdout, "gate failed: stdin is nonfinite\n")
    assert simulate(equations, "--fail-on", "vanishing,exploding", fields=fields).code == 0


def test_an_overflow_in_json_is_null_with_a_status() -> None:
    equations, fields, step, _ = OVERFLOWS["huge weights"]
    run = simulate(equations, "--format", "json", fields=fields).report()["runs"][0]
    assert run["verdict"]["kind"] == "nonfinite"
    assert step in run["verdict"]["reason"]
    assert run["verdict"]["rate_per_step"] is None
    assert run["status"] == "nonfinite"
    assert run["curve"] is None or set(run["curve"]["log10_norm"] or [None]) == {None}


@pytest.mark.parametrize("format_name", ["csv", "markdown", "table", "json"])
def test_an_overflow_is_told_in_every_format(format_name: str) -> None:
    equations, fields, *_ = OVERFLOWS["huge weights"]
    finished = simulate(equations, "--format", format_name, fields=fields)
    assert (finished.code, finished.stderr) == (0, "")
    assert finished.stdout.endswith("\n")
    assert "inf" not in finished.stdout.replace("infinity", "").replace("nonfinite", "").replace("finite", "").lower()


def test_an_overflow_can_be_saved(tmp_path: Path) -> None:
    equations, fields, *_ = OVERFLOWS["huge weights"]
    assert simulate(equations, "--save", "run.npz", fields=fields).code == 0
    with np.load(tmp_path / "run.npz") as saved:
        assert {"x", "param.layer0.W", "state.layer0.h"} <= set(saved)
        assert not any(name.startswith("grad_") for name in saved)


SINGULAR = {
    "sqrt at 0": ("h[t] = sqrt(h[t-1]) + 0 * b", "h_0: 0"),
    "sqrt of a bias of 0": ("h[t] = tanh(sqrt(b) + W @ h[t-1])", "init: {b: 0}"),
    "power at 0": ("h[t] = h[t-1] ** 0.5 + 0 * b", "h_0: 0"),
    "x ** x at 0": ("h[t] = h[t-1] ** h[t-1]", "h_0: 0"),
    "x ** x at 0, one step": ("h[t] = h[t-1] ** h[t-1]", "h_0: 0\nseq_len: 1"),
    "0 * infinity": ("f = sqrt(h[t-1])\nh[t] = W @ (f * h[t-1])", "h_0: 0"),
    "products of huge weights": ("h[t] = tanh(W @ h[t-1])", "params: {W: 1e308}\nh_0: 0"),
    "a huge target": ("h[t] = W @ h[t-1]", "loss: {kind: mse, target: 1e300}\nh_0: 1"),
    "huge steps of a parameter": ("h[t] = W @ h[t-1]", "learning_rate: 1e300\nh_0: 1"),
    "huge numbers that cancel": ("h[t] = b * h[t-1] * 1e300 * 1e-300", "h_0: 1e5"),
}


@pytest.mark.parametrize("name", SINGULAR)
@pytest.mark.parametrize("format_name", ["json", "table", "csv", "markdown"])
def test_gradients_that_are_no_numbers_are_told(name: str, format_name: str) -> None:
    equations, fields = SINGULAR[name]
    sizes = {"seq_len": 1} if "seq_len: 1" in fields else {}
    finished = simulate(equations, "--format", format_name, fields=fields.replace("\nseq_len: 1", ""), **sizes)
    assert (finished.code, finished.stderr) == (0, "")
    assert "nan" not in finished.stdout.lower()
    if format_name == "json":
        assert finished.report()["runs"][0]["verdict"]["kind"]


# Size: what takes long is refused, what is allowed is quick.


def chain(first: str, link: str, length: int, last: str = "") -> str:
    """Return equations each of which takes the one before: ``{i}`` is its number, ``{j}`` that of the one before."""
    return "\n".join([first, *(link.format(i=i, j=i - 1) for i in range(1, length)), last])


LONG = {
    "20,000 characters of one sum": "h[t] = " + " + ".join(["W_hh @ h[t-1]"] * 230),
    "200 equations in a chain": chain("f0 = h[t-1]", "f{i} = tanh(f{j}) * f{j}", 200, "h[t] = f199"),
    "200 products in a chain": chain("f0 = h[t-1]", "f{i} = tanh(W{i} @ f{j})", 200, "h[t] = f199"),
    "200 gates": "h[t] = " + " * ".join(f"sigmoid(W{i} @ h[t-1])" for i in range(200)),
    "59 brackets": "h[t] = " + "tanh(" * 59 + "h[t-1]" + ")" * 59,
    "a thousand states": chain("s0[t] = s0[t-1]", "s{i}[t] = s{i}[t-1]", 1000),
    "a chain of 500 states": chain("s0[t] = s0[t-1]", "s{i}[t] = s{j}[t-1]", 500),
    "a ring of 500 states": chain("s0[t] = s499[t-1]", "s{i}[t] = s{j}[t-1]", 500),
    "1,000 steps back": "h[t] = h[t-1000]",
    "a concatenation of 200": "h[t] = W @ [" + ", ".join(["h[t-1]"] * 200) + "]",
    "a hundred transposes": "h[t] = W" + ".T" * 101 + " @ h[t-1]",
}  # fmt: skip
TOO_LONG = {
    "3,000 brackets": ("h[t] = " + "(" * 3000 + "h[t-1]" + ")" * 3000, "brackets nested more than 60 deep"),
    "2,000 terms": ("h[t] = " + " + ".join(["h[t-1]"] * 2000), "this equation is too long"),
    "10,000 signs": ("h[t] = " + "-" * 10_000 + "h[t-1]", ""),
    "5,000 transposes": ("h[t] = W" + ".T" * 5000 + " @ h[t-1]", ""),
    "2,000 powers": ("h[t] = " + " ** ".join(["b"] * 2000), "this equation is too long"),
    "a tower of powers": ("h[t] = h[t-1] * 9**9**9**9**9", "these numbers give no finite result"),
    "3,000 calls": ("h[t] = a" + "(b)" * 3000, ""),
    "a name of 19,000 letters": ("h[t] = " + "a" * 19_000 + " b", "an operator is missing"),
    "5,000 names": ("h[t] = " + "a b " * 4500, "an operator is missing"),
    "19,000 spaces": ("h[t] = h[t-1]" + " " * 19_000 + "= = 3", ""),
    "9,000 open brackets": ("(\n" * 9000, "brackets nested more than 60 deep"),
    "20,001 characters": ("h[t] = h[t-1] # " + "x" * 20_000, "must have at most 20,000 characters"),
    "2,000 bad lines": ("f = = 3\n" * 2000, "and 1,950 more"),
    "15,000 digits": ("h[t] = h[t-1] * " + "9" * 15_000, ""),
}


@pytest.mark.parametrize("name", [*LONG, *TOO_LONG])
def test_long_equations_run_or_are_refused(name: str) -> None:
    equations, words = TOO_LONG.get(name, (LONG.get(name, ""), ""))
    finished = simulate(equations, "--format", "json", batch_size=1, trials=1)
    if name in LONG:
        assert finished.code == 0, finished.stderr[:1000]
        assert finished.report()["runs"]
    else:
        assert finished.code == 2
        assert says(finished, words), finished.stderr[:1000]


def test_no_more_than_fifty_mistakes_are_listed() -> None:
    finished = simulate("f = = 3\n" * 120)
    lines = finished.stderr.splitlines()
    assert len(lines) == 52
    assert lines[50:] == ["and 70 more", "120 mistakes in <stdin>"]


def test_a_deep_stack_runs() -> None:
    arguments = ("--set", "num_layers=300", "-T", 3, "--hidden-size", 2, "--batch-size", 1, "--trials", 1)
    finished = gradcli("simulate", "lstm", *arguments, "--format", "json")
    assert finished.code == 0, finished.stderr
    assert json.loads(finished.stdout)["runs"][0]["states"].keys() >= {"layer0.h", "layer299.c"}
