"""Formulas as MathML: well-formed, with the children that each element takes, and saying what the equations say."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from path_graphs import built_in, graph_of, jacobian

from gradcli import cells
from gradcli.language.cell import parse_cell
from gradcli.language.equation import EquationWriter
from gradcli.language.functions import ELEMENTWISE
from gradcli.language.mathml import _CALLS, MathML
from gradcli.language.notation import HELPERS, Text
from gradcli.language.routes import PathGraph

#: How many children an element takes; None for a row of any, 0 for one that holds text or nothing.
CHILDREN = {"math": None, "mrow": None, "msqrt": None, "msub": 2, "msup": 2, "mfrac": 2} | dict.fromkeys(
    ("mi", "mn", "mo", "mspace"), 0
)


def read(formula: str) -> ElementTree.Element:
    """Return a formula as a tree; raise AssertionError where a browser would set it otherwise than it reads."""
    tree = ElementTree.fromstring(f"<math>{formula}</math>")
    for element in tree.iter():
        assert element.tag in CHILDREN, element.tag
        wanted = CHILDREN[element.tag]
        assert wanted is None or len(element) == wanted, ElementTree.tostring(element)
        assert element.tag in ("mi", "mn", "mo") or not (element.text or "").strip(), "text outside of a leaf"
        assert not (element.tail or "").strip(), "text between elements"
    return tree


def said(formula: str) -> str:
    """Return the characters of a formula in their order, without invisible ones and spaces."""
    return re.sub(r"[\s\u2061]", "", "".join(read(formula).itertext()))


def equations(graph: PathGraph, notation: Text | None = None) -> list[tuple[str, str]]:
    writer = EquationWriter(graph.cell, notation or MathML())
    return [writer.sides(equation) for equation in graph.cell.equations]


@pytest.mark.parametrize("name", cells.names())
def test_built_in_cells(name: str) -> None:
    graph = built_in(name)
    for left, right in equations(graph):
        assert said(left)
        assert said(right)
    found = jacobian(graph, MathML())
    assert [len(block.terms) for block in found.blocks] == [len(block.terms) for block in jacobian(graph).blocks]
    for block in found.blocks:
        read(block.name)
        for term in block.terms:
            read(MathML().signed_sum([(term.sign, term.text)]))
    for symbol, formula in found.definitions:
        read(symbol)
        read(formula)


@pytest.mark.parametrize("function", ELEMENTWISE)
def test_functions(function: str) -> None:
    graph = graph_of(f"h[t] = h[t-1] + {function}(1e-7 * {function}(W @ h[t-1] + b))")
    for block in jacobian(graph, MathML()).blocks:
        for term in block.terms:
            read(term.text)


def test_every_function_of_derivatives_has_its_form() -> None:
    assert set(HELPERS) <= set(_CALLS)


@pytest.mark.parametrize(
    ("right", "shown"),
    [
        ("a - (b - c) + h[t-1]", "a−(b−c)+ht−1"),
        ("-(a + b) * h[t-1]", "(−(a+b))⊙ht−1"),
        ("(a + b) / (c * h[t-1])", "a+bc⊙ht−1"),
        ("(a * h[t-1]) ** 2", "(a⊙ht−1)2"),
        ("(U - U.T) @ h[t-1]", "(U−U⊤)ht−1"),
        ("a * (U @ h[t-1])", "a⊙(Uht−1)"),
        ("U @ (a * h[t-1])", "U(a⊙ht−1)"),
        ("0.5 * h[t-1] + 1e-7", "0.5ht−1+1⋅10−7"),
        ("k * sigmoid(h[t-3])", "kσ(ht−3)"),
        ("V @ [h[t-1], x[t]]", "V[ht−1;xt]"),
        ("layer_norm(h[t-1], 1e-3)", "layer_norm(ht−1,0.001)"),
        ("tanh(phi(W_xi @ x[t])) + h[t-1]", "tanh(relu(Wxixt))+ht−1"),
    ],
)
def test_an_equation_is_shown_as_it_was_written(right: str, shown: str) -> None:
    settings = {"constants": {"k": 0.5}} if "k *" in right else {}
    activation = "relu" if "phi" in right else None
    cell = parse_cell(f"h[t] = {right}", activation=activation, **settings).at_sizes(3, 3)
    [(left, written)] = equations(PathGraph(cell))
    assert (said(left), said(written)) == ("ht", shown)


def test_an_activation_stands_for_every_tanh() -> None:
    cell = parse_cell("h[t] = tanh(W @ h[t-1])", activation="softsign", replaces_usual=True).at_sizes(3, 3)
    assert said(equations(PathGraph(cell))[0][1]) == "softsign(Wht−1)"


def test_what_is_the_same_at_every_step_bears_none() -> None:
    graph = graph_of("A = -exp(W_log)\ns = A @ h[t-1]\nh[t] = s")
    assert [said(left) for left, _ in equations(graph)] == ["A", "st", "ht"]


def test_two_letters_of_a_subscript_are_no_greek_letter() -> None:
    assert said(MathML().parameter("W_xi")) == "Wxi"
    assert said(MathML().parameter("u_alpha")) == "uα"


def test_equations_in_text_are_those_of_the_page_on_the_cell() -> None:
    assert equations(built_in("rnn"), Text()) == [("h[t]", "tanh(W_xh x[t] + W_hh h[t-1] + b_h)")]


def test_outer_and_scalar_products_are_of_one_thing_each() -> None:
    n = MathML()
    k, v = (n.variable(name, 0, is_state=True) for name in "kv")
    assert said(n.outer(v, k)) == "vtkt⊤"
    assert said(n.outer(n.signed_sum([(1, v), (-1, k)]), k)) == "(vt−kt)kt⊤"
    assert said(n.dot(n.times.join(["<mi>W</mi>", k]), v)) == "(Wkt)⊤vt"


@pytest.mark.parametrize("wrong", ["<msub><mi>a</mi></msub>", "<mi>a</mi>b", "<mrow>a</mrow>", "<mover/>"])
def test_the_reader_refuses(wrong: str) -> None:
    with pytest.raises(AssertionError):
        read(wrong)
