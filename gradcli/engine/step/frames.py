"""Which cut points of a step share a power of two; see `gradcli.engine.step.linearise`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from graphlib import TopologicalSorter

from gradcli.language.across import ACROSS
from gradcli.language.graph import Dependence, Node


class Frames:
    """The powers of two that adjoints are carried at. Adjoints flow from later cut points to earlier ones.

    of_state, of_node: the frame's number, for a state, and for a cut point within the step.
    feeds: for each frame, those that pass adjoints on to it.
    coupled: the frames in which the adjoints of one sequence get something from those of others.

    Args:
        states: for each state, the cut points that its equation takes, hoisted ones among them.
        inner: the same for each cut point within the step, in order of evaluation.
    """

    def __init__(self, states: Mapping[str, Iterable[Node]], inner: Mapping[Node, Iterable[Node]]) -> None:
        takes: dict[str | Node, set[str | Node]] = {name: _recurrent(taken) for name, taken in states.items()}
        takes |= {node: _recurrent(taken) for node, taken in inner.items()}
        below = {node: _closure(node, takes) for node in takes}
        self.of_state: dict[str, int] = {}
        for name in states:
            twin = next((o for o in self.of_state if o in below[name] and name in below[o]), None)
            self.of_state[name] = self.of_state[twin] if twin else len(set(self.of_state.values()))
        self.count = len(set(self.of_state.values()))
        self.of_node: dict[Node, int] = {}
        users: dict[str | Node, set[str | Node]] = {}
        for user, taken in takes.items():
            for node in taken:
                users.setdefault(node, set()).add(user)
        # In reverse order of evaluation: whatever takes a cut point comes after it.
        for inside in reversed(list(inner)):
            # One in a cycle of states belongs to their frame, whatever else takes it: its adjoint comes back to it.
            cycle = {self.of_state[name] for name in states if inside in below[name] and name in below[inside]}
            frames = cycle or {self._frame(user) for user in users.get(inside, ())}
            if len(frames) == 1:
                self.of_node[inside] = frames.pop()
            else:
                self.of_node[inside] = self.count
                self.count += 1
        self.feeds: dict[int, set[int]] = {frame: set() for frame in range(self.count)}
        for user, taken in takes.items():
            for node in taken:
                if self._frame(node) != self._frame(user):
                    self.feeds[self._frame(node)].add(self._frame(user))
        self.coupled = frozenset(frame for node, frame in self.of_node.items() if over_sequences(node))

    def _frame(self, node: str | Node) -> int:
        return self.of_state[node] if isinstance(node, str) else self.of_node[node]

    @cached_property
    def in_flow_order(self) -> list[int]:
        """The frames so that each comes after those that feed it."""
        return list(TopologicalSorter(self.feeds).static_order())


def over_sequences(node: Node) -> bool:
    """Tell whether a node is a function across the sequences of a batch."""
    return node.op == "across" and ACROSS[node.data[0]].over_sequences


def _recurrent(cuts: Iterable[Node]) -> set[str | Node]:
    """Return the cut points among these that are only known inside the loop; states by name, whatever their lag."""
    found: set[str | Node] = set()
    for node in cuts:
        if node.op in ("state", "window"):
            found |= {state.data[0] for state in (node.args or (node,))}
        elif node.dependence is Dependence.STATE:
            found.add(node)
    return found


def _closure(start: str | Node, takes: Mapping[str | Node, set[str | Node]]) -> set[str | Node]:
    seen: set[str | Node] = set()
    stack = list(takes[start])
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            stack.extend(takes.get(node, ()))
    return seen
