"""What `gradcli paths` prints: for people on screens of any width, for programs, and as LaTeX."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from measured import SMALL, loaded, table_of

from gradcli.commands.paths import paths
from gradcli.errors import UsageError
from gradcli.formats import FORMATS, render
from gradcli.results.model import Report

ONE = {"hidden_size": 1, "input_size": 1, "batch_size": 1, "trials": 1, "input": "zeros"}
HEADER = "label,layer,section,start,end,distance,route,log10_norm,log10_relative,projection,cosine"


def report(cell: Any = "lstm", distance: int = 1, *, fields: Any = SMALL, **choices: Any) -> Report:
    return paths(loaded(cell, **fields), distance=distance, **choices).report


def text(form: str, found: Report) -> str:
    return render(found, form, width=None, color=False, unicode=True)


def data(found: Report) -> dict[str, Any]:
    whole: dict[str, Any] = json.loads(text("json", found))
    return whole


def test_the_four_paths_of_the_cell_state_stand_in_the_table() -> None:
    screen = table_of(report().in_full(), width=100)
    assert (
        """\
The same in all (earlier states as functions of each other)
                 formula                          route back
dc[t]/dc[t-1] =  diag(f)                          c -> c
                 + diag(g i (1 - i)) W_hi H       c -> i -> h -> c
                 + diag(c[t-1] f (1 - f)) W_hf H  c -> f -> h -> c
                 + diag(i (1 - g^2)) W_hg H       c -> g -> h -> c
where H = diag(o[t-1] (1 - tanh(c[t-1])^2))
"""
        in screen
    )


def test_routes_over_more_steps_bear_the_steps() -> None:
    screen = table_of(report(distance=2, fields=SMALL | {"seq_len": 3}, end="h"), width=100)
    assert "All 19 routes from h[3] back to h[1]\n" in screen
    for route in (
        "h[3] -> o -> h[2] -> o -> h[1]",
        "h[3] -> c -> c[2] -> f -> h[1]",
        "h[3] -> c -> f -> h[2] -> c -> i -> h[1]",
    ):
        assert f"\n{route}  " in screen
    assert "vectors add up, norms do not" in screen


def test_very_many_routes_are_shown_by_their_last_step() -> None:
    screen = table_of(report(distance=10), width=100)
    assert "routes from h[12] back to c[2], by their last step" in screen
    assert "\nc -> g -> h -> c  " in screen
    assert "routes that end so, whatever came before" in screen


@pytest.mark.parametrize("width", [80, 40])
@pytest.mark.parametrize(("cell", "distance"), [("lstm", 1), ("lstm-peephole", 2), ("gru", 10), ("rnn-lags", 3)])
def test_nothing_is_wider_than_the_screen(cell: str, distance: int, width: int) -> None:
    lines = table_of(report(cell, distance), width=width).splitlines()
    assert max(map(len, lines)) <= width
    assert any("all together" in line for line in lines)


@pytest.mark.parametrize(
    ("cell", "more", "sentence"),
    [
        ("rnn", {}, "None: no step takes h over entry by entry"),
        (
            "residual-rnn",
            {"init": {"W_hh": 1e-6}},
            "h -> h at every step, I. It carries the gradient of h: 12 steps back",
        ),
        (
            "lstm",
            {"init": {"b_f": -3.0}},
            "c -> c at every step, diag(f). It does not carry the gradient of c: 12 steps",
        ),
        ("leaky-rnn", {"seq_len": 60}, "steps back only: 60 steps back its norm is"),
        ("indrnn", {"init": {"b_h": -100.0}}, "but the gradient of h is exactly zero"),
    ],
)
def test_a_sentence_says_whether_the_direct_route_carries(cell: str, more: Any, sentence: str) -> None:
    assert sentence in table_of(report(cell, fields=SMALL | more), width=None)


def test_other_routes_may_work_against_the_direct_one() -> None:
    cell = {"name": "against", "equations": "h[t] = h[t-1] - 0.5 * (W @ h[t-1])"}
    fields = ONE | {"seq_len": 3, "init": {"W": 1.0}, "h_0": [1.0]}
    # The whole falls by 1/2 a step, and the direct route does not fall.
    assert "3 steps back its projection on the whole is 8, so that other routes work against it" in table_of(
        report(cell, fields=fields), width=None
    )


def test_what_is_to_be_known_of_layers_and_losses() -> None:
    fields = SMALL | {"num_layers": 2, "loss": {"kind": "sum", "at": [4, 7]}}
    screen = table_of(report("rnn", fields=fields, layer="layer0"), width=None)
    assert "layer 0 of 0 to 1: routes inside it" in screen
    assert "the loss at step 7 alone" in screen
    assert "the loss counts last at step 7: distances are counted from there" in screen
    assert "from h[7] back to h[6]" in screen


def test_an_overflow_is_the_verdict_and_the_formulas_stay() -> None:
    cell = {"name": "square", "equations": "h[t] = h[t-1] ** 2 + 2"}
    found = report(cell, fields=SMALL | {"seq_len": 40})
    screen = table_of(found, width=None)
    assert "NONFINITE   the forward pass overflows at step" in screen
    assert "2 diag(h[t-1])" in screen
    run = data(found)["runs"][0]
    assert run["status"] == run["verdict"]["kind"] == "nonfinite"
    assert run["routes"] == run["direct"] == []


def test_json() -> None:
    found = data(report(distance=2))
    assert {key: found[key] for key in ("schema_version", "command")} == {"schema_version": 1, "command": "paths"}
    [run] = found["runs"]
    assert (run["label"], run["cell"], run["status"], run["layer"], run["step"]) == ("lstm", "lstm", "ok", 0, 12)
    assert run["spec"]["hidden_size"] == SMALL["hidden_size"]
    total = next(block for block in run["jacobian"]["blocks"] if block["derivative"] == "total")
    assert (total["of"], total["by"], total["lag"], total["count"]) == ("c", "c", 1, 4)
    assert total["terms"][2]["formula"] == "diag(c[t-1] f (1 - f)) W_hf H"
    assert total["terms"][2]["latex"] == r"\mathrm{diag}(c_{t-1} \odot f_{t} \odot (1 - f_{t})) \, W_{hf} \, H"
    assert run["jacobian"]["definitions"] == {"H": "diag(o[t-1] (1 - tanh(c[t-1])^2))"}
    assert [(table["start"], table["end"], table["count"]) for table in run["routes"]] == [
        ("h", "c", 24),
        ("h", "h", 19),
    ]
    for table in run["routes"]:
        assert len(table["shares"]) == table["count"]
        assert sum(share["projection"] for share in table["shares"]) == pytest.approx(1.0, rel=1e-12)
        assert table["residual"] < 1e-12
    twice = next(s for s in run["routes"][0]["shares"] if s["route"] == "h[12] -> c -> c[11] -> c[10]")
    assert twice["formula"] == "diag(o (1 - tanh(c[t])^2) f f[t-1])"
    [direct] = run["direct"]
    assert direct["distance"] == list(range(13))
    assert {len(direct[key]) for key in ("log10_direct", "log10_total", "projection", "cosine")} == {13}


def test_csv() -> None:
    lines = text("csv", report()).splitlines()
    assert lines[0] == HEADER
    rows = list(csv.DictReader(io.StringIO("\n".join(lines))))
    assert [row["section"] for row in rows] == ["routes"] * 9 + ["direct"] * 13
    shares = [float(row["projection"]) for row in rows if row["section"] == "routes" and row["end"] == "h"]
    assert sum(shares) == pytest.approx(1.0, rel=1e-12)


def test_latex_is_an_environment_that_says_where_each_term_comes_from() -> None:
    found = report("leaky-rnn", formulas_only=True)
    assert text("latex", found) == (
        "\\begin{align*}\n"
        "  \\frac{\\partial h_{t}}{\\partial h_{t-1}} &= 0.9 \\, I \\\\  % h -> h\n"
        "  &\\quad + 0.1 \\, \\mathrm{diag}(1 - {\\tanh(a_{t})}^{2}) \\, W_{hh} \\\\  % h -> W_hh -> h\n"
        "  a_{t} &= W_{xh} \\, x_{t} + W_{hh} \\, h_{t-1} + b_{h}\n"
        "\\end{align*}\n"
    )


def test_a_direct_route_that_most_sequences_have_switched_off_says_0() -> None:
    """The maximum of slstm's stabiliser: m[t-1] counts in few units and sequences."""
    screen = table_of(report("slstm", fields={**SMALL, "seq_len": 8, "batch_size": 4}), width=None)
    assert "not finite" not in screen


def test_a_cell_without_a_way_back() -> None:
    found = report({"name": "forward", "equations": "h[t] = tanh(W_xh @ x[t])"})
    screen = table_of(found, width=None)
    assert "No state depends on an earlier one" in screen
    assert "No route leads from h[12] back to h[11]: the gradient there is exactly zero." in screen
    assert text("latex", found).startswith("% No state")


def test_formulas_alone_take_no_run() -> None:
    found = report({"name": "square", "equations": "h[t] = h[t-1] ** 2 + 2"}, formulas_only=True)
    assert "overflows" not in text("table", found)
    assert data(found)["runs"][0]["routes"] == []


def test_latex_is_no_format_of_reports_without_formulas() -> None:
    assert "latex" not in FORMATS
    with pytest.raises(UsageError, match="'simulate' has no LaTeX form"):
        text("latex", Report("simulate", [], {}))


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"start": "cc"}, "--from: no state is called 'cc'; states: c, h"),
        ({"end": "f"}, "--to: no state is called 'f'; states: c, h"),
        ({"layer": "3"}, "--layer: no layer is called '3'; layers: layer0"),
        ({"distance": 13}, "take a distance from 1 to 12"),
    ],
)
def test_what_there_is_not(choices: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        report(**choices)
