"""The elementwise functions: the value, the derivative, and the largest slope. The only place that knows calculus.

A derivative is an expression in the function's value y and its argument a, built from the same nodes as the equations.
Where PyTorch fixes a detail (the slope at a kink, softplus's linear branch), it is followed, so that gradients are the
same numbers. Functions whose name starts with an underscore serve derivatives and cannot be written in equations.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from gradcli.frozen import frozen
from gradcli.language.graph import Graph, Node

Array = np.ndarray[Any, Any]
Derivative = Callable[[Graph, Node, Node], Node]

LEAKY_SLOPE = 0.01
SELU_ALPHA = 1.6732632423543772
SELU_SCALE = 1.0507009873554805
SOFTPLUS_LINEAR_FROM = 20.0
SQRT_HALF = math.sqrt(0.5)
INV_SQRT_2PI = 1.0 / math.sqrt(2.0 * math.pi)


@frozen
class Function:
    """An elementwise function phi.

    evaluate: ``evaluate(a, out)`` writes phi(a) into `out`, which may be `a` itself.
    derivative: phi'(a) as a node, given the graph, the node of y = phi(a), and the node of a; None for those that are
        piecewise constant, whose derivative is zero.
    gamma: the supremum of abs(phi'), for the bound gamma * ||W||; None where there is none.
    values: the smallest interval that holds phi(a) for every a; None where there is no bound.
    jumps: where phi is not continuous. A function whose derivative takes such a one has a kink there.
    """

    name: str
    evaluate: Callable[[Array, Array], Any]
    derivative: Derivative | None
    gamma: float | None
    values: tuple[float, float] | None = None
    jumps: tuple[float, ...] = ()


def _sigmoid(a: Array, out: Array) -> None:
    # 1/(1 + e^-a) keeps its relative precision for very negative a, where (1 + tanh(a/2))/2 cancels to nothing.
    np.negative(a, out)
    np.exp(out, out)
    np.add(out, 1.0, out)
    np.reciprocal(out, out)


def _leaky_relu(a: Array, out: Array) -> None:
    np.maximum(a, LEAKY_SLOPE * a, out=out)


def _elu(a: Array, out: Array) -> None:
    np.copyto(out, np.where(a > 0, a, np.expm1(np.minimum(a, 0.0))))


def _selu(a: Array, out: Array) -> None:
    np.copyto(out, SELU_SCALE * np.where(a > 0, a, SELU_ALPHA * np.expm1(np.minimum(a, 0.0))))


def _erf(a: Array, out: Array) -> None:
    # NumPy has no erf; the C library's, value by value, is exact to the last bit or two.
    values = np.fromiter(map(math.erf, a.ravel().tolist()), dtype=np.float64, count=a.size)
    np.copyto(out, values.reshape(a.shape), casting="same_kind")


def _normal_cdf(a: Array, out: Array) -> None:
    _erf(SQRT_HALF * a, out)
    np.add(out, 1.0, out)
    np.multiply(out, 0.5, out)


def _gelu(a: Array, out: Array) -> None:
    cdf = np.empty_like(out)
    _normal_cdf(a, cdf)
    np.multiply(a, cdf, out)


def _normal_density(a: Array, out: Array) -> None:
    np.copyto(out, np.exp(-0.5 * a * a) * INV_SQRT_2PI)


def _silu(a: Array, out: Array) -> None:
    gate = np.empty_like(out)
    _sigmoid(a, gate)
    np.multiply(a, gate, out)


def _softplus(a: Array, out: Array) -> None:
    np.copyto(out, np.where(a > SOFTPLUS_LINEAR_FROM, a, np.log1p(np.exp(np.minimum(a, SOFTPLUS_LINEAR_FROM)))))


def _softplus_slope(a: Array, out: Array) -> None:
    slope = np.empty_like(out)
    _sigmoid(a, slope)
    np.copyto(out, np.where(a > SOFTPLUS_LINEAR_FROM, 1.0, slope))


def _log_sigmoid(a: Array, out: Array) -> None:
    np.copyto(out, np.minimum(a, 0.0) - np.log1p(np.exp(-np.abs(a))))


def _root_slope(g: Graph, y: Node, a: Node) -> Node:
    # Of a norm of zero: 0, as PyTorch has it.
    return g.where(g.compare("greater", y, g.number(0.0)), g.div(g.number(0.5), y), g.number(0.0))


def _hard_sigmoid(a: Array, out: Array) -> None:
    np.multiply(a, 1.0 / 6.0, out)
    np.add(out, 0.5, out)
    np.clip(out, 0.0, 1.0, out)


def _within(bound: float) -> Callable[[Array, Array], Any]:
    return lambda a, out: np.copyto(out, np.abs(a) < bound, casting="unsafe")


def _scaled_step(g: Graph, a: Node, high: float, low: float) -> Node:
    """Return `high` where a > 0, else `low`."""
    return g.add(g.number(low), g.mul(g.number(high - low), g.call("_positive", a)))


def _exp_below_zero(g: Graph, a: Node) -> Node:
    return g.call("exp", g.call("_negative_part", a))


def _selu_slope(g: Graph, y: Node, a: Node) -> Node:
    positive = g.call("_positive", a)
    below = g.mul(g.number(SELU_ALPHA), g.mul(g.sub(g.number(1.0), positive), _exp_below_zero(g, a)))
    return g.mul(g.number(SELU_SCALE), g.add(positive, below))


def _silu_slope(g: Graph, y: Node, a: Node) -> Node:
    s = g.call("sigmoid", a)
    return g.mul(s, g.add(g.number(1.0), g.mul(a, g.sub(g.number(1.0), s))))


def _softsign_slope(g: Graph, y: Node, a: Node) -> Node:
    # From the argument: 1 - |y| would cancel where |a| is large.
    return g.pow(g.add(g.number(1.0), g.call("abs", a)), g.number(-2.0))


FUNCTIONS: dict[str, Function] = {
    f.name: f
    for f in (
        Function("sigmoid", _sigmoid, lambda g, y, a: g.mul(y, g.sub(g.number(1), y)), 0.25, values=(0.0, 1.0)),
        Function("tanh", np.tanh, lambda g, y, a: g.sub(g.number(1), g.mul(y, y)), 1.0, values=(-1.0, 1.0)),
        Function("relu", lambda a, out: np.maximum(a, 0.0, out=out), lambda g, y, a: g.call("_positive", a), 1.0),
        Function("leaky_relu", _leaky_relu, lambda g, y, a: _scaled_step(g, a, 1.0, LEAKY_SLOPE), 1.0),
        Function("elu", _elu, lambda g, y, a: _exp_below_zero(g, a), 1.0),
        Function("selu", _selu, _selu_slope, SELU_SCALE * SELU_ALPHA),
        Function(
            "gelu",
            _gelu,
            lambda g, y, a: g.add(g.call("_normal_cdf", a), g.mul(a, g.call("_normal_density", a))),
            1.1289043060,
        ),
        Function("silu", _silu, _silu_slope, 1.0998393194),
        Function("softplus", _softplus, lambda g, y, a: g.call("_softplus_slope", a), 1.0),
        Function(
            "softsign", lambda a, out: np.divide(a, 1.0 + np.abs(a), out), _softsign_slope, 1.0, values=(-1.0, 1.0)
        ),
        Function(
            "hard_sigmoid",
            _hard_sigmoid,
            lambda g, y, a: g.mul(g.number(1 / 6), g.call("_within_3", a)),
            1.0 / 6.0,
            values=(0.0, 1.0),
        ),
        Function(
            "hard_tanh",
            lambda a, out: np.clip(a, -1.0, 1.0, out),
            lambda g, y, a: g.call("_within_1", a),
            1.0,
            (-1.0, 1.0),
        ),
        Function(
            "erf",
            _erf,
            lambda g, y, a: g.mul(g.number(2 / math.sqrt(math.pi)), g.call("exp", g.neg(g.mul(a, a)))),
            2 / math.sqrt(math.pi),
            values=(-1.0, 1.0),
        ),
        Function("log_sigmoid", _log_sigmoid, lambda g, y, a: g.call("sigmoid", g.neg(a)), 1.0, (-math.inf, 0.0)),
        Function("exp", np.exp, lambda g, y, a: y, None),
        Function("log", np.log, lambda g, y, a: g.div(g.number(1), a), None),
        Function("sqrt", np.sqrt, lambda g, y, a: g.div(g.number(0.5), y), None),
        Function("sin", np.sin, lambda g, y, a: g.call("cos", a), 1.0, values=(-1.0, 1.0)),
        Function("cos", np.cos, lambda g, y, a: g.neg(g.call("sin", a)), 1.0, values=(-1.0, 1.0)),
        Function("abs", np.abs, lambda g, y, a: g.call("_sign", a), 1.0),
        Function("identity", np.positive, lambda g, y, a: g.number(1), 1.0),
        Function("_root", np.sqrt, _root_slope, None),
        Function("_positive", lambda a, out: np.copyto(out, a > 0, casting="unsafe"), None, 0.0, (0.0, 1.0), (0.0,)),
        Function("_sign", np.sign, None, 0.0, (-1.0, 1.0), (0.0,)),
        Function("_within_1", _within(1.0), None, 0.0, (0.0, 1.0), (-1.0, 1.0)),
        Function("_within_3", _within(3.0), None, 0.0, (0.0, 1.0), (-3.0, 3.0)),
        Function(
            "_negative_part", lambda a, out: np.minimum(a, 0.0, out=out), lambda g, y, a: g.call("_nonpositive", a), 1.0
        ),
        Function(
            "_nonpositive", lambda a, out: np.copyto(out, a <= 0, casting="unsafe"), None, 0.0, (0.0, 1.0), (0.0,)
        ),
        Function("_normal_cdf", _normal_cdf, lambda g, y, a: g.call("_normal_density", a), INV_SQRT_2PI, (0.0, 1.0)),
        Function(
            "_normal_density",
            _normal_density,
            lambda g, y, a: g.neg(g.mul(a, y)),
            INV_SQRT_2PI * math.exp(-0.5),
            (0.0, INV_SQRT_2PI),
        ),
        Function("_softplus_slope", _softplus_slope, lambda g, y, a: g.mul(y, g.sub(g.number(1), y)), 0.25, (0.0, 1.0)),
    )
}

#: What equations may call, in the order in which messages and docs list it.
ELEMENTWISE: tuple[str, ...] = tuple(name for name in FUNCTIONS if not name.startswith("_"))


def derivative(graph: Graph, y: Node) -> Node:
    """Return phi'(a) for a node y = phi(a)."""
    rule = FUNCTIONS[y.data].derivative
    return graph.number(0.0) if rule is None else rule(graph, y, y.args[0])


def value_at(name: str, argument: float) -> float:
    """Return phi(a) for one number; not finite where phi is not defined."""
    out = np.empty(1)
    with np.errstate(all="ignore"):
        FUNCTIONS[name].evaluate(np.array([argument]), out)
    return float(out[0])
