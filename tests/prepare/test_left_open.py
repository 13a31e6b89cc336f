"""A cell of one's own: what nothing says how to draw is told, in one line, and drawn as it always was."""

from __future__ import annotations

import pytest
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
