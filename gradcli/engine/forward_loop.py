"""The forward loop of a plan, as straight-line NumPy calls; see `gradcli.engine.loop`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from gradcli.engine.elementwise import ElementwiseWriter, reads_before_it_writes
from gradcli.engine.loop import Key, LoopWriter, Rows
from gradcli.engine.plan import Group, Lane, LayerPlan
from gradcli.language.across import ACROSS
from gradcli.language.graph import Dependence, Node


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
        if same and is_negated(plan, runs[-1][-1]) == is_negated(plan, lane):
            runs[-1].append(lane)
        else:
            runs.append([lane])
    return [FunctionRun(group, tuple(run), is_negated(plan, run[0])) for run in runs]


def is_negated(plan: LayerPlan, lane: Lane) -> bool:
    """Tell whether the forward pass holds the negated value of a lane."""
    return lane.function == "sigmoid" and lane.value not in plan.stored and lane.product not in plan.stored


def on_tape(plan: LayerPlan, group: Group) -> bool:
    """Tell whether the rows of a group are kept for every step."""
    return any(lane.product in plan.stored or lane.value in plan.stored for lane in group.lanes)


def slope_buffer(node: Node) -> str:
    """Return the name of the buffer that keeps the slope of a function across."""
    return f"slope{node.index}"


class ForwardWriter:
    """Writes the forward loop of a plan. `locations` tells where the value of each node is found afterwards."""

    def __init__(self, plan: LayerPlan, batched_trials: bool) -> None:
        self.plan = plan
        self.batched_trials = batched_trials
        self.writer = LoopWriter(batched_trials)
        self._elementwise = ElementwiseWriter(self.writer, self._operand, self._number)
        self.locations: dict[Node, Key] = {}
        self.buffers: dict[str, int] = {}
        self._expressions: dict[Node, list[str]] = {}
        for name, expression in plan.states.items():
            self._expressions.setdefault(expression, []).append(name)
        self._uses = Counter(arg for node in plan.order for arg in node.args)
        done: set[Node] = set()
        for node in plan.order:
            if node not in done:
                done |= self._emit(node)
            self._uses.subtract(node.args)
        self.loop = self.writer.loop()

    def _emit(self, node: Node) -> set[Node]:
        if node.op == "matmul":
            return self._emit_group(self.plan.group_of[node])
        if node.op == "across":
            self._emit_across(node)
        elif node.op != "state":
            self._elementwise.write(node, self._place(node), self.plan.size(node))
        self._copy_to_states(node)
        return {node}

    def _emit_across(self, node: Node) -> None:
        w, plan = self.writer, self.plan
        name, eps = node.data
        function = ACROSS[name]
        operands = [self._ref(node.args[0]), self._place(node)]
        if function.is_norm:
            slope, rows = slope_buffer(node), plan.slope_rows(node)
            self.buffers[slope] = rows
            operands.append(w.column("tape", slope, (0, rows)))
        axis = w.features_axis + function.over_sequences
        w.bound(f"across{node.index}", partial(function.write_value, eps, axis), *operands)

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
            own: Key = ("scratch", f"node{node.index}", self.plan.size(node))
            self.locations[node] = next(self._free_scratch(node), own)
        return self._ref(node)

    def _free_scratch(self, node: Node) -> Iterator[Key]:
        """Yield the scratch of arguments that nothing else needs any more: what is read last stays in the cache."""
        if reads_before_it_writes(node):
            for arg in node.args:
                key = self.locations.get(arg, ())
                whole = key[:1] == ("scratch",) and key[2:] == (self.plan.size(node),)
                if whole and self._uses[arg] == node.args.count(arg):
                    yield key

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
        self._emit_products(group, whole)
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
        done = {lane.product for other in (group.window.groups if group.window else ()) for lane in other.lanes}
        for lane in group.lanes:
            for node in dict.fromkeys((lane.product, lane.value)):
                done.add(node)
                self._copy_to_states(node)
        for run in function_runs(plan, group):
            self._emit_run(run, rows_of(*run.rows))
            done |= {lane.result for lane in run.lanes if lane.result is not None}
        return done

    def _emit_products(self, group: Group, out: str) -> None:
        """Write the products of a group, and add up those of its window."""
        w, window = self.writer, group.window
        if window is not None and not self.batched_trials and window.pays(self.plan.size(group.vector)):
            matrix, vectors = w.constant("matrix of window", group.index), w.column("window", window.state, window.lags)
            w.call(w.product, matrix, vectors, out)
            return
        w.call(w.product, w.constant("matrix", group.index), self._ref(group.vector), out)
        for other in window.groups if window is not None else ():
            if other is not group:
                term = w.constant("scratch", f"group{other.index}", other.rows, (0, other.rows))
                w.call(w.product, w.constant("matrix", other.index), self._ref(other.vector), term)
                w.call("add", out, term, out)

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
        self._elementwise.function(run.lanes[0].function or "", argument, out, rows, negated=run.negated)
        for result in results:
            self._copy_to_states(result)
