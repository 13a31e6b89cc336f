"""The loops: one NumPy call after another into buffers that exist already, as straight-line Python.

The source is made from the plan alone. Nothing of the user's text enters it: names are v0, v1, ... and numbers, arrays
and functions are bound as objects, so there is nothing in it that a spec could execute.

A loop names what it works on by `Key`s, which the layer resolves to arrays:

* columns, one view a step: ``("state", name, lag)``, ``("tape", buffer, rows)``, ``("hoisted", node)``,
  ``("addend", group, rows)``, ``("adjoint", name, lag)``, ``("coefficient", target, run)``, ``("lanes", group, rows)``;
* fixed, the same array at every step: ``("matrix", group)``, ``("transposed", group)``, ``("scratch", ...)``,
  ``("number", value, rows)``, ``("leaf", node)``, ``("rescale", frame, frame)``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from gradcli.engine.plan import Edge, Group, Lane, LayerPlan, Target
from gradcli.language.functions import FUNCTIONS
from gradcli.language.graph import Dependence, Node

Key = tuple[Any, ...]
Rows = tuple[int, int]


@dataclass(frozen=True)
class Loop:
    """A compiled time loop: ``run(columns, fixed)`` with a sequence of views for each column key, in order."""

    source: str
    columns: tuple[Key, ...]
    fixed: tuple[Key, ...]
    run: Callable[[Any, Any], None]


class _Writer:
    """Collects the lines of one loop and the keys that they use."""

    def __init__(self, batched_trials: bool) -> None:
        self.lines: list[str] = []
        self.columns: dict[Key, str] = {}
        self.fixed: dict[Key, str] = {}
        self.names: dict[str, Any] = {}
        self.product = "matmul" if batched_trials else "dot"

    def column(self, *key: Any) -> str:
        return self.columns.setdefault(key, f"v{len(self.columns)}")

    def constant(self, *key: Any) -> str:
        return self.fixed.setdefault(key, f"p{len(self.fixed)}")

    def call(self, function: str, *args: str) -> None:
        self.names.setdefault(function, getattr(np, function, None) or FUNCTIONS[function].evaluate)
        self.lines.append(f"{function}({', '.join(args)})")

    def finish(self) -> Loop:
        body = [f"        {line}" for line in self.lines] or ["        pass"]
        source = "\n".join(
            [
                "def run(columns, fixed):",
                f"    [{', '.join(self.fixed.values())}] = fixed" if self.fixed else "    pass",
                f"    for [{', '.join(self.columns.values())}] in zip(*columns):" if self.columns else "    if False:",
                *body,
            ]
        )
        namespace: dict[str, Any] = dict(self.names)
        exec(compile(source, "<time loop>", "exec"), namespace)  # the plan's own text, see the module's docstring
        return Loop(source, tuple(self.columns), tuple(self.fixed), namespace["run"])


# The forward loop.


@dataclass(frozen=True)
class FunctionRun:
    """Lanes of a group that lie side by side and share a function; their results fill one buffer."""

    group: Group
    lanes: tuple[Lane, ...]
    negated: bool

    @property
    def key(self) -> str:
        return f"results{self.group.index}.{self.lanes[0].start}"

    @property
    def rows(self) -> Rows:
        return self.lanes[0].start, self.lanes[-1].stop


def function_runs(plan: LayerPlan, group: Group) -> list[FunctionRun]:
    """Return the runs of lanes of a group that one call serves.

    A run of sigmoids works on the negated argument, for which the stacked matrix and addend carry the sign, unless that
    argument itself is needed by the backward pass.
    """
    runs: list[list[Lane]] = []
    for lane in group.lanes:
        if lane.function is None:
            continue
        last = runs[-1][-1] if runs else None
        same = last is not None and last.function == lane.function and last.stop == lane.start
        if same and _negatable(plan, runs[-1][-1]) == _negatable(plan, lane):
            runs[-1].append(lane)
        else:
            runs.append([lane])
    return [FunctionRun(group, tuple(run), _negatable(plan, run[0])) for run in runs]


def _negatable(plan: LayerPlan, lane: Lane) -> bool:
    return lane.function == "sigmoid" and lane.value not in plan.stored and lane.product not in plan.stored


def is_negated(plan: LayerPlan, lane: Lane) -> bool:
    """Tell whether the forward pass holds the negated value of a lane."""
    return _negatable(plan, lane)


def on_tape(plan: LayerPlan, group: Group) -> bool:
    """Tell whether the rows of a group are kept for every step."""
    return any(lane.product in plan.stored or lane.value in plan.stored for lane in group.lanes)


class ForwardWriter:
    """Writes the forward loop of a plan. `locations` tells where the value of each node is found afterwards."""

    def __init__(self, plan: LayerPlan, batched_trials: bool) -> None:
        self.plan = plan
        self.writer = _Writer(batched_trials)
        self.locations: dict[Node, Key] = {}
        self.buffers: dict[str, int] = {}
        self._expressions: dict[Node, list[str]] = {}
        for name, expression in plan.states.items():
            self._expressions.setdefault(expression, []).append(name)
        done: set[Node] = set()
        for node in plan.order:
            if node not in done:
                done |= self._emit(node)
        self.loop = self.writer.finish()

    def _emit(self, node: Node) -> set[Node]:
        if node.op == "matmul":
            return self._emit_group(self.plan.group_of[node])
        if node.op != "state":
            self._elementwise(node, self._place(node))
        self._copy_to_states(node)
        return {node}

    def _place(self, node: Node) -> str:
        """Decide where the value of an elementwise node goes, and return its variable."""
        states = self._expressions.get(node)
        if states:
            self.locations[node] = ("state", states[0], 0)
        elif node in self.plan.stored:
            buffer = f"node{node.index}"
            self.buffers[buffer] = self.plan.size(node)
            self.locations[node] = ("tape", buffer, (0, self.plan.size(node)))
        else:
            self.locations[node] = ("scratch", f"node{node.index}", self.plan.size(node))
        return self._ref(node)

    def _copy_to_states(self, node: Node) -> None:
        for name in self._expressions.get(node, ()):
            if self.locations.get(node) != ("state", name, 0):
                self.writer.call("copyto", self.writer.column("state", name, 0), self._ref(node))

    def _ref(self, node: Node) -> str:
        """Return the variable that holds a node's value in the loop."""
        if node.is_number:
            return self._number(node.data, 1)
        if node.op == "state":
            return self.writer.column("state", *node.data)
        if node.dependence is Dependence.PARAMETERS:
            return self.writer.constant("leaf", node)
        if node.dependence is Dependence.INPUT:
            return self.writer.column("hoisted", node)
        key = self.locations[node]
        return self.writer.constant(*key) if key[0] == "scratch" else self.writer.column(*key)

    def _number(self, value: float, rows: int) -> str:
        return self.writer.constant("number", value, rows)

    def _operand(self, node: Node, like: Node) -> str:
        return self._number(node.data, self.plan.size(like)) if node.is_number else self._ref(node)

    def _emit_group(self, group: Group) -> set[Node]:
        w, plan = self.writer, self.plan
        tape = on_tape(plan, group)
        name = f"group{group.index}"
        if tape:
            self.buffers[name] = group.rows

        def rows_of(lo: int, hi: int) -> str:
            return w.column("tape", name, (lo, hi)) if tape else w.constant("scratch", name, group.rows, (lo, hi))

        only = group.lanes[0] if len(group.lanes) == 1 else None
        straight = only is not None and bool(self._expressions.get(only.value))
        if straight and only is not None:
            self.locations[only.value] = ("state", self._expressions[only.value][0], 0)
        whole = self._ref(only.value) if straight and only and only.addend is None else rows_of(0, group.rows)
        w.call(w.product, w.constant("matrix", group.index), self._ref(group.vector), whole)
        added = [lane for lane in group.lanes if lane.addend is not None]
        if added:
            lo, hi = added[0].start, added[-1].stop
            out = self._ref(only.value) if straight and only is not None else rows_of(lo, hi)
            w.call("add", rows_of(lo, hi), w.column("addend", group.index, (lo, hi)), out)
        for lane in group.lanes:
            key: Key = ("tape", name, (lane.start, lane.stop))
            if not tape:
                key = ("scratch", name, group.rows, (lane.start, lane.stop))
            self.locations.setdefault(lane.product, key)
            self.locations.setdefault(lane.value, key)
        done = set()
        for lane in group.lanes:
            for node in dict.fromkeys((lane.product, lane.value)):
                done.add(node)
                self._copy_to_states(node)
        for run in function_runs(plan, group):
            self._emit_run(run, rows_of(*run.rows))
            done |= {lane.result for lane in run.lanes if lane.result is not None}
        return done

    def _emit_run(self, run: FunctionRun, argument: str) -> None:
        results = [lane.result for lane in run.lanes if lane.result is not None]
        rows = run.rows[1] - run.rows[0]
        if len(results) == 1 and self._expressions.get(results[0]):
            out = self._place(results[0])
        else:
            tape = any(result in self.plan.stored for result in results)
            if tape:
                self.buffers[run.key] = rows
                out = self.writer.column("tape", run.key, (0, rows))
            else:
                out = self.writer.constant("scratch", run.key, rows, (0, rows))
            start = run.rows[0]
            for lane, result in zip(run.lanes, results, strict=True):
                part = (lane.start - start, lane.stop - start)
                self.locations[result] = ("tape", run.key, part) if tape else ("scratch", run.key, rows, part)
        self._function(run.lanes[0].function or "", argument, out, rows, negated=run.negated)
        for result in results:
            self._copy_to_states(result)

    def _function(self, name: str, argument: str, out: str, rows: int, negated: bool = False) -> None:
        w = self.writer
        if name == "sigmoid":
            # 1 / (1 + exp(-a)), spelled out so that a negated argument saves a call.
            if not negated:
                w.call("negative", argument, out)
            w.call("exp", argument if negated else out, out)
            w.call("add", out, self._number(1.0, rows), out)
            w.call("reciprocal", out, out)
        elif name == "relu":
            w.call("maximum", argument, self._number(0.0, rows), out)
        else:
            w.call(name, argument, out)

    def _elementwise(self, node: Node, out: str) -> None:
        w = self.writer
        match node.op:
            case "sum":
                self._sum(node, out)
            case "mul" | "div":
                a, b = (self._operand(arg, node) for arg in node.args)
                w.call("multiply" if node.op == "mul" else "divide", a, b, out)
            case "pow":
                base, exponent = node.args
                a = self._operand(base, node)
                if exponent.is_number and exponent.data == 2.0:
                    w.call("multiply", a, a, out)
                else:
                    w.call("power", a, self._operand(exponent, node), out)
            case "call":
                self._function(node.data, self._operand(node.args[0], node), out, self.plan.size(node))
            case _:
                raise AssertionError(f"{node} is not elementwise")

    def _sum(self, node: Node, out: str) -> None:
        w = self.writer
        terms = sorted(zip(node.data, node.args, strict=True), key=lambda term: -term[0])
        refs = [(sign, self._operand(arg, node)) for sign, arg in terms]
        sign, first = refs[0]
        if sign < 0:
            w.call("negative", first, out)
            first = out
        elif len(refs) == 1:
            w.call("copyto", out, first)
        for sign, ref in refs[1:]:
            w.call("add" if sign > 0 else "subtract", first, ref, out)
            first = out


# The backward loop.


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
    runs: for each target, the runs into lanes; `singles` its other edges, each with a coefficient array of its own.
    """

    def __init__(self, plan: LayerPlan, batched_trials: bool, prefilled: frozenset[str], clipped: bool) -> None:
        self.plan = plan
        self.writer = _Writer(batched_trials)
        self.batched_trials = batched_trials
        self.clipped = clipped
        self._rescaled: dict[tuple[str, int], str] = {}
        self._written: set[str] = {f"{name}@0" for name in plan.states} | {f"{name}@1" for name in prefilled}
        self._scratch = 0
        for target in _backward_order(plan):
            self._rescaled.clear()
            if isinstance(target, str):
                self._emit_state(target)
            else:
                self._emit_group(plan.groups[target])
        self.loop = self.writer.finish()

    def _emit_state(self, name: str) -> None:
        w = self.writer
        adjoint = w.column("adjoint", name, 0)
        if self.clipped:
            w.names["clip_state"] = _clip_state
            w.lines.append(f"clip_state({adjoint}, {w.constant('clip', name)})")
        frame = self.plan.frames.of_state[name]
        self._spread(name, adjoint, frame, self.plan.edges[name], self.plan.cell.shapes.states[name])

    def _emit_group(self, group: Group) -> None:
        w, plan = self.writer, self.plan
        lanes = w.column("lanes", group.index, (0, group.rows))
        for lane in group.lanes:
            if f"lane{lane.product.index}" not in self._written:
                # Nothing in this step takes the product elementwise (all its derivatives are zero).
                w.call("copyto", w.column("lanes", group.index, (lane.start, lane.stop)), self._zero(lane.rows))
        edges = plan.edges[group.index]
        transposed = w.constant("transposed", group.index)
        size = plan.size(group.vector)
        if len(edges) == 1 and edges[0].source is group.vector and self._same_frame(group.frame, group.vector):
            source = group.vector
            if source.op == "state" and self._first(self._slot(source)):
                w.call(w.product, transposed, lanes, self._destination(source))
                return
        if not edges:
            return
        adjoint = self._temporary(size)
        w.call(w.product, transposed, lanes, adjoint)
        self._spread(group.index, adjoint, group.frame, edges, size)

    def _zero(self, rows: int) -> str:
        return self.writer.constant("number", 0.0, rows)

    def _spread(self, target: Target, adjoint: str, frame: int, edges: list[Edge], size: int) -> None:
        """Pass the adjoint of a target on to everything that its equation takes."""
        w = self.writer
        runs, singles = runs_of(self.plan, edges)
        for number, run in enumerate(runs):
            incoming = self._in_frame(adjoint, frame, run.group.frame, size)
            fresh = {f"lane{edge.source.index}" not in self._written for edge in run.edges}
            self._written |= {f"lane{edge.source.index}" for edge in run.edges}
            several = len(run.edges) > 1
            coefficient = w.column("coefficient", target, number, several)
            if several and self.batched_trials:
                incoming = f"{incoming}[:, None]"
            out = w.column("lanes", run.group.index, run.rows, len(run.edges) if several else 0)
            if fresh == {True}:
                w.call("multiply", coefficient, incoming, out)
            else:
                term = self._temporary(run.rows[1] - run.rows[0], len(run.edges) if several else 0)
                w.call("multiply", coefficient, incoming, term)
                w.call("add", out, term, out)
        for edge in singles:
            self._single(target, adjoint, frame, edge, size)

    def _single(self, target: Target, adjoint: str, frame: int, edge: Edge, size: int) -> None:
        w = self.writer
        incoming = self._in_frame(adjoint, frame, self._frame_of(edge.source), size)
        out = self._destination(edge.source)
        fresh = self._first(self._slot(edge.source))
        coefficient = edge.coefficient
        if coefficient.is_number and coefficient.data in (1.0, -1.0):
            if coefficient.data == 1.0:
                w.call("copyto" if fresh else "add", out, incoming, *([] if fresh else [out]))
            elif fresh:
                w.call("negative", incoming, out)
            else:
                w.call("subtract", out, incoming, out)
            return
        if coefficient.is_number:
            factor = w.constant("number", coefficient.data, size)
        elif coefficient.dependence is Dependence.PARAMETERS:
            factor = w.constant("leaf", coefficient)
        else:
            factor = w.column("coefficient", target, edge.source)
        if fresh:
            w.call("multiply", factor, incoming, out)
        else:
            term = self._temporary(size)
            w.call("multiply", factor, incoming, term)
            w.call("add", out, term, out)

    def _in_frame(self, adjoint: str, frame: int, wanted: int, size: int) -> str:
        if frame == wanted:
            return adjoint
        if (adjoint, wanted) not in self._rescaled:
            out = self._temporary(size)
            self.writer.call("multiply", adjoint, self.writer.constant("rescale", frame, wanted), out)
            self._rescaled[adjoint, wanted] = out
        return self._rescaled[adjoint, wanted]

    def _same_frame(self, frame: int, source: Node) -> bool:
        return source.op == "state" and frame == self._frame_of(source)

    def _frame_of(self, source: Node) -> int:
        frames = self.plan.frames
        return frames.of_state[source.data[0]] if source.op == "state" else frames.of_product[source]

    def _destination(self, source: Node) -> str:
        return self.writer.column("adjoint", *source.data)

    def _slot(self, source: Node) -> str:
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
def backward_loop(plan: LayerPlan, batched_trials: bool, prefilled: frozenset[str], clipped: bool) -> Loop:
    """Return the backward loop of a plan; see `BackwardWriter`. Runs of the same plan share it."""
    return BackwardWriter(plan, batched_trials, prefilled, clipped).loop


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


def _backward_order(plan: LayerPlan) -> list[Target]:
    """Return states and groups so that each comes after everything in the step that takes it."""
    order: list[Target] = []
    names: dict[Node, list[str]] = {}
    for name, expression in plan.states.items():
        names.setdefault(expression, []).append(name)
    for node in plan.order:
        if node.op == "matmul" and plan.group_of[node].index not in order:
            order.append(plan.group_of[node].index)
        order += names.get(node, [])
    hoisted = [name for name, expression in plan.states.items() if expression.dependence < Dependence.STATE]
    return [*reversed(order), *hoisted]


def _clip_state(adjoint: np.ndarray[Any, Any], clip: Callable[[np.ndarray[Any, Any]], None]) -> None:
    clip(adjoint)
