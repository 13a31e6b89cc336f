"""The checks are worth something: any one derivative wrong by 0.1 % makes the comparison with stored runs fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from test_stored_runs import RELATIVE_ERROR, STORED, largest_error

from gradcli.engine import evaluate, loss, parameters, weights
from gradcli.language import derivative, functions
from gradcli.language.across import ACROSS, Across
from gradcli.language.cell import parse_cell
from gradcli.language.functions import ELEMENTWISE, FUNCTIONS, Function
from gradcli.language.graph import Graph, Node


@pytest.fixture(autouse=True)
def _the_numpy_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mistakes are planted in what NumPy calls; tests/compiled plants those of the interpreter's functions."""
    monkeypatch.setenv("GRADCLI_ENGINE", "numpy")


WRONG = 1.001

#: Folded away when the graph is built, so that no rule of its own is ever asked for; see the last test.
FOLDED = {"identity"}
#: Second derivatives, which back-propagation never asks for: held against differences instead.
SECOND = {"_nonpositive"}
#: The rules of `slopes`: the operation, and which argument the derivative is taken by.
RULES = [("sum", 0), ("sum", 1), ("mul", 0), ("mul", 1), ("div", 0), ("div", 1), ("pow", 0), ("pow", 1)]


def some_cell_notices() -> bool:
    """Tell whether any stored run is missed by more than the tests allow."""
    return any(not largest_error(path) < RELATIVE_ERROR for path in STORED)


def with_wrong_derivative(function: Function) -> Function:
    """Return an elementwise function whose derivative is 0.1 % too large.

    Those that equations cannot call are themselves derivatives, or parts of some: there it is the value that is wrong.
    """
    if function.name in ELEMENTWISE:
        rule = function.derivative
        assert rule is not None
        return replace(function, derivative=lambda g, y, a: g.mul(g.number(WRONG), rule(g, y, a)))
    right = function.evaluate

    def evaluate_wrongly(a: Any, out: Any) -> None:
        right(a, out)
        out *= WRONG

    return replace(function, evaluate=evaluate_wrongly)


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name not in FOLDED | SECOND])
def test_the_derivative_of_every_function_is_watched(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(functions.FUNCTIONS, name, with_wrong_derivative(FUNCTIONS[name]))
    assert some_cell_notices()


def value_of(node: Node, argument: Node, points: Any) -> Any:
    """Return the value of an expression of one argument at some points."""
    values = {argument: points.reshape(1, 1, -1, 1)}
    evaluate.evaluate([node], values, {})
    return np.broadcast_to(values[node], (1, 1, points.size, 1)).ravel()


def worst_slope(name: str) -> float:
    """Return the largest relative error of a function's derivative against differences, over points off its kinks."""
    points = np.array([0.07, 0.4, 0.93, 1.3, 2.9, 3.4])
    points = np.concatenate([-points[::-1], points]) if name not in ("log", "sqrt", "_root") else points
    graph = Graph()
    argument = graph.input()
    y = graph.node("call", (argument,), name)
    found = value_of(functions.derivative(graph, y), argument, points)
    step = 1e-4
    near, far = (
        (value_of(y, argument, points + k * step) - value_of(y, argument, points - k * step)) / (2 * k * step)
        for k in (1, 2)
    )
    expected = (4 * near - far) / 3  # the error is of the fourth order in the step
    # Where the function is nearly flat, a difference has few digits of its slope.
    scale = np.maximum(np.abs(expected), 1e-3 * np.abs(expected).max())
    return float(np.max(np.abs(found - expected) / scale))


@pytest.mark.parametrize("name", [name for name, function in FUNCTIONS.items() if function.derivative is not None])
def test_derivatives_are_those_of_differences(name: str) -> None:
    assert worst_slope(name) < 1e-7


@pytest.mark.parametrize("name", sorted(SECOND))
def test_second_derivatives_are_watched(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(functions.FUNCTIONS, name, with_wrong_derivative(FUNCTIONS[name]))
    assert max(worst_slope(user) for user, function in FUNCTIONS.items() if function.derivative is not None) > 1e-4


@pytest.mark.parametrize(("op", "position"), RULES)
def test_the_derivative_of_every_operation_is_watched(op: str, position: int, monkeypatch: pytest.MonkeyPatch) -> None:
    right = derivative.slopes

    def wrong(graph: Graph, node: Node) -> list[tuple[Node, Node]]:
        found = right(graph, node)
        if node.op == op and position < len(found):
            arg, slope = found[position]
            found[position] = (arg, graph.mul(graph.number(WRONG), slope))
        return found

    monkeypatch.setattr(derivative, "slopes", wrong)
    monkeypatch.setattr(evaluate, "slopes", wrong)
    assert some_cell_notices()


@pytest.mark.parametrize(
    ("place", "name"),
    [
        (parameters.LayerParameters, "stacked"),
        (weights, "summed_products"),
        (evaluate, "outer"),
        (loss.SquaredError, "_gradient"),
        (loss.Linear, "_gradient"),
        (loss.CrossEntropy, "_gradient"),
        (loss.CrossEntropy, "_error"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_products_and_losses_are_watched(place: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right: Callable[..., Any] = getattr(place, name)
    monkeypatch.setattr(place, name, lambda *arguments: WRONG * right(*arguments))
    assert some_cell_notices()


@pytest.mark.parametrize("part", ["all", "mean", "along y"])
@pytest.mark.parametrize("name", ACROSS)
def test_the_jacobian_of_every_function_across_is_watched(
    name: str, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = Across.apply_jacobian

    def wrong(self: Across, axis: int, y: Any, slope: Any, v: Any, out: Any) -> None:
        extra = {"all": None, "mean": v.mean(axis, keepdims=True), "along y": y * (y * v).mean(axis, keepdims=True)}[
            part
        ]
        right(self, axis, y, slope, v, out)
        if self.name == name:
            out += (WRONG - 1) * (out if extra is None else extra)

    monkeypatch.setattr(Across, "apply_jacobian", wrong)
    assert some_cell_notices()


def test_without_a_planted_error_nothing_is_noticed() -> None:
    assert not some_cell_notices()


@pytest.mark.parametrize("name", sorted(FOLDED))
def test_a_function_without_a_rule_leaves_no_trace_in_the_graph(name: str) -> None:
    cell = parse_cell(f"h[t] = {name}(w * h[t-1]) + w * {name}(x[t])").at_sizes(2, 2)
    plain = parse_cell("h[t] = w * h[t-1] + w * x[t]").at_sizes(2, 2)
    assert [(n.op, n.data) for n in cell.graph._nodes.values()] == [(n.op, n.data) for n in plain.graph._nodes.values()]
