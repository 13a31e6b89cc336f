"""A cell once its sizes are known: every value as a vector of entries, and what changes its shape as a map.

A matrix is the vector of its entries, row by row. A vector beside a matrix, a number beside a vector, a slice, and a
transposed matrix are *views*: arrays over the same entries, with strides as NumPy has them. Nothing but views, sums
over an axis and cumulated sums has to know of shapes after that; what is elementwise goes on being so.
"""

from __future__ import annotations

import math

from gradcli.language.graph import ELEMENTWISE_OPS, Dependence, Graph, Node, reachable
from gradcli.language.lower import Lowering
from gradcli.language.shapes import Shape, Shapes


def sized(cell: Lowering, shapes: Shapes) -> dict[str, Node]:
    """Return the value of each name of a cell at these sizes; the shapes of new nodes are added to `shapes`."""
    graph = cell.graph
    new: dict[Node, Node] = {}
    for node in reachable(cell.values.values()):
        args = [new[arg] for arg in node.args]
        shape = shapes.of_nodes.get(node)
        found = node if shape is None else _sized(graph, node, args, shape, shapes)
        new[node] = found
        if shape is not None:
            shapes.of_nodes[found] = shape
            shapes.sizes[found] = math.prod(shape)
    values = {name: new[node] for name, node in cell.values.items()}
    # A state of several entries may be given one number for all of them.
    states = {name: _beside(graph, shapes, values[name], shapes.of_states[name]) for name in cell.states}
    return values | states


def _sized(graph: Graph, node: Node, args: list[Node], shape: Shape, shapes: Shapes) -> Node:
    of_nodes = shapes.of_nodes
    match node.op:
        case "spread":
            return _view(graph, shapes, args[0], shape, (0, 1) if node.data[0] == "rows" else (1, 0))
        case "transposed":
            return _view(graph, shapes, args[0], shape, (1, shape[0]))
        case "slice":
            return _view(graph, shapes, args[0], shape, (1,), node.data[0])
        case "pad":
            part, indices = node.data
            sizes = [shapes.sizes[graph.at(index)] for index in indices]
            return graph.node("pad", args, (sum(sizes[:part]), sum(sizes)))
        case "total" if node.data == "entries":
            return _total(graph, shapes, args[0])
        case "largest":
            return _largest(graph, shapes, args[0])
        case "total":
            return graph.node("total", args, (of_nodes[args[0]], 1 if node.data == "columns" else 0))
        case "mean":
            return graph.div(_total(graph, shapes, args[0]), graph.number(shapes.sizes[args[0]]))
        case "identity":
            return graph.node("identity", (), shape[0])
        case "entries":
            return graph.node("entries", args, shape)
        case op if op in ELEMENTWISE_OPS:
            args = [_beside(graph, shapes, arg, shape) for arg in args]
            return node if tuple(args) == node.args else _same(graph, node, args)
        case _:
            return node if tuple(args) == node.args else graph.node(node.op, args, node.data)


def _total(graph: Graph, shapes: Shapes, arg: Node) -> Node:
    """Return the sum of all entries: axis by axis, from the last one on."""
    shape = shapes.of_nodes[arg]
    while shape:
        arg = graph.node("total", (arg,), (shape, len(shape) - 1))
        shape = shape[:-1]
        shapes.of_nodes[arg], shapes.sizes[arg] = shape, math.prod(shape)
    return arg


def _largest(graph: Graph, shapes: Shapes, arg: Node) -> Node:
    """Return the largest entry; its gradient goes in equal parts to all that are as large, as PyTorch's amax has it."""

    def known(node: Node, shape: Shape) -> Node:
        shapes.of_nodes[node], shapes.sizes[node] = shape, math.prod(shape)
        return node

    shape = shapes.of_nodes[arg]
    value = known(graph.node("largest", (arg,)), ())

    def spread(node: Node) -> Node:
        return (
            node if node.dependence is Dependence.PARAMETERS else _view(graph, shapes, node, shape, (0,) * len(shape))
        )

    mask = known(graph.compare("equal", arg, spread(value)), shape)
    count = _total(graph, shapes, mask)
    share = known(graph.node("stop", (known(graph.div(mask, spread(count)), shape),)), shape)
    return graph.node("carried", (value, _total(graph, shapes, known(graph.mul(share, arg), shape))))


def _same(graph: Graph, node: Node, args: list[Node]) -> Node:
    if node.op == "sum":
        return graph.sum(zip(node.data, args, strict=True))
    return graph.mul(*args) if node.op == "mul" else graph.node(node.op, args, node.data)


def _beside(graph: Graph, shapes: Shapes, arg: Node, shape: Shape) -> Node:
    """Return an argument as it stands beside others of a shape: a number that changes with the step is repeated."""
    # What is the same at every step has one entry, and goes with any number of them.
    if arg.dependence is Dependence.PARAMETERS or shapes.of_nodes[arg] or math.prod(shape) == 1:
        return arg
    return _view(graph, shapes, arg, shape, (0,) * len(shape))


def _view(graph: Graph, shapes: Shapes, arg: Node, shape: Shape, strides: tuple[int, ...], start: int = 0) -> Node:
    node = graph.node("view", (arg,), (start, shape, strides))
    shapes.of_nodes[node], shapes.sizes[node] = shape, math.prod(shape)
    return node
