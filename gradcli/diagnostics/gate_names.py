"""Which activations and direct routes a cell has, under the names of its equations."""

from __future__ import annotations

from dataclasses import dataclass

from gradcli.language.cell import SizedCell
from gradcli.language.derivative import diagonal_derivatives
from gradcli.language.functions import FUNCTIONS, derivative
from gradcli.language.graph import Dependence, Node, reachable

#: Functions whose slope says nothing: it is 1 everywhere, or -1 and 1.
_WITHOUT_A_SHAPE = ("identity", "abs")


@dataclass(frozen=True)
class Activation:
    """A function call in the equations that changes with the step.

    name: the variable that it is the value of, such as ``f``, or what is called: ``tanh(c)``, ``tanh in h``.
    gamma: the largest slope of the function. node, slope: phi(a) and phi'(a).
    """

    name: str
    function: str
    gamma: float
    node: Node
    slope: Node


@dataclass(frozen=True)
class Retention:
    """A direct route from a state to itself one step later: what it is multiplied by, gates aside held constant.

    state: its name. factor: the coefficient. name: how the equations call it, such as ``f`` or ``1 - z``; else None.
    """

    state: str
    factor: Node
    name: str | None


def activations_of(cell: SizedCell) -> list[Activation]:
    """Return the activations of a cell, those with a name first; functions of unbounded slope are left out."""
    named = {cell.values[equation.name]: equation.name for equation in cell.equations}
    found: dict[Node, str] = {node: name for node, name in named.items() if _is_activation(node)}
    for equation in cell.equations:
        for node in reachable([cell.values[equation.name]]):
            if node not in found and _is_activation(node):
                found[node] = f"{node.data}{_argument(node.args[0], named) or f' in {equation.name}'}"
    return [
        Activation(name, node.data, gamma, node, derivative(cell.graph, node))
        for node, name in _numbered(found).items()
        if (gamma := FUNCTIONS[node.data].gamma) is not None
    ]


def _is_activation(node: Node) -> bool:
    if node.op != "call" or node.dependence is Dependence.PARAMETERS or node.data in _WITHOUT_A_SHAPE:
        return False
    return bool(FUNCTIONS[node.data].gamma)


def _argument(node: Node, named: dict[Node, str]) -> str:
    """Return a named argument in parentheses; empty for an expression."""
    if node.op == "state":
        name, lag = node.data
        return f"({name})" if lag == 0 else f"({name}[t-{lag}])"
    return f"({named[node]})" if node in named else ""


def _numbered(found: dict[Node, str]) -> dict[Node, str]:
    """Return the names with numbers behind those that occur more than once."""
    names = list(found.values())
    seen: dict[str, int] = {}
    numbered = {}
    for node, name in found.items():
        seen[name] = seen.get(name, 0) + 1
        numbered[node] = f"{name} {seen[name]}" if names.count(name) > 1 else name
    return numbered


def retentions_of(cell: SizedCell) -> list[Retention]:
    """Return the direct routes of a cell: d s[t] / d s[t-1] with gates and products held constant, unless it is 0."""
    named = {cell.values[equation.name]: equation.name for equation in cell.equations}
    gates = {activation.node for activation in activations_of(cell)}

    def is_boundary(node: Node) -> bool:
        return node in gates or node.op in ("state", "matmul", "across") or node.dependence < Dependence.STATE

    found = []
    for state, expression in cell.states.items():
        factors = {} if expression in gates else diagonal_derivatives(cell.graph, expression, is_boundary)
        factor = factors.get(cell.graph.state(state, 1))
        if factor is not None:
            found.append(Retention(state, factor, _written(factor, named)))
    return found


def _written(factor: Node, named: dict[Node, str]) -> str | None:
    """Return a coefficient as the equations would write it, where it is a name, a number, or one minus a name."""
    if factor in named:
        return named[factor]
    if factor.is_number:
        return f"{factor.data:g}"
    if factor.op == "parameter":
        return str(factor.data)
    if factor.op == "sum" and factor.data == (1, -1) and factor.args[0].is_number and factor.args[1] in named:
        return f"{factor.args[0].data:g} - {named[factor.args[1]]}"
    return None
