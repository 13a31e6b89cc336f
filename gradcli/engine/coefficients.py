"""The derivative coefficients of a block of steps, computed outside the backward loop into buffers that exist already.

Most of them share factors (the value of a gate, one minus it), so all are written as one program: each shared factor is
computed once, and a temporary array is taken again as soon as nothing needs its value any more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import lru_cache

from gradcli.engine.backward_loop import runs_of
from gradcli.engine.elementwise import ElementwiseWriter, reads_before_it_writes
from gradcli.engine.loop import Key, Loop, LoopWriter
from gradcli.engine.plan import LayerPlan
from gradcli.language.graph import Dependence, Node, reachable


@lru_cache(maxsize=32)
def coefficient_program(plan: LayerPlan, vectors: bool) -> Loop:
    """Return the program that fills in all coefficients of a block that change with the step.

    Its columns are

    * ``("output", "lane", target, run, rows)``, some rows of the coefficients of a run of edges;
      ``("output", "edge", target, source)``, those of another edge;
      with `vectors` also ``("output", "vector", node)``, the vectors of recurrent products that are not kept otherwise;
    * ``("given", node)``, what the forward pass has kept; ``("temporary", rows, number)``.

    Fixed are ``("known", node)``, what depends on parameters alone, and ``("scalar", value)``.
    """
    outputs: dict[Key, Node] = {}
    for target, edges in plan.edges.items():
        runs, singles = runs_of(plan, edges)
        for number, run in enumerate(runs):
            if run.group.same_as:
                continue
            height = (run.rows[1] - run.rows[0]) // len(run.edges)
            for i, edge in enumerate(run.edges):
                outputs["lane", target, number, (i * height, (i + 1) * height)] = edge.coefficient
        for edge in singles:
            if edge.coefficient.dependence > Dependence.PARAMETERS:
                outputs["edge", target, edge.source] = edge.coefficient
    if vectors:
        outputs |= {("vector", g.vector): g.vector for g in plan.groups if not _is_given(plan, g.vector)}
    return _CoefficientWriter(plan, outputs).program


def _is_given(plan: LayerPlan, node: Node) -> bool:
    """Tell whether a node's values come from the forward pass, or from what was known before it."""
    return node.dependence < Dependence.STATE or node.op == "state" or node in plan.stored


class _CoefficientWriter:
    """Writes the program of `coefficient_program` for some outputs."""

    def __init__(self, plan: LayerPlan, outputs: Mapping[Key, Node]) -> None:
        self._plan = plan
        self._writer = LoopWriter(batched_trials=False)
        self._elementwise = ElementwiseWriter(self._writer, self._operand, self._number)
        self._places: dict[Node, str] = {}
        self._free: dict[int, list[str]] = {}
        self._temporaries: Counter[int] = Counter()
        self._write(outputs)
        self.program = self._writer.block()

    def _write(self, outputs: Mapping[Key, Node]) -> None:
        wanted: dict[Node, list[Key]] = {}
        for key, node in outputs.items():
            wanted.setdefault(node, []).append(key)
        given = {node for node in reachable(wanted) if _is_given(self._plan, node)}
        order = [node for node in reachable(wanted, stop=given) if node not in given]
        uses = Counter(arg for node in order for arg in node.args)
        for node in order:
            keys = wanted.get(node, [])
            ends = [arg for arg in dict.fromkeys(node.args) if arg in self._places and arg not in wanted]
            for arg in node.args:
                uses[arg] -= 1
            ends = [arg for arg in ends if not uses[arg]]
            reusable = ends if reads_before_it_writes(node) else []
            self._release(reusable)
            out = self._output(keys[0]) if keys else self._temporary(self._plan.size(node))
            self._elementwise.write(node, out, self._plan.size(node))
            self._release([arg for arg in ends if arg not in reusable])
            self._places[node] = out
        for node, keys in wanted.items():
            for key in keys[1:] if node in self._places else keys:
                self._writer.call("copyto", self._output(key), self._operand(node, node))

    def _release(self, nodes: list[Node]) -> None:
        for node in nodes:
            self._free.setdefault(self._plan.size(node), []).append(self._places[node])

    def _temporary(self, rows: int) -> str:
        free = self._free.get(rows)
        if free:
            return free.pop()
        self._temporaries[rows] += 1
        return self._writer.column("temporary", rows, self._temporaries[rows])

    def _output(self, key: Key) -> str:
        return self._writer.column("output", *key)

    def _number(self, value: float, rows: int) -> str:
        # Over a whole block a scalar operand costs no more than an array, and takes no memory.
        return self._writer.constant("scalar", value)

    def _operand(self, node: Node, like: Node) -> str:
        if node.is_number:
            return self._number(node.data, 1)
        if node.dependence is Dependence.PARAMETERS:
            return self._writer.constant("known", node)
        return self._places[node] if node in self._places else self._writer.column("given", node)
