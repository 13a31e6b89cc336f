"""Which operation of an equation left the finite numbers, and on what: forward, or as a derivative on the way back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from gradcli.diagnostics.nonfinite import Blame
from gradcli.engine.evaluate import Values, evaluate
from gradcli.engine.layer import Layer
from gradcli.engine.problem import Overflow
from gradcli.engine.run import Engine
from gradcli.language.derivative import slopes
from gradcli.language.graph import ELEMENTWISE_OPS, MAPS, Dependence, Node, reachable
from gradcli.language.parser import INPUT_NAME, Equation

Array = np.ndarray[Any, Any]

#: The operations that have a derivative entry by entry.


def blame_forward(engine: Engine, overflow: Overflow) -> Blame:
    """Return which operation first left the finite numbers in a forward pass that overflowed."""
    _, group = engine.group_of(overflow)
    group.losses()  # once more, as the buffers may hold other trials by now
    with np.errstate(all="ignore"):
        return _forward_at(group.layers[overflow.layer], (overflow.step - 1) % group.segment)


def blame_derivative(engine: Engine, overflow: Overflow) -> tuple[int, int, Blame] | None:
    """Return the step and the layer of a derivative for which an adjoint is not finite, and what it is.

    None where no single one is to blame. Goes over the steps up to there once more.

    Args:
        overflow: where the adjoint is not finite.
    """
    first, group = engine.group_of(overflow)
    trials = overflow.trials[first : first + group.problem.trials]
    index = overflow.layer
    lag = group.layers[index].lag
    # The steps that lie behind the adjoint in time first, then its own: within the layer, and in the one above.
    wanted = [(step, index, Dependence.STATE) for step in range(overflow.step + 1, overflow.step + lag + 1)]
    wanted.append((overflow.step, index, Dependence.STATE))
    if not group.problem.bidirectional and index + 1 < len(group.layers):
        wanted.append((overflow.step, index + 1, Dependence.INPUT))
    found: dict[tuple[int, int], Blame | None] = {}
    for lo, hi in group.walk_forward():
        for step, layer, of in wanted:
            if lo < step <= hi:
                with np.errstate(all="ignore"):
                    found[step, layer] = _derivative_at(group.layers[layer], step - lo - 1, trials, of)
        if hi >= overflow.step + lag:
            break
    for step, layer, _ in wanted:
        if (known := found.get((step, layer))) is not None:
            return step, layer, known
    return None


def _forward_at(layer: Layer, index: int) -> Blame:
    """Return what first left the finite numbers at a step of the segment that a layer has just gone over.

    It is the first equation in the order of the text whose value is not finite, and the first operation in it.
    """
    for equation, node, known in _equations(layer, index):
        # In the precision of the run, where a number may be infinite that is finite in the text.
        if not _is_finite(known[node], layer):
            return _first_operation(equation, node, known, layer)
    # Each equation by itself is finite: only in the order in which the loop adds its terms up is a sum too large.
    states = {name for name, array in layer.states.items() if not np.isfinite(array[layer.lag + index]).all()}
    equation = next(e for e in layer.plan.cell.equations if e.is_state and e.name in states)
    return Blame(equation, "sum")


def _derivative_at(layer: Layer, index: int, trials: Array, of: Dependence) -> Blame | None:
    """Return the first derivative at a step of the segment that is not finite; None where each by itself is.

    Args:
        trials: those to look at, (R,) booleans. of: what it is taken with respect to depends on this at least.
    """
    graph = layer.plan.graph
    for equation, root, known in _equations(layer, index):
        for node in reachable([root]):
            if node.op not in ELEMENTWISE_OPS or node not in known:
                continue
            if not all(arg in known and _is_finite(known[arg], layer) for arg in node.args):
                continue
            for arg, slope in slopes(graph, node):
                if arg.dependence < of or slope.is_number:
                    continue
                evaluate([slope], known, layer.parameters.column_ranges)
                value = np.asarray(known[slope], layer.dtype)
                bad = ~np.isfinite(value)
                if value.ndim == 4:
                    bad[:, ~trials] = False
                if bad.any():
                    return _blame(equation, node, known, bad)
    return None


def _equations(layer: Layer, index: int) -> Iterator[tuple[Equation, Node, Values]]:
    """Yield the equations at a step, each with its node and the values of all that is known after it."""
    cell, graph = layer.plan.cell, layer.plan.graph
    known: Values = {n: v for n, v in layer.values.items() if n.dependence is Dependence.PARAMETERS}
    known[graph.input()] = layer.values[graph.input()][index : index + 1]
    for name in layer.plan.states:
        for lag in range(1, layer.plan.lags[name] + 1):
            row = layer.lag - lag + index
            known[graph.state(name, lag)] = layer.states[name][row : row + 1]
            if name == INPUT_NAME:
                known[graph.input(lag)] = known[graph.state(name, lag)]
    for equation in cell.equations:
        node = cell.values[equation.name]
        if node in cell.shapes.matrices:
            continue
        evaluate([node], known, layer.parameters.column_ranges)
        if equation.is_state:
            value = np.asarray(known[node], layer.dtype)
            known[graph.state(equation.name, 0)] = np.broadcast_to(value, layer.states[equation.name][:1].shape)
        yield equation, node, known


def _is_finite(value: Any, layer: Layer) -> bool:
    return bool(np.isfinite(np.asarray(value, layer.dtype)).all())


def _first_operation(equation: Equation, root: Node, known: Values, layer: Layer) -> Blame:
    for node in reachable([root]):
        if node not in known or _is_finite(known[node], layer):
            continue
        if all(arg in known and _is_finite(known[arg], layer) for arg in node.args):
            return _blame(equation, node, known, ~np.isfinite(np.asarray(known[node], layer.dtype)))
    return Blame(equation)


def _blame(equation: Equation, node: Node, known: Values, bad: Array) -> Blame:
    if node.op == "matmul":
        matrix = node.args[0]
        return Blame(equation, "matmul", name=matrix.data if matrix.op == "parameter" else "")
    match node.op:
        case "number":
            return Blame(equation, "number", (float(node.data),))
        case "parameter":
            return Blame(equation, "given", name=node.data)
        case "input":
            return Blame(equation, "given", name=f"{INPUT_NAME}[t-{node.data}]" if node.data else f"{INPUT_NAME}[t]")
        case op if op in MAPS:
            return Blame(equation, "total")
        case "state":  # of earlier steps it would have been found there: it is the one to begin with
            return Blame(equation, "given", name=f"{node.data[0]}_0")
    values = [np.asarray(known[arg]) for arg in node.args]
    shape = np.broadcast_shapes(bad.shape, *(value.shape for value in values))
    place = np.unravel_index(int(np.argmax(np.broadcast_to(bad, shape))), shape)
    name = {"call": node.data, "across": node.data[0] if node.op == "across" else ""}.get(node.op, node.op)
    return Blame(equation, name, tuple(float(np.broadcast_to(value, shape)[place]) for value in values))
