"""The slopes of activations where the gradient is: how much of what enters an activation goes on to its argument.

With g_t the gradient with respect to phi(a_t), sequence by sequence, a step passes |phi'(a_t) g_t| / |g_t| of it on. A
forget gate that is open has the flattest slope of all, and little gradient goes through that slope.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gradcli.diagnostics.gate_names import Activation
from gradcli.diagnostics.paths_walk import value_node
from gradcli.engine.evaluate import Values, through_across, through_map
from gradcli.engine.executor import log2_norms
from gradcli.engine.scaled import scale_by
from gradcli.language.cell import SizedCell
from gradcli.language.graph import Node
from gradcli.language.routes import AcrossJacobian, Diagonal, Edge, Map, Matrix, PathGraph

Array = np.ndarray[Any, Any]

_MARK = "phi "


class ActivationSlopes:
    """Takes the gradients of a step's states back to the activations that they were made of.

    nodes: what has to be evaluated first.
    """

    def __init__(self, cell: SizedCell, activations: Sequence[Activation]) -> None:
        # An activation may have the name of the state that it makes: with a mark it is no name of the equations.
        self._slopes = {f"{_MARK}{activation.name}": activation.slope for activation in activations}
        graph = PathGraph(cell, {activation.node: f"{_MARK}{activation.name}" for activation in activations})
        inner = sorted(graph.named, key=lambda node: node.index, reverse=True)  # each before what it is made of
        self._edges: list[Edge] = [
            edge
            for name in (*graph.states, *(graph.named[node] for node in inner))
            for edge in graph.edges[name]
            if edge.lag == 0 and edge.source in self._slopes
        ]
        self._mixes = any(isinstance(f, AcrossJacobian) and f.over_sequences for e in self._edges for f in e.factors)
        factors = [factor for edge in self._edges for factor in edge.factors]
        valued = [value_node(factor) for factor in factors if not isinstance(factor, Map)]
        self.nodes: list[Node] = list(dict.fromkeys([*valued, *self._slopes.values()]))

    def look(self, totals: Mapping[str, tuple[Array, Array]], values: Values) -> dict[str, tuple[Array, Array]]:
        """Return log2 of |g| and of |phi' g| for each activation that a gradient reaches, (n, R, B) each.

        Args:
            totals: for each state the adjoints (n, R, size, B) and their exponent (R, B). values: of `nodes`.
        """
        exponent = np.max([own for _, own in totals.values()], axis=0)
        if self._mixes:
            exponent = np.broadcast_to(exponent.max(axis=1, keepdims=True), exponent.shape)
        adjoints = {name: scale_by(part, (own - exponent)[:, None, :]) for name, (part, own) in totals.items()}
        for edge in self._edges:
            if edge.target in adjoints:
                part = _pull(edge, adjoints[edge.target], values)
                adjoints[edge.source] = adjoints[edge.source] + part if edge.source in adjoints else part
        return {
            name.removeprefix(_MARK): tuple(log2_norms(part) + exponent for part in parts)
            for name, slope in self._slopes.items()
            if name in adjoints and (parts := (adjoints[name], adjoints[name] * values[slope]))
        }


def _pull(edge: Edge, adjoint: Array, values: Values) -> Array:
    for factor in edge.factors:
        match factor:
            case Diagonal(coefficient):
                adjoint = adjoint * values[coefficient]
            case Matrix(matrix):
                adjoint = np.matmul(values[matrix].swapaxes(-1, -2), adjoint)
            case AcrossJacobian(node):
                adjoint = through_across(node, values[factor.argument], adjoint)
            case Map(node, size):
                adjoint = through_map(node, adjoint, size)
    return adjoint
