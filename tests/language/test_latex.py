"""The LaTeX of the formulas, read by a small strict parser of the mathematics that it may use."""

from __future__ import annotations

import re

import pytest
from path_graphs import built_in, graph_of, written

from gradcli import cells
from gradcli.language.functions import ELEMENTWISE
from gradcli.language.notation import Latex, Text

#: Commands with the number of arguments in braces that each takes; the others are symbols.
ARGUMENTS = {"frac": 2, "mathrm": 1, "operatorname": 1, "sqrt": 1, "text": 1}
SYMBOLS = {"partial", "odot", "tanh", "exp", "log", "sin", "cos", "sigma", "top", "quad", "lvert", "rvert", "cdot"} | {
    "Phi",
    "min",
    "ge",
    "le",
    *("alpha", "beta", "gamma", "delta", "zeta", "eta", "theta", "lambda", "nu"),
    ",",
    "_",
}
TOKEN = re.compile(r"\\([A-Za-z]+|.)|([{}_^&])|(\s+)|(.)")


def check(formula: str) -> None:
    """Raise AssertionError for what LaTeX would not compile, or would set otherwise than it reads."""
    tokens = [("\\" + t[0]) if t[0] else t[1] or t[3] for t in TOKEN.findall(formula) if not t[2]]
    rest = _group(tokens, closing=None)
    assert rest == [], f"a brace too many in {formula}"


def _group(tokens: list[str], closing: str | None) -> list[str]:
    scripts: set[str] = set()
    while tokens:
        token, *tokens = tokens
        if token == closing:
            return tokens
        assert token != "}", "a closing brace without an opening one"
        if token in "_^":
            assert token not in scripts, "two subscripts, or two superscripts"
            scripts.add(token)
            assert tokens, "a script of nothing"
            assert tokens[0] == "{", "scripts stand in braces"
            tokens = _group(tokens[1:], "}")
            continue
        scripts = set()
        if token == "{":
            tokens = _group(tokens, "}")
        elif token.startswith("\\"):
            name = token[1:]
            assert name in ARGUMENTS or name in SYMBOLS, f"unknown command {token}"
            for _ in range(ARGUMENTS.get(name, 0)):
                assert tokens, f"{token} lacks an argument"
                assert tokens[0] == "{", f"{token} lacks an argument"
                tokens = _group(tokens[1:], "}")
        else:
            assert token != "&", "an ampersand inside a formula"
            assert token.isascii(), "LaTeX wants ASCII here"
    assert closing is None, "a brace is not closed"
    return tokens


@pytest.mark.parametrize("name", cells.names())
def test_built_in_cells(name: str) -> None:
    graph = built_in(name)
    found = written(graph, Latex())
    # \mathrm{d} and \partial tell total and partial derivatives apart, as "in all" does.
    assert len(found) == len(written(graph, Text()))
    for block, terms in found.items():
        check(block.removesuffix(" in all"))
        for term in terms:
            check(term)


@pytest.mark.parametrize("function", ELEMENTWISE)
def test_functions(function: str) -> None:
    for terms in written(graph_of(f"h[t] = h[t-1] + {function}(1e-7 * {function}(W @ h[t-1] + b))"), Latex()).values():
        for term in terms:
            check(term)


def test_names_become_letters_with_subscripts() -> None:
    graph = graph_of(
        "gate_fast = sigmoid(W_hf @ h_slow[t-1] + b1)\n"
        "lambda_1 = u_alpha * gate_fast\n"
        "h_slow[t] = lambda_1 * h_slow[t-1] + W2.T @ h_slow[t-3]"
    )
    found = written(graph, Latex())
    assert found[r"\frac{\partial h_{\mathrm{slow},t}}{\partial h_{\mathrm{slow},t-1}}"] == [
        r"+ \mathrm{diag}(\lambda_{1,t})",
        r"+ \mathrm{diag}(h_{\mathrm{slow},t-1} \odot u_{\alpha} \odot \mathrm{gate}_{\mathrm{fast},t}"
        r" \odot (1 - \mathrm{gate}_{\mathrm{fast},t})) \, W_{hf}",
    ]
    assert found[r"\frac{\partial h_{\mathrm{slow},t}}{\partial h_{\mathrm{slow},t-3}}"] == [r"+ W_{2}^{\top}"]


def test_outer_and_scalar_products_are_of_one_thing_each() -> None:
    n = Latex()
    assert n.outer("k_{t}", "v_{t}") == r"k_{t} \, {v_{t}}^{\top}"
    assert n.outer(r"v_{t} - a_{t}", r"W \, k_{t}") == r"(v_{t} - a_{t}) \, {(W \, k_{t})}^{\top}"
    assert n.dot(r"\mathrm{f}(a + b)", "k") == r"{\mathrm{f}(a + b)}^{\top} k"


def test_the_cell_state_of_the_lstm() -> None:
    found = written(built_in("lstm"), Latex())
    assert found[r"\frac{\mathrm{d} c_{t}}{\mathrm{d} c_{t-1}} in all"] == [
        r"+ \mathrm{diag}(f_{t})",
        r"+ \mathrm{diag}(g_{t} \odot i_{t} \odot (1 - i_{t})) \, W_{hi} \, H",
        r"+ \mathrm{diag}(c_{t-1} \odot f_{t} \odot (1 - f_{t})) \, W_{hf} \, H",
        r"+ \mathrm{diag}(i_{t} \odot (1 - {g_{t}}^{2})) \, W_{hg} \, H",
    ]


@pytest.mark.parametrize(
    "wrong", ["{a", "a}", "a_b", "a_{b}_{c}", r"\frac{a}", r"\unknown", "a & b", "a^", r"\mathrm{a_b}" + "}"]
)
def test_the_parser_refuses(wrong: str) -> None:
    with pytest.raises(AssertionError):
        check(wrong)
