"""Which activations a cell has, under the names of its equations."""

from __future__ import annotations

from gradcli.frozen import frozen
from gradcli.language.cell import SizedCell
from gradcli.language.derivative import slopes
from gradcli.language.functions import FUNCTIONS
from gradcli.language.graph import Dependence, Node, reachable
from gradcli.language.surrogates import largest_slope

#: Functions whose slope says nothing: it is 1 everywhere, or -1 and 1.
_WITHOUT_A_SHAPE = ("identity", "abs")


@frozen
class Activation:
    """A function call in the equations that changes with the step.

    name: the variable that it is the value of, such as ``f``, or what is called: ``tanh(c)``, ``tanh in h``.
    gamma: the largest slope of the function. node, slope: phi(a) and phi'(a); of a spike the slope is its surrogate's.
    """

    name: str
    function: str
    gamma: float
    node: Node
    slope: Node


def activations_of(cell: SizedCell) -> list[Activation]:
    """Return the activations of a cell, those with a name first; functions of unbounded slope are left out."""
    named = {cell.values[equation.name]: equation.name for equation in cell.equations}
    found: dict[Node, str] = {node: name for node, name in named.items() if _gamma(node)}
    for equation in cell.equations:
        for node in reachable([cell.values[equation.name]]):
            if node not in found and _gamma(node):
                found[node] = f"{_function(node)}{_argument(node.args[0], named) or f' in {equation.name}'}"
    return [
        Activation(name, _function(node), gamma, node, slopes(cell.graph, node)[0][1])
        for node, name in _numbered(found).items()
        if (gamma := _gamma(node)) is not None
    ]


def _gamma(node: Node) -> float | None:
    """Return the largest slope of an activation that changes with the step, None of anything else."""
    if node.dependence is Dependence.PARAMETERS:
        return None
    if node.op == "spike":
        return largest_slope(node)
    return FUNCTIONS[node.data].gamma if node.op == "call" and node.data not in _WITHOUT_A_SHAPE else None


def _function(node: Node) -> str:
    return str(node.data) if node.op == "call" else node.op


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
