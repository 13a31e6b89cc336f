"""The Jacobian of one step, derived from the equations and written in their names."""

from __future__ import annotations

import pytest
from path_graphs import built_in, graph_of, jacobian, written

from gradcli.language.formula import MOST_TERMS
from gradcli.language.functions import ELEMENTWISE, FUNCTIONS
from gradcli.language.notation import HELPERS

LSTM_GATES = [
    "+ diag(g i (1 - i)) W_hi",
    "+ diag(c[t-1] f (1 - f)) W_hf",
    "+ diag(i (1 - g^2)) W_hg",
]
DERIVED = {
    "lstm": {
        "dc[t]/dc[t-1]": ["+ diag(f)"],
        "dc[t]/dh[t-1]": LSTM_GATES,
        "dh[t]/dc[t-1]": ["+ diag(o (1 - tanh(c[t])^2) f)"],
        "dh[t]/dh[t-1]": [
            "+ diag(tanh(c[t]) o (1 - o)) W_ho",
            "+ diag(o (1 - tanh(c[t])^2) g i (1 - i)) W_hi",
            "+ diag(o (1 - tanh(c[t])^2) c[t-1] f (1 - f)) W_hf",
            "+ diag(o (1 - tanh(c[t])^2) i (1 - g^2)) W_hg",
        ],
        "dc[t]/dc[t-1] in all": ["+ diag(f)", *(f"{gate} H" for gate in LSTM_GATES)],
    },
    "gru": {
        "dh[t]/dh[t-1]": [
            "+ diag(z)",
            "+ diag((h[t-1] - n) z (1 - z)) W_hz",
            "+ diag((1 - z) (W_hn h[t-1] + b_hn) (1 - n^2) r (1 - r)) W_hr",
            "+ diag((1 - z) r (1 - n^2)) W_hn",
        ]
    },
    "gru-textbook": {
        "dh[t]/dh[t-1]": [
            "+ diag(1 - z)",
            "+ diag((n - h[t-1]) z (1 - z)) W_hz",
            "+ diag(z (1 - n^2)) W_hn diag(r)",
            "+ diag(z (1 - n^2)) W_hn diag(h[t-1] r (1 - r)) W_hr",
        ]
    },
    "rnn": {"dh[t]/dh[t-1]": ["+ diag(1 - h[t]^2) W_hh"]},
    "leaky-rnn": {"dh[t]/dh[t-1]": ["+ 0.9 I", "+ 0.1 diag(1 - tanh(a)^2) W_hh"]},
    "residual-rnn": {"dh[t]/dh[t-1]": ["+ I", "+ diag(1 - tanh(a)^2) W_hh"]},
    "rnn-lags": {
        "dh[t]/dh[t-1]": ["+ diag(1 - h[t]^2) W_hh"],
        "dh[t]/dh[t-2]": ["+ diag(1 - h[t]^2) W_hh2"],
    },
    "antisymmetric-rnn": {
        "dh[t]/dh[t-1]": [
            "+ I",
            "- 0.0001 diag(1 - tanh(a)^2)",
            "+ 0.01 diag(1 - tanh(a)^2) (W_hh - W_hh.T)",
        ]
    },
    "janet": {
        "dh[t]/dh[t-1]": [
            "+ diag(f)",
            "+ diag(h[t-1] f (1 - f)) W_hf",
            "- diag(g sigmoid(s - 1) i) W_hf",
            "+ diag(i (1 - g^2)) W_hg",
        ]
    },
    "batch-norm-rnn": {"dh[t]/dh[t-1]": ["+ diag(g_h (1 - h[t]^2)) J_batch_norm(W_hh h[t-1]) W_hh"]},
    "indrnn": {"dh[t]/dh[t-1]": ["+ diag(u [a > 0])"]},
    "mingru": {"dh[t]/dh[t-1]": ["+ diag(1 - z)"]},
    "minlstm": {"dh[t]/dh[t-1]": ["+ diag(f / (f + i))"]},
}


@pytest.mark.parametrize("name", DERIVED)
def test_formulas_of_built_in_cells(name: str) -> None:
    assert written(built_in(name)) == DERIVED[name]


def test_peephole_lstm() -> None:
    found = written(built_in("lstm-peephole"))
    assert found["dc[t]/dc[t-1]"] == [
        "+ diag(f)",
        "+ diag(g w_ci i (1 - i))",
        "+ diag(c[t-1] w_cf f (1 - f))",
    ]
    assert found["dc[t]/dh[t-1]"] == LSTM_GATES
    # h[t-1] takes c[t-1] in two ways, so that nothing is abbreviated.
    through_h = ["diag(o[t-1] (1 - tanh(c[t-1])^2))", "diag(tanh(c[t-1]) w_co o[t-1] (1 - o[t-1]))"]
    assert found["dc[t]/dc[t-1] in all"][0] == "+ diag(f)"
    assert set(found["dc[t]/dc[t-1] in all"][1:]) == {
        *found["dc[t]/dc[t-1]"][1:],
        *(f"{gate} {tail}" for gate in LSTM_GATES for tail in through_h),
    }


def test_abbreviations_are_explained() -> None:
    assert jacobian(built_in("lstm")).definitions == (("H", "diag(o[t-1] (1 - tanh(c[t-1])^2))"),)
    assert jacobian(built_in("leaky-rnn")).definitions == (("a", "W_xh x[t] + W_hh h[t-1] + b_h"),)
    assert jacobian(built_in("rnn")).definitions == ()


def test_an_abbreviation_in_another_is_explained_too() -> None:
    graph = graph_of("h[t] = h[t-1] + tanh(U @ tanh(V @ h[t-1] + b) + d)")
    found = jacobian(graph)
    assert found.blocks[0].terms[1].text == "diag(1 - tanh(a)^2) U diag(1 - tanh(a1)^2) V"
    assert found.definitions == (("a", "U tanh(a1) + d"), ("a1", "V h[t-1] + b"))


def test_a_change_that_several_routes_through_a_matrix_share_has_a_symbol() -> None:
    found = jacobian(built_in("fast-weights"))
    total = next(block for block in found.blocks if block.is_total)
    assert [term.text for term in total.terms] == ["0.95 dA[t-1]", "0.5 outer(H, h[t-1])", "outer(0.5 h[t-1], H)"]
    assert dict(found.definitions)["H"].endswith(" dA[t-1] s[t-1]")


def test_a_matrix_that_is_read_is_a_product() -> None:
    graph = graph_of("A[t] = 0.5 * A[t-1] + outer(h[t-1], W @ x[t])\nh[t] = A[t] @ tanh(V @ h[t-1])")
    terms = written(graph)["dh[t]/dh[t-1]"]
    assert "+ A[t] diag(1 - tanh(V h[t-1])^2) V dh[t-1]" in terms


def test_names_of_the_equations_are_not_used_again() -> None:
    graph = graph_of("h[t] = 0.5 * h[t-1] + tanh(a * (H @ h[t-1] + b) + a1) + sin(V @ h[t-1] + a)")
    symbols = [symbol for symbol, _ in jacobian(graph).definitions]
    assert symbols == ["a2", "a3"]


@pytest.mark.parametrize(
    ("equations", "terms"),
    [
        ("h[t] = W_f @ [h[t-1], x[t]]", ["+ W_f[:, h[t-1]]"]),
        ("h[t] = W.T @ h[t-1]", ["+ W.T"]),
        ("h[t] = U @ (V @ h[t-1])", ["+ U V"]),
        ("h[t] = U @ tanh(V @ h[t-1])", ["+ U diag(1 - tanh(V h[t-1])^2) V"]),
        ("h[t] = -(U @ h[t-1])", ["- U"]),
        ("h[t] = softmax(h[t-1])", ["+ J_softmax(h[t-1])"]),
        ("h[t] = layer_norm(2 * h[t-1], 0.5)", ["+ 2 J_layer_norm(2 h[t-1], 0.5)"]),
        ("h[t] = h[t-1] ** 2", ["+ 2 diag(h[t-1])"]),
        ("h[t] = h[t-1] ** 3 / 3", ["+ diag(h[t-1]^2)"]),
        ("h[t] = u * relu(h[t-1]) / v", ["+ diag(u (1 / v) [h[t-1] > 0])"]),
        ("h[t] = h[t-1] * (2 - h[t-1])", ["+ diag(2 - 2 h[t-1])"]),
        ("h[t] = u / (h[t-1] + 1)", ["- diag(h[t] / (1 + h[t-1]))"]),
        ("p = u * v\nh[t] = p * (q * h[t-1])", ["+ diag(p q)"]),
        ("u = W @ h[t-1]\nh[t] = h[t-1] - u * u", ["+ I", "- 2 diag(u) W"]),
    ],
)
def test_forms_of_equations(equations: str, terms: list[str]) -> None:
    assert written(graph_of(equations))["dh[t]/dh[t-1]"] == terms


def test_a_named_product_is_a_variable_of_its_own() -> None:
    graph = graph_of("u = W @ h[t-1]\nh[t] = tanh(u)")
    assert [route.vertices for route in graph.routes("h", "h", 1)] == [(("h", 0), ("u", 0), ("h", 1))]
    assert written(graph) == {"dh[t]/dh[t-1]": ["+ diag(1 - h[t]^2) W"]}


def test_a_state_that_copies_a_gate() -> None:
    graph = graph_of("n = tanh(W @ h[t-1])\nh[t] = n")
    assert written(graph) == {"dh[t]/dh[t-1]": ["+ diag(1 - n^2) W"]}


def test_a_scalar_parameter_stands_before_the_matrix() -> None:
    graph = graph_of("h[t] = h[t-1] + alpha * (W @ h[t-1])", shapes={"alpha": []})
    assert written(graph) == {"dh[t]/dh[t-1]": ["+ I", "+ alpha W"]}


@pytest.mark.parametrize("function", ELEMENTWISE)
def test_every_function_can_be_written(function: str) -> None:
    graph = graph_of(f"h[t] = h[t-1] + {function}(1.5 * {function}(W @ h[t-1] + b))")
    terms = written(graph)["dh[t]/dh[t-1]"]
    assert len(terms) == 2
    assert "_" not in "".join(terms).replace("W_", "").replace("leaky_relu", "").replace("hard_", "")


def test_every_function_of_a_derivative_has_a_form() -> None:
    assert set(HELPERS) == {name for name in FUNCTIONS if name.startswith("_")}


def test_a_block_of_very_many_routes_is_counted_only() -> None:
    lines = ["a0 = tanh(W @ h[t-1])"]
    lines += [f"a{i} = a{i - 1} * tanh(V{i} @ a{i - 1})" for i in range(1, 8)]
    [block] = jacobian(graph_of("\n".join([*lines, "h[t] = a7"]))).blocks
    assert block.count == 2**7 > MOST_TERMS
    assert block.terms == ()


def test_routes_are_counted_as_they_are_listed() -> None:
    graph = built_in("lstm")
    for end in graph.states:
        for distance in range(1, 4):
            routes = list(graph.routes("h", end, distance))
            assert len(set(routes)) == len(routes) == graph.count("h", end, distance)
            assert {route.distance for route in routes} == {distance}
            assert {route.vertices[0] for route in routes} == {("h", 0)}
            assert {route.vertices[-1] for route in routes} == {(end, distance)}


def test_an_initial_state_is_the_end() -> None:
    """c_0 is not o_0 * tanh of anything: with no step before it, only direct routes lead to c."""
    graph = built_in("lstm")
    assert graph.count("h", "c", 1) == 5
    assert graph.count("h", "c", 1, steps=1) == len(list(graph.routes("h", "c", 1, steps=1))) == 1
