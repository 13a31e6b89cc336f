"""Addends that one stacked product can fill: what neighbouring lanes add to their recurrent products, W_x @ x + b."""

from __future__ import annotations

from dataclasses import dataclass, field

from gradcli.engine.plan import Group, Lane, LayerPlan
from gradcli.language.graph import Dependence, Node

SignedNode = tuple[int, Node]


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


def _of_group(group: Group) -> list[StackedAddends]:
    found: list[StackedAddends] = []
    for lane in group.lanes:
        parts = _parts(lane)
        if parts is None:
            continue
        addend, vector = parts
        last = found[-1] if found else None
        if last is None or last.vector is not vector or last.rows[1] != lane.start:
            last = StackedAddends(group.index, vector)
            found.append(last)
        last.addends.append(addend)
    return found


def _parts(lane: Lane) -> tuple[Addend, Node] | None:
    """Return a lane's addend taken apart, and the vector of its product; None where it is something else."""
    if lane.addend is None:
        return None
    terms = [(1, lane.addend)]
    if lane.addend.op == "sum":
        terms = list(zip(lane.addend.data, lane.addend.args, strict=True))
    products = [(sign, node) for sign, node in terms if node.dependence is Dependence.INPUT]
    if len(products) != 1 or products[0][1].op != "matmul" or products[0][1].args[1].op != "input":
        return None
    sign, product = products[0]
    matrix, vector = product.args
    constants = tuple(
        (lane.addend_sign * sign, node) for sign, node in terms if node.dependence is Dependence.PARAMETERS
    )
    return Addend(lane, lane.addend_sign * sign, matrix, constants), vector
