"""Expressions to arrays, for a block of steps at once, outside the loop; and their adjoints.

Layouts, with n steps, R trials, B sequences: a vector that changes with the step is (n, R, size, B), one that does not
is (R, size, 1), a matrix is (R, rows, columns), a number is a float.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from gradcli.engine.scaled import Scaled, exponent_of, scale_by, summed_products_of_columns
from gradcli.language.across import ACROSS
from gradcli.language.derivative import slopes
from gradcli.language.functions import FUNCTIONS
from gradcli.language.graph import MAPS, VIEW, Dependence, Graph, Node, reachable

Array = np.ndarray[Any, Any]
Values = dict[Node, Any]

#: A vector whose largest entry is less than so many powers of two from 1 is multiplied as it is.
_NEAR_ONE = 30


def evaluate(roots: Iterable[Node], values: Values, columns: Mapping[Node, tuple[int, int]]) -> None:
    """Add the values of `roots`, and of all that they need, to `values`.

    Args:
        roots: the nodes wanted.
        values: what is known already; every input, state and parameter below `roots` must be there.
        columns: for each ``columns`` node the range of columns that it takes.
    """
    unknown = [node for node in roots if node not in values]
    for node in reachable(unknown, stop=values.keys()) if unknown else ():
        if node not in values:
            values[node] = _value(node, [values[arg] for arg in node.args], columns)


def _value(node: Node, args: list[Any], columns: Mapping[Node, tuple[int, int]]) -> Any:
    match node.op:
        case "number":
            return node.data
        case "sum":
            total = args[0] if node.data[0] > 0 else -args[0]
            for sign, arg in zip(node.data[1:], args[1:], strict=True):
                total = total + arg if sign > 0 else total - arg
            return total
        case "mul":
            return args[0] * args[1]
        case "div":
            return np.divide(args[0], args[1])
        case "pow":
            return np.square(args[0]) if node.args[1].is_number and args[1] == 2.0 else np.power(args[0], args[1])
        case "call":
            return _call(node.data, args[0])
        case "across":
            return _across(node, args[0])[0]
        case "matmul":
            return product(args[0], args[1])
        case "transpose":
            return args[0].swapaxes(-1, -2)
        case "columns":
            start, stop = columns[node]
            return args[0][:, :, start:stop]
        case "entries":
            return args[0].reshape(len(args[0]), -1, 1)
        case "identity":
            return np.eye(node.data).reshape(1, -1, 1)
        case op if op in MAPS:
            return mapped(node, args[0])
        case "largest":
            return args[0].max(axis=-2, keepdims=True)
        case "maximum" | "minimum":
            return getattr(np, node.op)(*args)
        case "greater" | "greater_equal" | "equal":
            return getattr(np, node.op)(*args).astype(np.result_type(*args, np.float32))
        case "where":
            return np.where(np.asarray(args[0]) != 0, args[1], args[2])
        case "stop" | "carried":
            return args[0]
        case "spike":
            return _call("_positive", args[0])
        case "stack":
            return np.concatenate(args, axis=1)
        case "beside":
            return np.concatenate(args, axis=2)
        case _:
            raise AssertionError(f"the value of {node} was not given")


# Maps from one shape to another: (..., entries, B), where entries are those of an array of some shape.


def _as_array(values: Array, shape: tuple[int, ...]) -> Array:
    """Return (..., entries, B) as (..., *shape, B); one entry that stands for all of them is repeated."""
    if values.shape[-2] == 1 < math.prod(shape):
        values = np.broadcast_to(values, (*values.shape[:-2], math.prod(shape), values.shape[-1]))
    return values.reshape(*values.shape[:-2], *shape, values.shape[-1])


def _indices(node: Node) -> Array:
    """Return which entry of its argument each entry of a view is."""
    start, shape, strides = node.data[:VIEW]
    steps = [np.arange(size) * stride for size, stride in zip(shape, strides, strict=True)]
    return np.asarray(start + sum(np.ix_(*steps))).ravel()


def mapped(node: Node, values: Array) -> Array:
    """Return the value of a map from the entries of its argument; a number is one entry."""
    values = np.asarray(values)
    values = values.reshape(1, 1, 1) if values.ndim == 0 else values
    match node.op:
        case "view":
            return values[..., _indices(node), :]
        case "pad":
            start, size = node.data
            out = np.zeros((*values.shape[:-2], size, values.shape[-1]), values.dtype)
            out[..., start : start + values.shape[-2], :] = values
            return out
        case "total":
            shape, axis = node.data
            summed = _as_array(values, shape).sum(axis=axis - len(shape) - 1)
            return np.asarray(summed).reshape(*values.shape[:-2], -1, values.shape[-1])
        case _:
            return cumulated(values, reverse=node.data)


def cumulated(values: Array, *, reverse: bool) -> Array:
    """Return the cumulated sums of entries, from the first on or from the last."""
    return np.cumsum(values[..., ::-1, :], axis=-2)[..., ::-1, :] if reverse else np.cumsum(values, axis=-2)


def over_argument(node: Node, adjoint: Array) -> Array:
    """Return the adjoint of what is summed over an axis, entry by entry, from that of the sum."""
    shape, axis = node.data
    kept = [size for place, size in enumerate(shape) if place != axis]
    found = np.expand_dims(adjoint.reshape(*adjoint.shape[:-2], *kept, adjoint.shape[-1]), axis - len(shape) - 1)
    whole = np.broadcast_to(found, (*adjoint.shape[:-2], *shape, adjoint.shape[-1]))
    return whole.reshape(*adjoint.shape[:-2], -1, adjoint.shape[-1])


def through_map(node: Node, adjoint: Array, size: int) -> Array:
    """Return the adjoint of the argument of a map, (..., size, B), from that of its result.

    With y = L a for a fixed matrix L of ones and zeros it is L^T dL/dy.
    """
    match node.op:
        case "total":
            return over_argument(node, adjoint)
        case "pad":
            start = node.data[0]
            return adjoint[..., start : start + size, :]
        case "cumsum":
            return cumulated(adjoint, reverse=not node.data)
        case _:
            start, shape, strides = node.data[:VIEW]
            array = _as_array(adjoint, shape)
            same = tuple(axis - len(shape) - 1 for axis, stride in enumerate(strides) if stride == 0)
            summed = array.sum(axis=same, keepdims=True).reshape(*adjoint.shape[:-2], -1, adjoint.shape[-1])
            first = [np.arange(size if stride else 1) * stride for size, stride in zip(shape, strides, strict=True)]
            out = np.zeros((*adjoint.shape[:-2], size, adjoint.shape[-1]), adjoint.dtype)
            out[..., np.asarray(start + sum(np.ix_(*first))).ravel(), :] = summed
            return out


def _call(name: str, argument: Any) -> Any:
    a = np.asarray(argument)
    out = np.empty_like(a, dtype=a.dtype if a.dtype.kind == "f" else np.float64)
    FUNCTIONS[name].evaluate(a, out)
    return float(out) if out.ndim == 0 else out


def _across(node: Node, argument: Array) -> tuple[Array, Array | None, int]:
    """Return the value of a function across, its slope, and the axis that it goes over."""
    name, eps = node.data
    function = ACROSS[name]
    axis = argument.ndim - (1 if function.over_sequences else 2)
    return *function.evaluate(argument, eps, axis), axis


def through_across(node: Node, argument: Array, adjoint: Array) -> Array:
    """Return the adjoint of the argument of a function across."""
    y, slope, axis = _across(node, argument)
    out = np.empty_like(adjoint)
    ACROSS[node.data[0]].apply_jacobian(axis, y, slope, adjoint, out)
    return out


def product(matrix: Array, vector: Array) -> Array:
    """Return ``matrix @ vector`` for a block: (R, M, K) with (n, R, K, B) or (R, K, 1) -> (n, R, M, B) or (R, M, 1).

    With one sequence the steps take its place as columns, so that a block is one large product for each trial.
    """
    if vector.ndim == 4 and vector.shape[-1] == 1:
        if len(matrix) == 1:
            return np.asarray(vector[:, 0, :, 0] @ matrix[0].T)[:, None, :, None]
        steps = vector[..., 0].transpose(1, 0, 2)
        return np.asarray(np.matmul(steps, matrix.swapaxes(-1, -2)).transpose(1, 0, 2))[..., None]
    return np.asarray(np.matmul(matrix, vector))


def product_into(out: Array, matrix: Array, vector: Array) -> None:
    """Write ``matrix @ vector`` for a block into a buffer; see `product`."""
    if vector.shape[-1] > 1:
        np.matmul(matrix, vector, out=out)
    elif len(matrix) == 1:
        np.matmul(vector[:, 0, :, 0], matrix[0].T, out=out[:, 0, :, 0])
    else:
        steps, rows = vector[..., 0].swapaxes(0, 1), out[..., 0].swapaxes(0, 1)
        np.matmul(steps, matrix.swapaxes(-1, -2), out=rows)


def outer(adjoint: Array, vector: Array) -> Array:
    """Return the gradient of a matrix from ``matrix @ vector``: the sum over steps and sequences, (R, M, K)."""
    n, trials, rows, batch = adjoint.shape
    if trials == batch == 1:
        columns = np.broadcast_to(vector, (n, 1, vector.shape[-2], 1))[:, 0, :, 0]
        return np.asarray(adjoint[:, 0, :, 0].T @ columns)[None]
    left = adjoint.transpose(1, 2, 0, 3).reshape(trials, rows, n * batch)
    right = np.broadcast_to(vector, (n, trials, vector.shape[-2], batch)).transpose(1, 0, 3, 2)
    return np.asarray(np.matmul(left, right.reshape(trials, n * batch, -1)))


class HoistedAdjoints:
    """Adjoints through what is computed outside the loop, for one block.

    adjoints: of nodes that depend on the input, (n, R, size, B).
    gradients: of nodes that depend on parameters alone, one for each trial, summed over steps and sequences.

    Args:
        weight: what each sequence's adjoints count in the sums, (R, 1, B).
        exponent: the power of two of the sums, (R,).
        to_input: whether the adjoint of the input itself is wanted.
        by_step: whether the gradients are those of each step by itself, with the steps before the trials.
    """

    def __init__(
        self,
        graph: Graph,
        values: Values,
        columns: Mapping[Node, tuple[int, int]],
        weight: Array,
        exponent: Array,
        to_input: bool,
        by_step: bool = False,
    ) -> None:
        self._by_step = by_step
        self._graph = graph
        self._values = values
        self._columns = columns
        self._weight, self._exponent = weight, exponent
        self._to_input = to_input
        self.adjoints: dict[Node, Array] = {}
        self.gradients: dict[Node, Scaled] = {}

    def receive(self, node: Node, adjoint: Array) -> None:
        """Add to the adjoint of a hoisted node: (n, R, size, B)."""
        if node.is_number:
            return
        if node.dependence is Dependence.PARAMETERS:
            over = 3 if self._by_step else (0, 3)
            self._receive_sum(node, (adjoint * self._weight).sum(axis=over)[..., None])
        else:
            self.adjoints[node] = self.adjoints[node] + adjoint if node in self.adjoints else adjoint

    def _receive_sum(self, node: Node, summed: Array) -> None:
        """Add an adjoint summed over steps and sequences, (R, size, 1), to the gradient of a vector or scalar."""
        evaluate([node], self._values, self._columns)
        if np.shape(self._values[node])[-2] == 1 < summed.shape[-2]:
            summed = summed.sum(axis=-2, keepdims=True)
        self._receive_gradient(node, Scaled(summed, np.broadcast_to(self._exponent, summed.shape[:-2])))

    def _receive_gradient(self, node: Node, gradient: Scaled) -> None:
        """Add to the gradient of a node that depends on parameters alone."""
        self.gradients[node] = self.gradients[node].add(gradient) if node in self.gradients else gradient

    def _receive_product(self, matrix: Node, adjoint: Array, vector: Array) -> None:
        """Add the gradient that a matrix gets from ``matrix @ vector``."""
        # Of a vector as small as 2**-700 nothing would be left beside an adjoint of 2**-400.
        if self._by_step:
            vector = np.broadcast_to(vector, (len(adjoint), *vector.shape[-3:]))
            exponent = np.broadcast_to(self._exponent, adjoint.shape[:2])
            columns = np.broadcast_to(exponent[..., None], (*exponent.shape, adjoint.shape[-1]))
            self._receive_gradient(matrix, summed_products_of_columns(adjoint * self._weight, vector, columns))
            return
        near_one, shift = _near_one(vector)
        self._receive_gradient(matrix, Scaled(outer(adjoint * self._weight, near_one), self._exponent + shift))

    def propagate(self) -> None:
        """Carry the adjoints of all nodes that depend on the input down to the input and to parameters."""
        for node in reversed(reachable(list(self.adjoints))):
            if node.dependence is not Dependence.INPUT or node.op == "input" or node not in self.adjoints:
                continue
            adjoint = self.adjoints[node]
            if node.op == "matmul":
                matrix, vector = node.args
                evaluate([matrix, vector], self._values, self._columns)
                self._receive_product(matrix, adjoint, self._values[vector])
                if vector.op != "input" or self._to_input:
                    self.receive(vector, product(self._values[matrix].swapaxes(-1, -2), adjoint))
                continue
            if node.op == "across":
                evaluate(node.args, self._values, self._columns)
                self.receive(node.args[0], through_across(node, self._values[node.args[0]], adjoint))
                continue
            if node.op in MAPS and node.args[0].is_number:
                continue
            if node.op in MAPS:
                evaluate(node.args, self._values, self._columns)
                self.receive(node.args[0], through_map(node, adjoint, np.shape(self._values[node.args[0]])[-2]))
                continue
            for arg, slope in slopes(self._graph, node):
                if not arg.is_number:
                    evaluate([slope], self._values, self._columns)
                    self.receive(arg, adjoint * self._values[slope])


def parameter_gradients(
    graph: Graph, gradients: dict[Node, Scaled], values: Values, columns: Mapping[Node, tuple[int, int]]
) -> dict[str, Scaled]:
    """Return the gradient of each parameter from those of the nodes that depend on parameters alone."""
    for node in reversed(reachable(list(gradients))):
        if node not in gradients or not node.args:
            continue
        gradient = gradients[node]
        for arg, contribution in _pull_back(graph, node, gradient, values, columns):
            gradients[arg] = gradients[arg].add(contribution) if arg in gradients else contribution
    return {node.data: gradient for node, gradient in gradients.items() if node.op == "parameter"}


def _pull_back(
    graph: Graph, node: Node, gradient: Scaled, values: Values, columns: Mapping[Node, tuple[int, int]]
) -> list[tuple[Node, Scaled]]:
    evaluate([node], values, columns)
    gradient = gradient.normalised()

    def times(value: Any, multiply: Callable[[Array, Any], Array]) -> Scaled:
        """Return the product of the gradient and a value, neither of which is too small for the other."""
        mantissa, shift = _near_one(value)
        return Scaled(multiply(gradient.mantissa, mantissa), gradient.exponent + shift).normalised()

    match node.op:
        case "transpose":
            return [(node.args[0], Scaled(gradient.mantissa.swapaxes(-1, -2), gradient.exponent))]
        case "columns":
            start, stop = columns[node]
            rows_columns = np.shape(values[node.args[0]])[-2:]
            whole = np.zeros((*gradient.mantissa.shape[:-2], *rows_columns), gradient.mantissa.dtype)
            whole[..., start:stop] = gradient.mantissa
            return [(node.args[0], Scaled(whole, gradient.exponent))]
        case "beside":
            borders = np.cumsum([values[arg].shape[2] for arg in node.args])
            parts = np.split(gradient.mantissa, borders[:-1], axis=-1)
            return [(arg, Scaled(part, gradient.exponent)) for arg, part in zip(node.args, parts, strict=True)]
        case "matmul":
            matrix, vector = node.args
            to_matrix = times(values[vector], lambda g, v: np.matmul(g, v.swapaxes(-1, -2)))
            to_vector = times(values[matrix], lambda g, m: np.matmul(m.swapaxes(-1, -2), g))
            return [(matrix, to_matrix), (vector, to_vector)]
        case "entries":
            whole = gradient.mantissa.reshape(*gradient.mantissa.shape[:-2], *node.data)
            return [(node.args[0], Scaled(whole, gradient.exponent))]
        case op if op in MAPS and node.args[0].is_number:
            return []
        case op if op in MAPS:
            through = through_map(node, _whole(gradient.mantissa, values[node]), np.shape(values[node.args[0]])[-2])
            return [(node.args[0], Scaled(through, gradient.exponent).normalised())]
        case "across":
            argument = values[node.args[0]]
            argument = np.broadcast_to(argument, (*gradient.mantissa.shape[:-2], *argument.shape[-2:]))
            through = through_across(node, argument, gradient.mantissa)
            return [(node.args[0], Scaled(through, gradient.exponent).normalised())]
        case _:
            found = []
            for arg, slope in slopes(graph, node):
                if arg.is_number:
                    continue
                evaluate([slope], values, columns)
                shape = np.shape(values[arg])

                def as_argument(g: Array, value: Any, shape: tuple[int, ...] = shape) -> Array:
                    part = np.broadcast_to(g * value, g.shape)
                    for axis in range(-min(2, len(shape)), 0):
                        if shape[axis] == 1 < part.shape[axis]:
                            part = part.sum(axis=axis, keepdims=True)
                    return np.array(part)

                found.append((arg, times(values[slope], as_argument)))
            return found


def _whole(gradient: Array, value: Array) -> Array:
    """Return a gradient with an entry for each of the value's."""
    return np.broadcast_to(gradient, (*gradient.shape[:-2], np.shape(value)[-2], gradient.shape[-1]))


def _near_one(value: Any) -> tuple[Any, int]:
    """Return a value as one near 1 times a power of two, unless it is near 1 as it is."""
    shift = int(exponent_of(np.abs(value).max(initial=0.0) if np.ndim(value) else np.abs(value)))
    return (value, 0) if abs(shift) < _NEAR_ONE else (scale_by(value, np.asarray(-shift)), shift)
