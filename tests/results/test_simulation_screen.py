"""What a person reads of a simulation: it fits, it has no holes, and what it says is so."""

from __future__ import annotations

import re
from typing import Any

import pytest
from measured import SCALAR, SMALL, measured, screen, table_of

from gradcli.formats import render
from gradcli.results.simulate import simulation

ONE = {"hidden_size": 1, "trials": 1, "batch_size": 1}
CLIPS = [{"norm": 1.0}, {"value": 1.0}, {"step_norm": 1.0}, {"step_value": 0.1}]
EXPLODING = {"activation": "identity", "init": {"W_hh": {"orthogonal": {"gain": 2.0}}}, "seq_len": 30}
DEAD = {"activation": "relu", "init": {"b_h": -100.0}, "seq_len": 30}
OVERFLOW = {"activation": "identity", "init": {"W_hh": {"identity": {"gain": 1e200}}}}
ROOT = {"name": "root", "equations": "h[t] = sqrt(relu(W @ h[t-1]))"}

CASES: dict[str, dict[str, Any]] = {
    "lstm": {"cell": "lstm"},
    "three layers": {"cell": "lstm", "num_layers": 3},
    "thirty layers": {"cell": "rnn", "num_layers": 30, "loss": {"kind": "cross_entropy"}},
    "one number": {**ONE, "seq_len": 5},
    "one step": {"seq_len": 1},
    "two steps": {"seq_len": 2},
    "far": {**ONE, "seq_len": 20_000},
    "exploding": {**EXPLODING, "clip": CLIPS},
    "beyond floats": {"cell": SCALAR, **ONE, "seq_len": 2000, "params": {"a": 1e9, "b": 0.0}, "clip": CLIPS},
    "transient": {"cell": SCALAR, **ONE, "params": {"a": 1.0, "b": 1.0}, "thresholds": {"vanishing": 0.5}},
    "dead": {**DEAD, "clip": CLIPS},
    "overflow": OVERFLOW,
    "no derivative": {"cell": ROOT},
    "classes": {"cell": "gru", "input": {"kind": "one_hot"}, "loss": {"kind": "cross_entropy", "at": "every"}},
    "single precision": {"dtype": "float32", "loss": {"kind": "projection", "at": [1, 2, 3, 5, 9]}},
    "no clipping": {"clip": []},
}


def report_of(cell: Any = "rnn", **fields: object) -> Any:
    return simulation(measured(cell, **{**SMALL, **fields})).report.in_full()


@pytest.mark.parametrize("name", CASES)
def test_it_fits_the_screen_and_has_no_holes(name: str) -> None:
    report = report_of(**CASES[name])
    for width in (80, 40):
        text = table_of(report, width)
        assert max(map(len, text.splitlines())) <= width
        assert not re.search(r"\b(nan|inf|None)\b", text), text
    whole = table_of(report, None)
    markdown = render(report, "markdown", width=None, color=False, unicode=True)
    assert not re.search(r"\b(nan|inf|None)\b|no room", whole + markdown)


def test_the_verdict_comes_right_after_the_title() -> None:
    title, verdict, *_ = screen(80, "gru", **SMALL, num_layers=2, dtype="float32").split("\n\n")
    assert title == (
        "gru   Gated recurrent unit, reset after the product\n"
        "      hidden 5, input 3, 2 layers, T = 12, float32   3 trials x 2 sequences\n"
        "      loss mse at the last step"
    )
    assert verdict.startswith(("REACHES THE BEGINNING   ", "VANISHING   "))


@pytest.mark.parametrize(
    ("at", "words"),
    [
        ("last", "at the last step"),
        ("every", "at every step"),
        ([7], "at step 7"),
        ([1, 3], "at steps 1, 3"),
        ([1, 2, 3, 4, 5], "at steps 1, 2, 3, 4, ..."),
    ],
)
def test_the_title_says_where_the_loss_is(at: Any, words: str) -> None:
    assert f"1 trial x 1 sequence   loss sum {words}\n" in screen(None, **ONE, loss={"kind": "sum", "at": at})


def test_one_sequence_has_no_quantiles() -> None:
    assert "10-90 %" in screen(None, **SMALL)
    assert "10-90 %" not in screen(None, **{**SMALL, "trials": 1, "batch_size": 1})


def rows(text: str) -> dict[str, list[str]]:
    """Return the rows of the curve, by distance."""
    return {line.split()[0]: line.split() for line in text.splitlines() if re.match(r" *[\d,]+ +-?\d", line)}


def test_numbers_of_the_curve_can_be_read() -> None:
    text = screen(None, SCALAR, **ONE, seq_len=20, params={"a": 2.0, "b": 0.0}, loss={"kind": "sum"})
    found = {distance: row[-1] if ">" not in row else row[-3] for distance, row in rows(text).items()}
    assert found["0"] == "0.5"
    assert found["3"] == "4"
    assert found["7"] == "64"
    assert found["10"] == "512"
    assert found["20"] == "5.2e5"
    assert re.search(r"5\.2e5  > 1e3$", text, re.MULTILINE)


def test_far_distances_have_commas_in_words_but_not_in_columns_that_scripts_may_cut_out() -> None:
    text = screen(None, **ONE, seq_len=20_000)
    assert "at 20,000 steps" in text
    assert "20000" in rows(text)


def test_zeros_are_shown_once() -> None:
    text = screen(None, **{**SMALL, **DEAD})
    assert list(rows(text)) == ["0", "1", "30"]
    assert "0 exactly" in text


def test_each_state_has_its_own_line() -> None:
    text = screen(None, "lstm", **SMALL)
    assert re.search(r"^state +log10 mean norm at 1 +at 12 +rate a step +half-life +horizon$", text, re.MULTILINE)
    assert re.search(r"^c +-?\d", text, re.MULTILINE)
    assert re.search(r"^h +-?\d", text, re.MULTILINE)
    assert "norm at 1 " not in screen(None, "rnn", **SMALL)
    assert re.search(r"^layer1\.h ", screen(None, "rnn", **SMALL, num_layers=2), re.MULTILINE)


def test_a_state_s_line_is_its_own_curve() -> None:
    # c keeps half of itself, and nothing of it reaches h but through c: h itself is forgotten.
    cell = {"equations": "c[t] = 0.5 * c[t-1] + x[t]\nh[t] = c[t]"}
    text = screen(None, cell, **{**SMALL, "input_size": 5, "seq_len": 20, "loss": {"kind": "sum"}})
    (line,) = (line for line in text.splitlines() if line.startswith("c  "))
    assert line.split() == ["c", "0.05", "-5.67", "0.5", "1", "10"]
    (line,) = (line for line in text.splitlines() if line.startswith("h  "))
    assert line.split()[-1] == "0"


def test_many_layers_are_not_all_shown() -> None:
    text = screen(None, **SMALL, num_layers=30)
    assert "layer0.h" in text
    assert "layer29.h" in text
    assert "layer15.h" not in text
    assert "and 18 more between them, in the JSON" in text
    assert "24 more layers between them" in text


def test_parameters_of_layers_stand_side_by_side() -> None:
    text = screen(None, **SMALL, num_layers=2, loss={"kind": "cross_entropy"})
    assert re.search(r"^parameter +layer0 +layer1$", text, re.MULTILINE)
    assert re.search(r"^W_hh +\S+ +\S+$", text, re.MULTILINE)
    assert re.search(r"^readout\.W_hy \S+   readout\.b_y \S+$", text, re.MULTILINE)


# Clipping, in words.


def last_words(**fields: Any) -> str:
    """Return what stands below the table of clipping."""
    text = screen(None, **fields)
    group = next(part for part in text.split("\n\n") if part.startswith("clipping"))
    return group.strip().splitlines()[-1]


LINEAR: dict[str, Any] = {"cell": SCALAR, **ONE, "seq_len": 20, "loss": {"kind": "mse", "target": 1.0}}


def test_clipping_that_is_not_reached() -> None:
    words = last_words(**LINEAR, params={"a": 1.0, "b": 0.0}, clip=[{"norm": 1e6}])
    assert words == "No threshold is reached: clipping changes nothing here."


def test_clipping_cannot_help_what_vanishes() -> None:
    fields = {**LINEAR, "params": {"a": 0.5, "b": 0.0}}
    words = "Clipping cannot bring back what has vanished{}: it only makes gradients smaller."
    assert last_words(**fields, clip=[{"norm": 0.1}]) == words.format("")
    unreached = "No threshold is reached: clipping changes nothing here. " + words.format(" in any case")
    assert last_words(**fields, clip=[{"norm": 1e3}]) == unreached


def test_clipping_keeps_an_exploding_step_in_bounds() -> None:
    # L = (h - 1)^2 / 2 with h = b (2^20 - 1): the step of 0.01 times the gradient is far too long.
    words = last_words(**LINEAR, params={"a": 2.0, "b": 0.0}, clip=[{"norm": 1e-4}, {"step_norm": 1e9}])
    assert words == (
        "Clipping after BPTT leaves the curve as it is: it limits the step, not how the gradient flows. The unclipped"
        " step overshoots: the loss goes from 0.5 to 6.045e19. Clipping helps: with norm 1e-4 it is 0.00118."
    )


def test_clipping_may_be_too_weak_to_help() -> None:
    words = last_words(**{**LINEAR, "seq_len": 2}, params={"a": 1e200, "b": 0.0}, clip=[{"norm": 1e199}])
    assert words.endswith("the loss, 0.5 before, is not finite after it, and clipping does not prevent it.")


def test_where_the_step_is_fine_nothing_is_said_of_it() -> None:
    words = last_words(**LINEAR, params={"a": 1.0, "b": 0.0}, learning_rate=1e-3, clip=CLIPS)
    assert words.startswith("After BPTT clipping leaves the curve as it is; inside it (step_norm, step_value) it caps")
    assert words.endswith("each step.")


def test_no_gradient_is_nothing_to_clip() -> None:
    words = last_words(**{**SMALL, **DEAD}, clip=CLIPS)
    assert words == "All parameter gradients are exactly zero: there is nothing to clip."


def test_a_scale_beyond_floats_is_still_a_number() -> None:
    text = screen(None, **{**LINEAR, "seq_len": 5000, "params": {"a": 10.0, "b": 0.0}, "loss": {"kind": "sum"}})
    (line,) = (line for line in text.splitlines() if line.startswith("norm 1 "))
    assert line.split()[2:8] == ["10^4999.0", "1", "10^-4999.0", "1", "100", "%"]
