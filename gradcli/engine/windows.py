"""Products with neighbouring past values of one state, W1 @ s[t-1] + W2 @ s[t-2] + ..., as one product.

The steps of a state lie side by side in memory, so that s[t-2] and s[t-1] are one vector already, and the sum is
[W2 W1] @ [s[t-2]; s[t-1]]. On the way back, [W2 W1].T @ delta is what both of them get. The groups stay apart in the
plan, so that everything else still tells W1 from W2.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from gradcli.language.graph import Dependence, Graph, Node

if TYPE_CHECKING:
    from gradcli.engine.plan import Group

SignedNode = tuple[int, Node]

#: One product is faster than several up to so many numbers in the joined matrix; of larger ones a call's own time does
#: not count, and the smaller operands stay in a nearer cache.
_MOST_JOINED = 2**14


@dataclass(frozen=True)
class Window:
    """Groups on neighbouring lags of a state, lane by lane in the same sums, beside which there is nothing recurrent.

    groups: from the longest lag to the shortest, as their vectors lie in memory.
    """

    state: str
    groups: tuple[Group, ...]

    @property
    def first(self) -> Group:
        """The group that is evaluated first: its lanes hold the sums."""
        return min(self.groups, key=lambda group: group.index)

    @property
    def lags(self) -> tuple[int, int]:
        """The longest lag and the shortest."""
        return _lag(self.groups[0]), _lag(self.groups[-1])

    def pays(self, size: int) -> bool:
        """Tell whether one product is worth it for a state of so many entries."""
        return len(self.groups) * size * self.first.rows <= _MOST_JOINED

    def products_beside(self, total: Node) -> list[Node]:
        """Return the products that a sum takes from the groups other than the first."""
        others = {lane.product for group in self.groups if group is not self.first for lane in group.lanes}
        return [arg for arg in total.args if arg in others]


def find_windows(groups: Sequence[Group], takers: Mapping[Node, Sequence[Node]]) -> Iterator[Window]:
    """Yield the windows among some groups.

    Args:
        takers: for each node those that take it as an argument.
    """
    of_states: dict[tuple[str, int], list[Group]] = {}
    for group in groups:
        if group.vector.op == "state" and _lag(group) > 0:
            of_states.setdefault((group.vector.data[0], group.frame), []).append(group)
    for (state, _), found in of_states.items():
        found.sort(key=_lag, reverse=True)
        neighbours = all(_lag(a) == _lag(b) + 1 for a, b in pairwise(found))
        if len(found) > 1 and neighbours and _share_sums(found, takers):
            yield Window(state, tuple(found))


def _share_sums(groups: Sequence[Group], takers: Mapping[Node, Sequence[Node]]) -> bool:
    """Tell whether every product is taken by one sum alone, each of which has one of every group, and nothing else."""
    sums = [[_only_sum(lane.product, takers) for lane in group.lanes] for group in groups]
    totals = {total for total in sums[0] if total is not None}
    if any(len(of_group) != len(totals) or set(of_group) != totals for of_group in sums):
        return False
    return all(sum(arg.dependence is Dependence.STATE for arg in total.args) == len(groups) for total in totals)


def _only_sum(product: Node, takers: Mapping[Node, Sequence[Node]]) -> Node | None:
    """Return the sum that a product is added in, where nothing else takes it."""
    users = takers.get(product, [])
    if len(users) != 1 or users[0].op != "sum":
        return None
    (total,) = users
    return total if (1, product) in zip(total.data, total.args, strict=True) else None


def _lag(group: Group) -> int:
    return int(group.vector.data[1])


def with_windows_apart(graph: Graph, terms: list[SignedNode], known: list[SignedNode]) -> Node | None:
    """Return a sum whose products with neighbouring past values of a state stand in a sum of their own, if there are.

    Args:
        terms: those that are known within the loop alone. known: the others, joined to the products.
    """
    of_states: dict[str, list[SignedNode]] = {}
    for sign, term in terms:
        if sign == 1 and term.op == "matmul" and term.args[1].op == "state" and term.args[1].data[1] > 0:
            of_states.setdefault(term.args[1].data[0], []).append((sign, term))
    window = max(of_states.values(), key=len, default=[])
    lags = sorted(term.args[1].data[1] for _, term in window)
    if len(lags) < 2 or lags != list(range(lags[0], lags[-1] + 1)):
        return None
    return graph.sum([(1, graph.sum([*window, *known])), *(term for term in terms if term not in window)])
