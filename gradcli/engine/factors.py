"""Which parameters have a gradient that is one sum of products, delta v^T, and what delta and v are at the steps.

That are the matrices of a layer's products and what is added to them (`WeightGradients`), and as well what enters
elsewhere, as W @ x + b does in the candidate of a GRU, n = tanh(W @ x[t] + b + r * (...)), or a diagonal matrix in
a * h[t-1]: its adjoint is delta.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from gradcli.engine.backward import BackwardPass, Block
from gradcli.engine.evaluate import evaluate
from gradcli.engine.known import Affine, affine_in_input
from gradcli.engine.step.linearise import Target
from gradcli.engine.weights import Use
from gradcli.language.graph import Dependence, Node, reachable

Array = np.ndarray[Any, Any]


class Factors(NamedTuple):
    """Some parameters whose gradients are sums of products of the same adjoints.

    heights: of the lanes, whose adjoints lie one below the other. sizes: of the vectors, without that of ones.
    uses: the parameters. leaf: what the adjoints are those of; None for those of a group's products.
    """

    heights: tuple[int, ...]
    sizes: tuple[int, ...]
    uses: tuple[Use, ...]
    leaf: Node | None


def factors_of(backward: BackwardPass) -> list[Factors]:
    """Return what there is for a pass that was made with `parameters`: first its groups of products."""
    size = backward.plan.size
    found = []
    for weights in backward.weights:
        heights = tuple(lane.rows for lane in weights.lanes)
        found.append(Factors(heights, tuple(map(size, weights.vectors)), tuple(weights.uses), None))
    roots = [use.node for factors in found for use in factors.uses]
    for leaf in (*backward.outside.leaves, *backward.outside.aliases):
        affine = _affine(leaf) if _is_one_adjoint(backward, leaf) else None
        if affine is None:
            roots.append(leaf)
            continue
        sizes = (size(affine.vector),) if affine.sign else ()
        ones = len(sizes)
        uses = [Use(node, sign, 0, ones) for sign, node in affine.constants if not node.is_number]
        uses += [Use(affine.matrix, affine.sign, 0, 0)] * ones
        found.append(Factors((size(leaf),), sizes, tuple(uses), leaf))
        roots += [use.node for use in uses]
    taken = Counter(node for root in roots for node in reachable([root]))
    return [factors._replace(uses=tuple(_plain(backward, factors, taken))) for factors in found]


def in_block(
    backward: BackwardPass, block: Block, factors: list[Factors]
) -> Iterator[tuple[Array, Array, list[Array]]]:
    """Yield the adjoints (n, R, rows, B), their exponent (R, B), and the vectors for each of `factors_of`.

    Args:
        backward: has just gone over the block.
    """
    for _, lanes, exponent, vectors in backward.factors(block):
        yield lanes, exponent, vectors
    lo, hi = block.steps
    layer, plan = backward.layer, backward.plan
    values = layer.block_values(lo, hi)
    for leaf in (factor.leaf for factor in factors if factor.leaf is not None):
        affine = _affine(leaf)
        assert affine is not None
        vectors = [layer.array(affine.vector)[lo:hi]] if affine.sign else []
        if leaf in backward.outside.aliases:
            lane = backward.outside.aliases[leaf]
            group = plan.linear.group_of[lane.product]
            lanes = backward.lanes[group.number][: hi - lo, :, lane.start : lane.stop]
            yield lanes, block.adjoints.exponent[group.frame], vectors
            continue
        parts = []
        for target, coefficient in backward.outside.leaves[leaf]:
            evaluate([coefficient], values, layer.parameters.column_ranges)
            parts.append(backward.target_adjoint(target, hi - lo) * values[coefficient])
        adjoint = np.asarray(sum(parts[1:], parts[0]))
        if backward.missing is not None:
            adjoint[..., backward.missing] = 0.0
        yield adjoint, block.adjoints.exponent[plan.linear.frame_of(target)], vectors


def _affine(leaf: Node) -> Affine | None:
    """Return a hoisted value as a product with the input and constants; with a sign of 0 where there is no product."""
    if leaf.dependence is Dependence.INPUT:
        return affine_in_input(leaf)
    terms = zip(leaf.data, leaf.args, strict=True) if leaf.op == "sum" else [(1, leaf)]
    return Affine(0, leaf, leaf, tuple(terms))


def _is_one_adjoint(backward: BackwardPass, leaf: Node) -> bool:
    """Tell whether the adjoints that a leaf is given have its size, and one power of two."""
    if leaf in backward.outside.aliases:
        return True
    plan, targets = backward.plan, [target for target, _ in backward.outside.leaves[leaf]]

    def size(target: Target) -> int:
        if isinstance(target, str):
            return plan.cell.shapes.states[target]
        return plan.size(target.args[0] if isinstance(target, Node) else plan.groups[target].vector)

    same = {size(target) for target in targets} == {plan.size(leaf)}
    return same and len({plan.linear.frame_of(target) for target in targets}) == 1


def _plain(backward: BackwardPass, factors: Factors, taken: Counter[Node]) -> Iterator[Use]:
    """Yield the uses that are all of a parameter, and have its shape: it is another where a bias is broadcast."""
    sizes, shapes = (*factors.sizes, 1), backward.plan.cell.shapes.parameters
    for use in factors.uses:
        if use.node.op != "parameter" or taken[use.node] != 1:
            continue
        if int(np.prod(shapes[use.node.data])) == factors.heights[use.lane] * sizes[use.vector]:
            yield use
