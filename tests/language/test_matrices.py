"""Numbers, vectors and matrices: what the equations make of each name, and what they say where that cannot be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from gradcli.language.cell import CellError, parse_cell
from gradcli.language.graph import reachable
from gradcli.language.sizes import size_at

Shapes = Mapping[str, tuple[int, ...]]

LINEAR_ATTENTION = """
q    = W_q @ x[t]
k    = W_k @ x[t]
v    = W_v @ x[t]
S[t] = S[t-1] + outer(v, k)
h[t] = S[t] @ q
"""


def shapes_of(equations: str, **settings: Any) -> tuple[Shapes, Shapes]:
    """Return the shapes of states and of parameters at hidden_size 4 and input_size 3."""
    shapes = parse_cell(equations, **settings).at_sizes(4, 3).shapes
    return shapes.of_states, shapes.parameters


def mistakes(equations: str, **settings: Any) -> str:
    with pytest.raises(CellError) as caught:
        parse_cell(equations, **settings).at_sizes(4, 3)
    return str(caught.value)


def test_a_state_is_a_matrix_where_an_outer_product_is_added() -> None:
    states, parameters = shapes_of(LINEAR_ATTENTION)
    assert states == {"S": (4, 4), "h": (4,)}
    assert parameters == {"W_q": (4, 3), "W_k": (4, 3), "W_v": (4, 3)}


def test_declared_sizes_of_a_state_settle_those_of_parameters() -> None:
    states, parameters = shapes_of(LINEAR_ATTENTION, shapes={"S": ["hidden_size", 6]})
    assert states["S"] == (4, 6)
    assert (parameters["W_v"], parameters["W_k"], parameters["W_q"]) == ((4, 3), (6, 3), (6, 3))


def test_what_is_added_to_a_number_that_changes_is_a_number() -> None:
    gate = "f = sigmoid(dot(w, x[t]) + b)\nS[t] = f * S[t-1] + outer(W @ x[t], W @ x[t])\nh[t] = S[t] @ p"
    assert shapes_of(gate)[1] == {"w": (3,), "b": (), "W": (4, 3), "p": (4,)}


def test_what_is_added_to_a_constant_is_not() -> None:
    assert shapes_of("h[t] = (1 - a) * h[t-1] + W @ x[t]")[1]["a"] == (4,)


def test_a_parameter_beside_a_matrix_is_one_entry_by_entry() -> None:
    decay = "dt = softplus(W_t @ x[t])\nS[t] = exp(diag(dt) @ A) * S[t-1] + outer(dt, W_b @ x[t])\nh[t] = S[t] @ c"
    states, parameters = shapes_of(decay, shapes={"S": ["hidden_size", 5]})
    assert (states["S"], parameters["A"], parameters["W_b"], parameters["c"]) == ((4, 5), (4, 5), (5, 3), (5,))


@pytest.mark.parametrize(
    "read",
    [
        "S[t] @ q + mean(x[t]) + 0.5 * h[t-1]",
        "mean(x[t]) + 0.5 * h[t-1] + S[t] @ q",
        "S[t] @ q + (norm(S[t]) + h[t-1])",
        "norm(S[t]) - (b - S[t] @ q)",
    ],
)
def test_a_number_beside_a_product_with_a_matrix_makes_no_numbers(read: str) -> None:
    states, parameters = shapes_of(f"S[t] = S[t-1] + outer(W @ x[t], W @ x[t])\nh[t] = {read}")
    assert (states, parameters["q"], parameters.get("b", (4,))) == ({"S": (4, 4), "h": (4,)}, (4,), (4,))


@pytest.mark.parametrize("divided", ["outer(k, k) / dot(k, k)", "k @ k.T / dot(k, k)"])
def test_an_outer_product_may_be_divided_by_a_number(divided: str) -> None:
    """The usual projection, I - k k^T / |k|^2: a matrix made of vectors, with which a product costs no third size."""
    rule = f"k = W @ x[t]\nS[t] = S[t-1] @ (I - {divided}) + outer(W_v @ x[t], k)\nh[t] = S[t] @ k"
    plain = rule.replace(divided, "1 / dot(k, k) * outer(k, k)")
    assert _drawn(rule) == _drawn(plain)


def test_of_two_whole_parameter_matrices_one_may_be_transposed() -> None:
    assert shapes_of("h[t] = tanh(U @ V.T @ h[t-1] + W @ x[t])", shapes={"U": [4, 2]})[1]["V"] == (4, 2)


def test_numbers_make_states_of_numbers() -> None:
    running = "m[t] = max(0.9 * m[t-1], norm(x[t]))\nh[t] = m[t] * tanh(W @ x[t])"
    assert shapes_of(running, shapes={"m": []})[0] == {"m": (), "h": (4,)}


def test_an_outer_product_may_be_written_with_a_transpose() -> None:
    printed = LINEAR_ATTENTION.replace("outer(v, k)", "v @ k.T")
    assert _drawn(printed) == _drawn(LINEAR_ATTENTION)


def test_a_parameter_that_is_a_vector_elsewhere_may_stand_left_of_a_transpose() -> None:
    written = "k = W @ x[t]\nS[t] = S[t-1] + w @ k.T\nh[t] = S[t] @ k"
    assert shapes_of(f"{written} + w")[1]["w"] == (4,)
    assert shapes_of(written, shapes={"w": ["hidden_size"]})[1]["w"] == (4,)
    with pytest.raises(CellError, match=r"2:21: vectors are columns, so that k needs no \.T: write w @ k"):
        parse_cell(written)


def test_a_delta_rule_has_no_product_of_matrices() -> None:
    """S (I - b k k^T) is S - (b S k) k^T: nothing in the graph has three sizes, and one outer product is enough."""
    rule = "k = W @ x[t]\nS[t] = S[t-1] @ (I - b * outer(k, k)) + outer(W_v @ x[t], k)\nh[t] = S[t] @ k"
    cell = parse_cell(rule, shapes={"b": []}).at_sizes(4, 3)
    nodes = reachable(cell.states.values())
    matrices = [node for node in nodes if len(cell.shapes.of_nodes.get(node, ())) == 2]
    assert {cell.shapes.of_nodes[node] for node in matrices} == {(4, 4)}
    assert sum(node.op == "view" and node.data[2] == (1, 0) for node in nodes) == 1


def _drawn(equations: str) -> list[tuple[str, tuple[int, ...]]]:
    cell = parse_cell(equations).at_sizes(4, 3)
    return sorted((node.op, cell.shapes.of_nodes.get(node, ())) for node in reachable(cell.states.values()))


@pytest.mark.parametrize(
    ("whole", "of_vectors"),
    [
        ("I - stop(outer(k, k))", "I - outer(stop(k), stop(k))"),
        ("I - stop(b * (k @ k.T))", "I - outer(stop(b * k), stop(k))"),
        ("stop(I - diag(k))", "I - diag(stop(k))"),
    ],
)
def test_a_stopped_matrix_is_made_of_stopped_vectors(whole: str, of_vectors: str) -> None:
    rule = "k = W @ x[t]\nb = sum(k)\nS[t] = S[t-1] @ ({}) + outer(k, k)\nh[t] = S[t] @ k"
    assert _drawn(rule.format(whole)) == _drawn(rule.format(of_vectors))


READ = "q = W_q @ x[t]\nk = W_k @ x[t]\nv = W_v @ x[t]\n"
#: By a slip: what is said of it, in a cell in which S is plainly a matrix.
SLIPS = {
    "v": "4:8: v is a vector and 0.9 * S[t-1] a matrix: write diag(v) @ (0.9 * S[t-1]) for its rows",
    "v * S[t-1]": "4:37: v is a vector and S[t-1] a matrix",
    "v * k": "4:8: v * k is a vector and 0.9 * S[t-1] a matrix",
    "outer(S[t-1], k)": "4:43: outer takes two vectors: outer(a, b), and this is a matrix",
    "dot(S[t-1], k)": "4:41: dot takes two vectors: dot(a, b), and this is a matrix",
    "softmax(S[t-1])": "4:37: softmax takes a vector, and this is a matrix",
    "layer_norm(S[t-1])": "4:37: layer_norm takes a vector, and this is a matrix",
    "cumsum(S[t-1])": "4:44: cumsum takes a vector: cumsum(a), and this is a matrix",
    "max(S[t-1], v)": "4:37: v is a vector and S[t-1] a matrix",
    "where(v > 0, S[t-1], 0)": "4:37: v is a vector and S[t-1] a matrix",
    "[S[t-1], v]": "4:38: a concatenation is one of vectors and numbers, and this is a matrix",
    "S[t-1][0]": "4:37: an entry is one of a vector, and this is a matrix",
    "v * k.T": "4:41: k.T is no factor of '*': for a matrix write v @ k.T, or outer(v, k)",
    "v @ S[t-1]": "4:37: v is a vector, given on line 3, and would be a row left of '@': write S[t-1].T @ v",
}


@pytest.mark.parametrize("read", ["S[t] @ q", "tanh(W_h @ h[t-1] + norm(S[t]))"])
@pytest.mark.parametrize("slip", SLIPS)
def test_a_vector_among_matrices_is_the_mistake_and_the_only_one(slip: str, read: str) -> None:
    said = mistakes(f"{READ}S[t] = 0.9 * S[t-1] + outer(v, k) + {slip}\nh[t] = {read}")
    assert "\n" not in said
    assert said.replace("\0", "line 3").startswith(SLIPS[slip])


@pytest.mark.parametrize(
    ("read", "said"),
    [
        ("S[t][0]", "5:8: an entry is one of a vector, and this is a matrix"),
        ("diag(S[t])", "5:13: diag takes a vector: diag(a), and this is a matrix"),
        ("v @ S[t]", "5:8: v is a vector, given on line 3, and would be a row left of '@': write S[t].T @ v"),
    ],
)
@pytest.mark.parametrize("given", ["outer(v, k)", "v @ k.T", "M"])
def test_a_matrix_that_is_read_as_a_vector_is_the_mistake(given: str, read: str, said: str) -> None:
    equations = f"{READ}S[t] = 0.9 * S[t-1] + {given}\nh[t] = {read}"
    if given == "M":
        equations = equations.replace("q = W_q @ x[t]\n", "").replace("S[t] =", "M = outer(v, k)\nS[t] =", 1)
        said = said.replace("line 3", "line 2")
    assert mistakes(equations).startswith(said)


def test_an_outer_product_among_vectors_is_the_mistake() -> None:
    said = mistakes("h[t] = tanh(W @ x[t] + W_h @ h[t-1] + outer(x[t], x[t]))\no[t] = W_o @ h[t]")
    assert said.startswith("1:13: W @ x[t] is a vector and outer(x[t], x[t]) a matrix")
    assert "\n" not in said
    said = mistakes("f = sigmoid(W_f @ x[t])\nh[t] = f * h[t-1] + W @ x[t]\no[t] = h[t] @ f")
    assert said.startswith("3:8: h[t] is a vector and cannot stand left of '@': write h[t] * f for a gate")
    assert "\n" not in said


@pytest.mark.parametrize(
    "mistaken", ["M = k \N{CIRCLED TIMES} k", "M = I - k @ k", "M = outer(k, k) @ (", "M = diag(A, k)"]
)
@pytest.mark.parametrize(
    "used", ["S[t-1] @ M + M", "M @ S[t-1] + outer(k, k)", "S[t-1] @ (I - k @ k.T * M) + outer(k, k)"]
)
def test_what_a_mistake_leaves_unknown_is_no_mistake_elsewhere(mistaken: str, used: str) -> None:
    said = mistakes(f"k = W @ x[t]\n{mistaken}\nS[t] = {used}\nh[t] = S[t] @ k")
    assert said.startswith("2:")
    assert "\n" not in said


@pytest.mark.parametrize(
    ("equations", "said"),
    [
        (
            "M = tanh(A) + outer(x[t], x[t])\nh[t] = A + h[t-1] + M @ x[t]",
            "2:8: A stands beside a vector here, and beside a matrix on line 1, entry by entry: give one of them "
            "another name",
        ),
        (
            "k = W @ x[t]\nS[t] = k + A\nR[t] = S[t-1] * R[t-1] + outer(k, k)\nh[t] = S[t] @ k + S[t-1] @ k + R[t] @ k",
            "2:12: A is a matrix here, as what it is part of is one, and stands beside a vector: a matrix of two "
            "vectors is outer(a, b)",
        ),
        ("h[t] = (h[t-1] + I) @ x[t]", "1:9: h[t-1] is a vector and I a matrix: write diag(h[t-1]) @ I for its rows"),
    ],
)
def test_a_parameter_or_identity_beside_a_vector_and_a_matrix_is_told(equations: str, said: str) -> None:
    assert mistakes(equations).replace("\0", "line 1").startswith(said)


MISTAKES = {
    "S[t] = S[t-1] + outer(x[t], x[t])\nh[t] = S[t] * (W @ x[t])": (
        "2:8: W @ x[t] is a vector and S[t] a matrix: write diag(W @ x[t]) @ S[t] for its rows, "
        "S[t] @ diag(W @ x[t]) for its columns, or outer(a, b) for a matrix of two vectors; a gate that "
        "is one number is made by dot(w, x[t]), and one that is a parameter by shapes: {NAME: []}"
    ),
    "S[t] = W @ S[t-1] + outer(x[t], x[t])\nh[t] = S[t] @ x[t]": (
        "1:8: a product of two whole matrices is not offered, as one step would need a matrix for every entry; one of "
        "them may be made of outer(a, b), diag(a) and I, or put W where a vector is: outer(v, W @ k), S @ (W @ q)"
    ),
    "h[t] = outer(x[t], outer(x[t], x[t])) @ h[t-1]": (
        "1:20: outer takes two vectors: outer(a, b), and this is a matrix"
    ),
    "h[t] = max(h[t-1], 0, 1)": ("1:8: max takes two values, entry by entry, max(a, b), or the entries of one, max(a)"),
    "h[t] = where(h[t-1] == 0, 1, h[t-1])": (
        "1:14: where compares two values by <, <=, > or >=, not ==: numbers that are computed are hardly ever equal to"
        " the last digit"
    ),
    'h[t] = spike(W @ x[t], "arctan", 2)': (
        "1:24: the surrogate of a spike is one of atan, fast_sigmoid, sigmoid, triangle, rectangle, in quotation "
        "marks; did you mean 'atan'?"
    ),
    'h[t] = spike(W @ x[t], "atan", 0)': "1:32: the steepness of a surrogate is a number or constant above 0",
    "h[t] = h[t-1] * sum(h[t-1][0:9])": "1:21: h[t-1] has 4 entries, fewer than the slice [0:9] takes",
    "h[t] = h[t-1][::2]": "1:8: a slice is written a[0:16]: from the first entry to the one behind the last",
    "I[t] = W @ x[t]": "1:1: I is the identity matrix; choose another name",
    "h[t] = amax(h[t-1])": (
        "1:8: no function is called amax; it is called max here: max(a, b), or max(a) over the entries"
    ),
    "h[t] = detach(h[t-1])": "1:8: no function is called detach; a gradient is stopped by stop(a)",
    "h[t] = torch.outer(h[t-1], x[t]) @ x[t]": "1:8: write outer(...), with nothing before it",
}


@pytest.mark.parametrize("equations", MISTAKES, ids=range(len(MISTAKES)))
def test_a_mistake_is_told_where_it_stands(equations: str) -> None:
    assert mistakes(equations).split("\n")[0] == MISTAKES[equations]


@pytest.mark.parametrize(
    ("dimension", "size"),
    [(3, 3), ("hidden_size", 12), ("hidden_size / 4", 3), ("2 * hidden_size * input_size / 8", 15)],
)
def test_sizes_are_products_and_quotients(dimension: int | str, size: int) -> None:
    assert size_at(dimension, {"hidden_size": 12, "input_size": 5}) == size


@pytest.mark.parametrize("dimension", ["hidden", "hidden_size ** 2", "__import__('os')", "1.5", "hidden_size / 0", ""])
def test_anything_else_is_no_size(dimension: str) -> None:
    with pytest.raises(ValueError, match="a size is a whole number"):
        size_at(dimension, {"hidden_size": 12, "input_size": 5})


def test_a_size_is_whole_where_it_is_used() -> None:
    with pytest.raises(ValueError, match="hidden_size / 5 is no whole number where hidden_size is 12"):
        size_at("hidden_size / 5", {"hidden_size": 12, "input_size": 5})


def test_functions_that_came_later_may_be_names_in_older_cells() -> None:
    assert shapes_of("max = W @ x[t]\nh[t] = sum * h[t-1] + max")[1] == {"W": (4, 3), "sum": (4,)}
