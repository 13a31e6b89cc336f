"""A cell of one's own: what nothing says how to draw is told, in one line, and drawn as it always was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from in_process import gradcli

DECAY = 'cell={equations: "h[t] = decay * h[t-1] + tanh(W_xh @ x[t] + b_h)"'
SMALL = ("-T", 4, "--hidden-size", 3, "--trials", 1, "--batch-size", 2)


def notes(cell: str, *sets: str) -> list[str]:
    texts = (cell, *sets)
    done = gradcli("simulate", "rnn", *SMALL, *(part for text in texts for part in ("--set", text)), "--format", "json")
    assert done.code == 0, done.stderr
    found: list[str] = done.report()["runs"][0]["notes"]
    return found


def test_all_that_is_left_open_is_named_with_the_law_and_the_way_out() -> None:
    assert notes(DECAY + "}") == [
        "no init is given for decay, W_xh, b_h: drawn by the law torch; a decay or a scale usually starts elsewhere,"
        " as in init: {decay: 0.9}"
    ]


#: Names that tell, in a cell that reads them; the law that the note names, and what it must give: by the papers.
TOLD = {
    "A_log": ("h[t] = exp(-exp(A_log) / 99) * h[t-1] + W_xh @ x[t]", (3, 16), lambda p: np.exp(p)[0], range(1, 17)),
    "b_dt": ("h[t] = exp(-softplus(b_dt)) * h[t-1] + W_xh @ x[t]", (400,), lambda p: np.log1p(np.exp(p)), (1e-3, 0.1)),
    "dt_log": ("h[t] = exp(-exp(dt_log)) * h[t-1] + W_xh @ x[t]", (400,), np.exp, (1e-3, 0.1)),
    "D": ("h[t] = 0.5 * h[t-1] + D * (W_xh @ x[t])", (400,), np.asarray, (1.0, 1.0)),
    "nu_log": ("h[t] = exp(-exp(nu_log)) * h[t-1] + W_xh @ x[t]", (400,), lambda p: np.exp(-np.exp(p)), (0.9, 0.999)),
    "w_log": ("h[t] = exp(-exp(w_log)) * h[t-1] + W_xh @ x[t]", (400,), np.asarray, (-6.0, -1.0)),
}


@pytest.mark.parametrize("name", TOLD)
def test_a_name_that_tells_has_its_papers_start_in_the_note_and_it_can_be_pasted(name: str, tmp_path: Path) -> None:
    equation, shape, function, expected = TOLD[name]
    matrix = len(shape) == 2
    text = equation.replace("h[t]", "S[t]").replace("h[t-1]", "S[t-1]").replace("W_xh @ x[t]", "outer(W_xh @ x[t], k)")
    cell: dict[str, Any] = {"equations": text + "\nh[t] = S[t] @ k" if matrix else equation}
    if matrix:
        cell |= {"constants": {"k": [1.0] * shape[1]}, "shapes": {name: list(shape)}}
    spec = {"cell": cell, "hidden_size": shape[0], "input_size": 2, "trials": 1, "batch_size": 2, "seq_len": 3}

    def run(**fields: Any) -> tuple[list[str], Any]:
        file, saved = tmp_path / "spec.yaml", tmp_path / "run.npz"
        file.write_text(yaml.safe_dump({**spec, **fields}), encoding="utf-8")
        done = gradcli("simulate", file, "--format", "json", "--save", saved)
        assert done.code == 0, done.stderr
        return done.report()["runs"][0]["notes"], np.load(saved)[f"param.layer0.{name}"][0]

    (note,) = (note for note in run()[0] if "drawn by the law torch" in note)
    before, _, block = note.partition("; papers start what they call so with init: ")
    assert name in before
    init = yaml.safe_load(block)
    assert list(init) == [name]
    notes_after, drawn = run(init=init)
    assert not any(name in note for note in notes_after)
    found = function(drawn)
    if matrix:
        np.testing.assert_allclose(found, list(expected), rtol=1e-12)
    else:
        low, high = expected
        assert low - 1e-12 <= found.min() <= low + 0.02 * abs(low)
        assert high - 0.02 * abs(high) <= found.max() <= high + 1e-12


def test_a_name_that_does_not_tell_gets_no_papers_start() -> None:
    for name in ("beta", "gamma", "g", "u", "lam", "rho"):
        (note,) = notes(f'cell={{equations: "h[t] = {name} * h[t-1] + W_xh @ x[t]"}}')
        assert note.endswith(f"usually starts elsewhere, as in init: {{{name}: 0.9}}")
    for name in ("b", "bf", "b_f", "b1", "bias_f"):
        (note,) = notes(f'cell={{equations: "h[t] = tanh({name} + W_xh @ x[t])"}}')
        assert note.endswith(f"{name}, W_xh: drawn by the law torch")


def test_the_weights_of_a_sum_are_no_decay() -> None:
    for gate in ("dot(w, x[t]) + b", "dot(x[t], w) + dot(w_h, h[t-1])", "sum(w * x[t])"):
        (note,) = notes(f'cell={{equations: "h[t] = sigmoid({gate}) * h[t-1] + W_xh @ x[t]"}}')
        assert note.endswith("W_xh: drawn by the law torch")
        (note,) = notes(f'cell={{equations: "h[t] = sigmoid({gate}) * u * h[t-1] + W_xh @ x[t]"}}')
        assert note.endswith("usually starts elsewhere, as in init: {u: 0.9}")


@pytest.mark.parametrize(
    ("cell", "sets", "names"),
    [
        (DECAY + ", init: {decay: 0.9}}", (), "W_xh, b_h"),
        (DECAY + "}", ("init.decay=0.9",), "W_xh, b_h"),
        (DECAY + "}", ("init.decay=0.9", "params.b_h=0"), "W_xh"),
        (DECAY + ", init: {decay: 0.9}}", ("init={'W*': orthogonal, b_h: zeros}",), None),
        (DECAY + ', init: {"*": torch}}', (), None),
        (DECAY + "}", ("init.layer0.*=torch", "num_layers=2"), "decay, W_xh, b_h"),
    ],
)
def test_what_is_given_is_not_named(cell: str, sets: tuple[str, ...], names: str | None) -> None:
    found = notes(cell, *sets)
    assert [note.partition(":")[0] for note in found] == ([] if names is None else [f"no init is given for {names}"])


def test_a_readout_and_a_built_in_cell_say_all_of_theirs() -> None:
    assert notes("loss={kind: cross_entropy, classes: 3}") == []
    assert notes("cell=lru") == []


@pytest.mark.parametrize("command", ["simulate", "jacobian", "gates", "contributions", "paths", "compare"])
def test_every_report_has_the_line(command: str) -> None:
    asked = ("rnn", "gru") if command == "compare" else ("rnn",)
    done = gradcli(command, *asked, *SMALL, "--set", DECAY + "}")
    assert done.stdout.count("no init is given for decay, W_xh, b_h: drawn by the law torch") == 1, done.stderr
