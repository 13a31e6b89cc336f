"""Exact derivatives of elementwise expressions, as expressions.

Between cut points (states, and the results of matrix products) a cell is elementwise, so the Jacobian of each cut point
with respect to each earlier one is diagonal, and its diagonal is an ordinary expression.
"""

from __future__ import annotations

from collections.abc import Callable

from gradcli.language.functions import derivative
from gradcli.language.graph import Graph, Node, reachable
from gradcli.language.surrogates import surrogate_slope


def diagonal_derivatives(graph: Graph, target: Node, is_boundary: Callable[[Node], bool]) -> dict[Node, Node]:
    """Return d target / d s for every boundary node s that `target` depends on elementwise, without passing a boundary.

    Reverse accumulation with a cotangent of 1: for y = f(a, b), the cotangent of a gains that of y times df/da.

    Args:
        graph: the graph that the new nodes join.
        target: the node to differentiate; where it is a boundary itself, the answer is {target: 1}.
        is_boundary: tells the nodes to stop at. Every path must end at one of them or at a number.
    """
    if is_boundary(target):
        return {target: graph.number(1.0)}
    boundary = {node for node in reachable([target]) if is_boundary(node)}
    cotangents: dict[Node, Node] = {target: graph.number(1.0)}
    for node in reversed(reachable([target], stop=boundary)):
        if node in boundary or node.is_number or node not in cotangents:
            continue
        for arg, slope in slopes(graph, node):
            if arg.is_number:
                continue
            term = graph.mul(cotangents[node], slope)
            cotangents[arg] = graph.add(cotangents[arg], term) if arg in cotangents else term
    return {
        node: cotangents[node]
        for node in sorted(boundary, key=lambda node: node.index)
        if node in cotangents and not (cotangents[node].is_number and cotangents[node].data == 0.0)
    }


def slopes(graph: Graph, node: Node) -> list[tuple[Node, Node]]:
    """Return each argument of an elementwise node with the partial derivative with respect to it."""
    g = graph
    one = g.number(1.0)
    match node.op:
        case "sum":
            return [(arg, g.number(float(sign))) for sign, arg in zip(node.data, node.args, strict=True)]
        case "mul":
            a, b = node.args
            return [(a, b), (b, a)]
        case "div":
            a, b = node.args
            return [(a, g.div(one, b)), (b, g.neg(g.div(node, b)))]
        case "pow":
            base, exponent = node.args
            slopes = [(base, g.mul(exponent, g.pow(base, g.sub(exponent, one))))]
            if not exponent.is_number:
                slopes.append((exponent, g.mul(node, g.call("log", base))))
            return slopes
        case "call":
            return [(node.args[0], derivative(g, node))]
        case "maximum" | "minimum":
            # At a tie half of the gradient goes to each, as PyTorch has it.
            a, b = node.args
            first, second = (a, b) if node.op == "maximum" else (b, a)
            of_a = g.add(g.compare("greater", first, second), g.mul(g.number(0.5), g.compare("equal", a, b)))
            return [(a, of_a), (b, g.sub(one, of_a))]
        case "where":
            mask, a, b = node.args
            return [(a, mask), (b, g.sub(one, mask))]
        case "carried":
            return [(node.args[1], one)]
        case "spike":
            return [(node.args[0], surrogate_slope(g, node))]
        case "greater" | "greater_equal" | "equal" | "stop" | "largest":
            return []
        case _:
            raise AssertionError(f"{node} is not elementwise")
