"""What is affine in the input, W_x @ x + b: one product fills it in for many steps, where the loop reads it.

For lanes that lie side by side, the addends of their recurrent products are stacked, so that one product fills all.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gradcli.engine.plan import Group, Lane, LayerPlan
from gradcli.language.graph import Dependence, Node

SignedNode = tuple[int, Node]


@dataclass(frozen=True)
class Affine:
    """A hoisted value taken apart: sign * matrix @ vector + the signed `constants`."""

    sign: int
    matrix: Node
    vector: Node
    constants: tuple[SignedNode, ...]


@dataclass(frozen=True)
class Addend:
    """What is added to one lane: sign * matrix @ v + the signed `constants`."""

    lane: Lane
    sign: int
    matrix: Node
    constants: tuple[SignedNode, ...]


@dataclass
class StackedAddends:
    """Addends of lanes of a group that lie side by side and share the vector v."""

    group: int
    vector: Node
    addends: list[Addend] = field(default_factory=list)

    @property
    def key(self) -> tuple[int, int]:
        """What tells it from the others of a layer: its group and first row."""
        return self.group, self.rows[0]

    @property
    def rows(self) -> tuple[int, int]:
        return self.addends[0].lane.start, self.addends[-1].lane.stop

    @property
    def products(self) -> list[Node]:
        """The recurrent products that the addends go with."""
        return [addend.lane.product for addend in self.addends]


def stacked_addends(plan: LayerPlan) -> list[StackedAddends]:
    """Return the runs of lanes whose addends are products of the input and constants, and nothing else."""
    found: list[StackedAddends] = []
    for group in plan.groups:
        found += _of_group(group)
    return found


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


def _of_group(group: Group) -> list[StackedAddends]:
    found: list[StackedAddends] = []
    for lane in group.lanes:
        affine = affine_in_input(lane.addend, lane.addend_sign) if lane.addend is not None else None
        if affine is None:
            continue
        last = found[-1] if found else None
        if last is None or last.vector is not affine.vector or last.rows[1] != lane.start:
            last = StackedAddends(group.index, affine.vector)
            found.append(last)
        last.addends.append(Addend(lane, affine.sign, affine.matrix, affine.constants))
    return found
