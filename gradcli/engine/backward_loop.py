"""The backward loop of a plan, as straight-line NumPy calls; see `gradcli.engine.loop`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np

from gradcli.engine.loop import Loop, LoopWriter, Rows
from gradcli.engine.plan import Edge, Group, LayerPlan, Target
from gradcli.engine.windows import Window
from gradcli.language.across import ACROSS
from gradcli.language.graph import Dependence, Node


@dataclass(frozen=True)
class Run:
    """Edges of one target into lanes that lie side by side: one array of coefficients, one product."""

    group: Group
    rows: Rows
    edges: tuple[Edge, ...]


class BackwardWriter:
    """Writes the backward loop: adjoints from step t to the steps before it, along the edges.

    prefilled: the states whose adjoint buffer already holds something at each step (zero, or a gradient that enters
        there), so that every contribution is added; for the others the first contribution is written.
    clipped: whether each state's adjoint passes through ``clip_state`` as soon as it is complete.
    upward: whether a frame may pass adjoints on to one with a far smaller power of two, as it can where they are zero.
    runs: for each target, the runs into lanes; `singles` its other edges, each with a coefficient array of its own.
    """

    def __init__(
        self, plan: LayerPlan, batched_trials: bool, prefilled: frozenset[str], clipped: bool, upward: bool = False
    ) -> None:
        self.plan = plan
        self.upward = upward
        self.writer = LoopWriter(batched_trials)
        self.batched_trials = batched_trials
        self.clipped = clipped
        self._rescaled: dict[tuple[str, int], str] = {}
        self._written: set[str] = {f"{name}@0" for name in plan.states} | {f"{name}@1" for name in prefilled}
        self._scratch = 0
        for target in backward_order(plan):
            self._rescaled.clear()
            if isinstance(target, str):
                self._emit_state(target)
            elif isinstance(target, Node):
                self._emit_across(target)
            else:
                self._emit_group(plan.groups[target])
        self.loop = self.writer.loop()

    def _emit_state(self, name: str) -> None:
        w = self.writer
        adjoint = w.column("adjoint", name, 0)
        if self.clipped:
            w.bound("clip_state", _clip_state, adjoint, w.constant("clip", name))
        frame = self.plan.frames.of_state[name]
        self._spread(name, adjoint, frame, self.plan.edges[name], self.plan.cell.shapes.states[name])

    def _emit_group(self, group: Group) -> None:
        w, plan = self.writer, self.plan
        window = group.window if group.window and self._is_one_product(group.window) else None
        if window is not None and group is not window.first:
            return
        lanes = w.column("lanes", group.index, (0, group.rows))
        for lane in group.lanes:
            if f"lane{lane.product.index}" not in self._written:
                # Nothing in this step takes the product elementwise (all its derivatives are zero).
                w.call("copyto", w.column("lanes", group.index, (lane.start, lane.stop)), self._zero(lane.rows))
        if window is not None:
            self._emit_window(group, window)
            return
        edges = plan.edges[group.index]
        transposed = w.constant("transposed", group.index)
        size = plan.size(group.vector)
        only = edges[0].source if len(edges) == 1 else None
        if only is group.vector and only.op != "matmul" and self._frame_of(only) == group.frame:
            source = group.vector
            if self._first(self._slot(source)):
                w.call(w.product, transposed, lanes, self._destination(source))
                return
        if not edges:
            return
        adjoint = self._temporary(size)
        w.call(w.product, transposed, lanes, adjoint)
        self._spread(group.index, adjoint, group.frame, edges, size)

    def _is_one_product(self, window: Window) -> bool:
        """Tell whether all past values of a window's state get their adjoints from one, by one product, and no more."""
        if self.batched_trials or f"{window.state}@1" not in self._written:
            return False
        return window.pays(self.plan.size(window.first.vector)) and all(
            (group is window.first or group.same_as is not None)
            and [edge.source for edge in self.plan.edges[group.index]] == [group.vector]
            and self._frame_of(group.vector) == group.frame
            for group in window.groups
        )

    def _emit_window(self, group: Group, window: Window) -> None:
        w = self.writer
        size = len(window.groups) * self.plan.size(group.vector)
        lanes, term = w.column("lanes", group.index, (0, group.rows)), self._temporary(size)
        w.call(w.product, w.constant("transposed of window", group.index), lanes, term)
        adjoints = w.column("window", window.state, window.lags)
        w.call("add", adjoints, term, adjoints)

    def _emit_across(self, node: Node) -> None:
        """Turn the adjoint of a function across into that of its argument, in place, and pass it on."""
        w, plan = self.writer, self.plan
        adjoint, size = w.column("across", node), plan.size(node)
        if self._first(self._slot(node)):
            # Nothing in this step takes it (all its derivatives are zero).
            w.call("copyto", adjoint, self._zero(size))
        function = ACROSS[node.data[0]]
        axis = w.features_axis + function.over_sequences
        slope = w.column("slope", node) if function.is_norm else "None"
        jacobian = partial(function.apply_jacobian, axis)
        w.bound(f"jacobian{node.index}", jacobian, w.column("value", node), slope, adjoint, adjoint)
        self._spread(node, adjoint, self._frame_of(node), plan.edges[node], size)

    def _zero(self, rows: int) -> str:
        return self.writer.constant("number", 0.0, rows)

    def _spread(self, target: Target, adjoint: str, frame: int, edges: list[Edge], size: int) -> None:
        """Pass the adjoint of a target on to everything that its equation takes."""
        w = self.writer
        runs, singles = runs_of(self.plan, edges)
        for number, run in enumerate(runs):
            if run.group.same_as:
                self._written |= {f"lane{edge.source.index}" for edge in run.edges}
                continue
            going_up = self._goes_up(frame, run.group.frame)
            incoming = adjoint if going_up else self._in_frame(adjoint, frame, run.group.frame, size)
            fresh = {f"lane{edge.source.index}" not in self._written for edge in run.edges}
            self._written |= {f"lane{edge.source.index}" for edge in run.edges}
            parts = len(run.edges) if len(run.edges) > 1 else 0
            coefficient = w.column("coefficient", target, number, parts)
            if parts and self.batched_trials:
                incoming = f"{incoming}[:, None]"
            out = w.column("lanes", run.group.index, run.rows, parts)
            if going_up:
                # Multiplied before it is brought to the other power: zero times a number beyond floats is none.
                term = self._temporary(run.rows[1] - run.rows[0], parts)
                w.call("multiply", coefficient, incoming, term)
                self._raise(term, frame, run.group.frame, parts)
                w.call("copyto" if fresh == {True} else "add", out, term, *([] if fresh == {True} else [out]))
            elif fresh == {True}:
                w.call("multiply", coefficient, incoming, out)
            else:
                term = self._temporary(run.rows[1] - run.rows[0], parts)
                w.call("multiply", coefficient, incoming, term)
                w.call("add", out, term, out)
        for edge in singles:
            self._single(target, adjoint, frame, edge, size)

    def _single(self, target: Target, adjoint: str, frame: int, edge: Edge, size: int) -> None:
        w = self.writer
        out = self._destination(edge.source)
        fresh = self._first(self._slot(edge.source))
        coefficient = edge.coefficient
        if self._goes_up(frame, self._frame_of(edge.source)):
            term = self._temporary(size)
            w.call("multiply", self._factor(target, edge, size), adjoint, term)
            self._raise(term, frame, self._frame_of(edge.source), 0)
            w.call("copyto" if fresh else "add", out, term, *([] if fresh else [out]))
            return
        incoming = self._in_frame(adjoint, frame, self._frame_of(edge.source), size)
        if coefficient.is_number and coefficient.data in (1.0, -1.0):
            if coefficient.data == 1.0:
                w.call("copyto" if fresh else "add", out, incoming, *([] if fresh else [out]))
            elif fresh:
                w.call("negative", incoming, out)
            else:
                w.call("subtract", out, incoming, out)
            return
        factor = self._factor(target, edge, size)
        if fresh:
            w.call("multiply", factor, incoming, out)
        else:
            term = self._temporary(size)
            w.call("multiply", factor, incoming, term)
            w.call("add", out, term, out)

    def _factor(self, target: Target, edge: Edge, size: int) -> str:
        coefficient = edge.coefficient
        if coefficient.is_number:
            return self.writer.constant("number", coefficient.data, size)
        if coefficient.dependence is Dependence.PARAMETERS:
            return self.writer.constant("leaf", coefficient)
        return self.writer.column("coefficient", target, edge.source)

    def _goes_up(self, frame: int, wanted: int) -> bool:
        return self.upward and frame != wanted

    def _raise(self, term: str, frame: int, wanted: int, parts: int) -> None:
        """Bring a term to the power of another frame: to infinity where that is far smaller, and zero stays zero."""
        shift = self.writer.constant("shift", frame, wanted)
        self.writer.call("ldexp", term, f"{shift}[:, None]" if parts and self.batched_trials else shift, term)

    def _in_frame(self, adjoint: str, frame: int, wanted: int, size: int) -> str:
        if frame == wanted:
            return adjoint
        if (adjoint, wanted) not in self._rescaled:
            out = self._temporary(size)
            self.writer.call("multiply", adjoint, self.writer.constant("rescale", frame, wanted), out)
            self._rescaled[adjoint, wanted] = out
        return self._rescaled[adjoint, wanted]

    def _frame_of(self, source: Node) -> int:
        frames = self.plan.frames
        return frames.of_state[source.data[0]] if source.op == "state" else frames.of_node[source]

    def _destination(self, source: Node) -> str:
        if source.op == "across":
            return self.writer.column("across", source)
        return self.writer.column("adjoint", *source.data)

    def _slot(self, source: Node) -> str:
        if source.op == "across":
            return f"across{source.index}"
        name, lag = source.data
        return f"{name}@{min(lag, 1)}"

    def _first(self, slot: str) -> bool:
        first = slot not in self._written
        self._written.add(slot)
        return first

    def _temporary(self, rows: int, lanes: int = 0) -> str:
        self._scratch += 1
        return self.writer.constant("scratch", f"back{self._scratch}", rows, (0, rows), lanes)


@lru_cache(maxsize=32)
def backward_loop(
    plan: LayerPlan, batched_trials: bool, prefilled: frozenset[str], clipped: bool, upward: bool = False
) -> Loop:
    """Return the backward loop of a plan; see `BackwardWriter`. Runs of the same plan share it."""
    return BackwardWriter(plan, batched_trials, prefilled, clipped, upward).loop


def needs_prefill(plan: LayerPlan, name: str) -> bool:
    """Tell whether a state's adjoint at t - 1 may get nothing from step t, or something from later steps as well."""
    sources = [edge.source for es in plan.edges.values() for edge in es]
    lags = {source.data[1] for source in sources if source.op == "state" and source.data[0] == name} - {0}
    return lags != {1} or plan.lag > 1


def runs_of(plan: LayerPlan, edges: list[Edge]) -> tuple[list[Run], list[Edge]]:
    """Return the edges into lanes as runs of neighbouring lanes of equal size, and the other edges."""
    singles = [edge for edge in edges if edge.source.op != "matmul"]
    placed = []
    for edge in edges:
        if edge.source.op == "matmul":
            group = plan.group_of[edge.source]
            lane = next(lane for lane in group.lanes if lane.product is edge.source)
            placed.append((group.index, lane.start, lane, edge))
    placed.sort(key=lambda item: item[:2])
    runs: list[Run] = []
    for index, _, lane, edge in placed:
        last = runs[-1] if runs else None
        if last is not None and last.group.index == index and last.rows[1] == lane.start:
            height = (last.rows[1] - last.rows[0]) // len(last.edges)
            if height == lane.rows and _written_together(plan, last.edges[-1].source, edge.source):
                runs[-1] = Run(last.group, (last.rows[0], lane.stop), (*last.edges, edge))
                continue
        runs.append(Run(plan.groups[index], (lane.start, lane.stop), (edge,)))
    return runs, singles


def _written_together(plan: LayerPlan, a: Node, b: Node) -> bool:
    """Tell whether two products have the same targets, so that each run of them is all first or all later."""
    return plan.targets_of(a) == plan.targets_of(b)


def backward_order(plan: LayerPlan) -> list[Target]:
    """Return the targets so that each comes after everything in the step that takes it."""
    order: list[Target] = []
    names: dict[Node, list[str]] = {}
    for name, expression in plan.states.items():
        names.setdefault(expression, []).append(name)
    for node in plan.order:
        if node.op == "matmul" and plan.group_of[node].index not in order:
            order.append(plan.group_of[node].index)
        if node.op == "across":
            order.append(node)
        order += names.get(node, [])
    hoisted = [name for name, expression in plan.states.items() if expression.dependence < Dependence.STATE]
    return [*reversed(order), *hoisted]


def _clip_state(adjoint: np.ndarray[Any, Any], clip: Callable[[np.ndarray[Any, Any]], None]) -> None:
    clip(adjoint)
