"""What is known before the loop, at its steps: what is added to the products, and what else the loop reads.

What is affine in the input, W_x @ x + b, is filled in by one product for many steps, right where the loop reads it; for
lanes that lie side by side the matrices are stacked, so that one product fills all. Anything else is evaluated for a
whole segment and copied.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from gradcli.engine.step.instructions import Operand
from gradcli.engine.step.place import Lane
from gradcli.engine.step.plan import LayerPlan
from gradcli.language.graph import Dependence, Graph, Node, reachable

Array = np.ndarray[Any, Any]


class Affine(NamedTuple):
    """A hoisted value taken apart: matrix @ vector + the sum of the signed constants; the matrix has a sign as well."""

    sign: int
    matrix: Node
    vector: Node
    constants: tuple[tuple[int, Node], ...]


class Filling(NamedTuple):
    """What the loop reads in one place: `sign` times a value, or a product and constants.

    node: the value; None where it is ``matrix @ vector`` and the constants, each for so many of the rows.
    """

    into: Operand
    sign: int = 1
    node: Node | None = None
    matrix: Node | None = None
    vector: Node | None = None
    constants: tuple[tuple[int, Node], ...] = ()


def affine_in_input(node: Node, sign: int = 1) -> Affine | None:
    """Return `sign` times a node as one product with the input and constants; None where it is something else."""
    terms = list(zip(node.data, node.args, strict=True)) if node.op == "sum" else [(1, node)]
    products = [(sign_of, term) for sign_of, term in terms if term.dependence is Dependence.INPUT]
    if len(products) != 1 or products[0][1].op != "matmul" or products[0][1].args[1].op != "input":
        return None
    sign_of_product, product = products[0]
    matrix, vector = product.args
    constants = tuple((sign * sign_of, term) for sign_of, term in terms if term.dependence is Dependence.PARAMETERS)
    return Affine(sign * sign_of_product, matrix, vector, constants)


def affine_of(lane: Lane) -> Affine | None:
    """Return what is added to a lane, without the forward pass's signs, where it is affine in the input."""
    return None if lane.known is None else affine_in_input(lane.known, lane.sign)


def fillings(plan: LayerPlan) -> list[Filling]:
    """Return what is to be filled in before the loop of a plan, and where."""
    layout, graph = plan.layout, plan.graph
    found: list[Filling] = []
    for stack in layout.stacks:
        for run in known_runs(stack.lanes):
            into = layout.known[stack.group.number].rows(run[0].start, run[-1].stop)
            found.append(_of_lanes(graph, into, run))
    # The derivatives take some of them as well, and then from the values of the segment.
    mentioned = set(reachable(plan.linear.coefficients, stop=layout.stored))
    for node, buffer in layout.hoisted.items():
        affine = None if node in mentioned else affine_in_input(node)
        if affine is None:
            found.append(Filling(buffer.rows(), node=node))
        else:
            found.append(_of_affine(graph, buffer.rows(), [affine], [buffer.size]))
    return found


def known_runs(lanes: Iterable[Lane]) -> Iterator[list[Lane]]:
    """Yield the lanes that something is added to: together those side by side with what is affine in one vector."""
    run: list[Lane] = []
    for lane in lanes:
        affine, last = affine_of(lane), affine_of(run[-1]) if run else None
        if affine and last and affine.vector is last.vector and run[-1].stop == lane.start:
            run.append(lane)
            continue
        if run:
            yield run
        run = [lane] if lane.known is not None else []
    if run:
        yield run


def _of_lanes(graph: Graph, into: Operand, lanes: list[Lane]) -> Filling:
    affines = [affine_in_input(lane.known, -lane.sign if lane.negated else lane.sign) for lane in lanes if lane.known]
    whole = [affine for affine in affines if affine is not None]
    if not whole:
        (lane,) = lanes
        return Filling(into, -lane.sign if lane.negated else lane.sign, node=lane.known)
    return _of_affine(graph, into, whole, [lane.rows for lane in lanes])


def _of_affine(graph: Graph, into: Operand, affines: list[Affine], rows: list[int]) -> Filling:
    matrices = [affine.matrix if affine.sign > 0 else graph.neg(affine.matrix) for affine in affines]
    matrix = graph.node("stack", matrices) if len(matrices) > 1 else matrices[0]
    sums = [graph.sum(affine.constants) for affine in affines]
    constants = tuple(zip(rows, sums, strict=True)) if any(affine.constants for affine in affines) else ()
    return Filling(into, matrix=matrix, vector=affines[0].vector, constants=constants)


def evaluated_before(plan: LayerPlan, found: Iterable[Filling]) -> list[Node]:
    """Return the nodes whose values are computed for a whole segment, before the loop."""
    wanted = [filling.node for filling in found if filling.node is not None]
    wanted += [e for e in plan.states.values() if e.dependence < Dependence.STATE]
    return list(dict.fromkeys(wanted))
