"""Which parameters of a layer have a gradient that is one sum of products, delta v^T, and of what.

That are the matrices of the layer's products and what is added to them, and as well what enters elsewhere, as W @ x + b
does in the candidate of a GRU, n = tanh(W @ x[t] + b + r * (...)), or a diagonal matrix in a * h[t-1].
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from gradcli.engine.known import Affine, affine_in_input, affine_of, known_runs
from gradcli.engine.step.linearise import Target
from gradcli.engine.step.place import Lane, Stack
from gradcli.engine.step.plan import LayerPlan
from gradcli.language.graph import Dependence, Node, reachable


class Use(NamedTuple):
    """A parameter node that takes the sum of one part of `Factors`, delta v^T, times a sign, as gradient.

    lane: whose adjoints delta are. vector: which v is; as many as there are stands for ones.
    """

    node: Node
    sign: int
    lane: int
    vector: int


class Factors(NamedTuple):
    """Some nodes whose gradients are sums of products of the same adjoints.

    frame: of the adjoints. heights: of the lanes, whose adjoints lie one below the other.
    vectors: what they are multiplied with, beside ones. uses: the nodes.
    leaves: the hoisted nodes all of whose gradient goes to them, each with what it is.
    source: whose adjoints they are: those of a stack's products, or of a leaf.
    """

    frame: int
    heights: tuple[int, ...]
    vectors: tuple[Node, ...]
    uses: tuple[Use, ...]
    leaves: Mapping[Node, Affine]
    source: Stack | Node


class Hoisted(NamedTuple):
    """What enters a layer's loop from outside, by how its adjoints come about.

    runs: by group, lanes side by side to which something affine in the input is added, that has their adjoints.
    aliases: other nodes that have the adjoints of a lane. leaves: the targets that take the others, with coefficients.
    """

    runs: Mapping[int, list[list[Lane]]]
    aliases: Mapping[Node, Lane]
    leaves: Mapping[Node, Sequence[tuple[Target, Node]]]


def hoisted_of(plan: LayerPlan) -> Hoisted:
    """Return what enters the loop of a plan."""
    layout = plan.layout
    of_lane = {lane.product: leaf for leaf, lane in layout.aliases.items()}

    def is_added(run: Sequence[Lane]) -> bool:
        return all(affine_of(lane) is not None and of_lane.get(lane.product) is lane.known for lane in run)

    runs = {stack.group.number: [run for run in known_runs(stack.lanes) if is_added(run)] for stack in layout.stacks}
    together = {lane.known for of_group in runs.values() for run in of_group for lane in run}
    aliases = {leaf: lane for leaf, lane in layout.aliases.items() if leaf not in together}
    leaves = {leaf: pairs for leaf, pairs in plan.linear.leaf_edges.items() if leaf not in layout.aliases}
    return Hoisted(runs, aliases, leaves)


def factors_of(plan: LayerPlan) -> list[Factors]:
    """Return what there is in a plan: first its groups of products."""
    hoisted = hoisted_of(plan)
    found = [_of_stack(stack, hoisted) for stack in plan.layout.stacks]
    for leaf, pairs in hoisted.leaves.items():
        frames = {plan.linear.frame_of(target) for target, _ in pairs}
        # The adjoints that it is given are to have its size, and one power of two.
        if len(frames) > 1 or {_size(plan, target) for target, _ in pairs} != {plan.size(leaf)}:
            continue
        if (affine := _affine(leaf)) is not None:
            vectors = (affine.vector,) if affine.sign else ()
            uses = tuple(_uses_of(affine, 0, vectors))
            found.append(Factors(frames.pop(), (plan.size(leaf),), vectors, uses, {leaf: affine}, leaf))
    return found


def _of_stack(stack: Stack, hoisted: Hoisted) -> Factors:
    """Return the products of a stack, and what is added to them, which has their adjoints."""
    added: list[tuple[Lane, Node, Affine | None]] = []
    for run in hoisted.runs[stack.group.number]:
        added += [(lane, lane.known, affine_of(lane)) for lane in run if lane.known is not None]
    added += [(lane, leaf, _affine(leaf)) for leaf, lane in hoisted.aliases.items() if lane in stack.lanes]
    affines = [(lane, leaf, affine) for lane, leaf, affine in added if affine is not None]
    # All that is affine in something is so in the input.
    vectors = (stack.group.vector, *dict.fromkeys(affine.vector for _, _, affine in affines if affine.sign))
    uses = [Use(lane.product.args[0], 1, number, 0) for number, lane in enumerate(stack.lanes)]
    for lane, _, affine in affines:
        uses += _uses_of(affine, stack.lanes.index(lane), vectors)
    heights = tuple(lane.rows for lane in stack.lanes)
    leaves = {leaf: affine for _, leaf, affine in affines}
    return Factors(stack.group.frame, heights, vectors, tuple(uses), leaves, stack)


def _affine(leaf: Node) -> Affine | None:
    """Return a hoisted node as a product with the input and constants; with a sign of 0 where there is no product."""
    if leaf.dependence is Dependence.INPUT:
        return affine_in_input(leaf)
    terms = zip(leaf.data, leaf.args, strict=True) if leaf.op == "sum" else [(1, leaf)]
    return Affine(0, leaf, leaf, tuple(terms))


def _uses_of(affine: Affine, lane: int, vectors: Sequence[Node]) -> list[Use]:
    found = [Use(node, sign, lane, len(vectors)) for sign, node in affine.constants if not node.is_number]
    if affine.sign:
        found.append(Use(affine.matrix, affine.sign, lane, vectors.index(affine.vector)))
    return found


def _size(plan: LayerPlan, target: Target) -> int:
    if isinstance(target, str):
        return plan.state_sizes[target]
    return plan.size(target.args[0] if isinstance(target, Node) else plan.groups[target].vector)


def of_whole_parameters(plan: LayerPlan, found: Sequence[Factors]) -> list[Factors]:
    """Return factors with no other uses than those that are all of a parameter, in its own shape.

    Args:
        found: of the plan, see `factors_of`.
    """
    hoisted, taken = hoisted_of(plan), {leaf for factors in found for leaf in factors.leaves}
    roots = [use.node for factors in found for use in factors.uses]
    roots += [leaf for leaf in (*hoisted.aliases, *hoisted.leaves) if leaf not in taken]
    count = Counter(node for root in roots for node in reachable([root]))
    shapes = plan.cell.shapes.parameters

    def is_whole(factors: Factors, use: Use) -> bool:
        if use.node.op != "parameter" or count[use.node] != 1:
            return False
        # It has another shape where a bias is broadcast.
        width = 1 if use.vector == len(factors.vectors) else plan.size(factors.vectors[use.vector])
        return int(np.prod(shapes[use.node.data])) == factors.heights[use.lane] * width

    return [factors._replace(uses=tuple(use for use in factors.uses if is_whole(factors, use))) for factors in found]
