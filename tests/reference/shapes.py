"""The shapes of a cell's states and parameters, by the rule of the language and what `shapes:` says, for drawing them.

`W @ v` makes W a matrix (hidden_size, size of v); any other parameter is a vector of hidden_size.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Any

from reference.equations import parse

Shape = tuple[int, ...]


def shapes_of(
    cell_block: Mapping[str, Any], hidden_size: int, input_size: int
) -> tuple[dict[str, int], dict[str, Shape]]:
    """Return the size of each state and the shape of each parameter of one layer."""
    sizes = {"hidden_size": hidden_size, "input_size": input_size}
    given = {
        name: tuple(sizes[dim] if isinstance(dim, str) else dim for dim in dims)
        for name, dims in cell_block.get("shapes", {}).items()
    }
    equations = parse(cell_block["equations"])
    states = {e.target: given.get(e.target, (hidden_size,))[0] for e in equations if e.is_state}
    reader = _Reader(given, {**states, "x": input_size}, set(cell_block.get("constants", {})), hidden_size)
    for equation in equations:
        size = reader.size(equation.expression)
        if not equation.is_state:
            reader.intermediates[equation.target] = size
    return states, reader.params


class _Reader:
    """Walks expressions and notes the shape of every parameter that it meets."""

    def __init__(
        self, given: Mapping[str, Shape], columns: Mapping[str, int], constants: set[str], hidden_size: int
    ) -> None:
        self.given = given
        self.columns = columns
        self.constants = constants
        self.hidden_size = hidden_size
        self.intermediates: dict[str, int] = {}
        self.params: dict[str, Shape] = {}

    def size(self, node: ast.expr) -> int:
        """Return the number of rows of an expression; 0 for a number."""
        match node:
            case ast.Constant():
                return 0
            case ast.Name(id=name):
                return self._name(name, (self.hidden_size,))
            case ast.Subscript(value=ast.Name(id=name)):
                return self.columns[name]
            case ast.UnaryOp(operand=operand) | ast.Call(args=[operand, *_]):
                return self.size(operand)
            case ast.BinOp(left=left, op=ast.MatMult(), right=right):
                return self._product(left, right)
            case ast.BinOp(left=left, right=right):
                return max(self.size(left), self.size(right))
        raise ValueError(f"line {node.lineno}: no size of {ast.unparse(node)}")

    def _product(self, left: ast.expr, right: ast.expr) -> int:
        rows: Sequence[ast.expr] = right.elts if isinstance(right, ast.List) else [right]
        size = sum(self.size(part) for part in rows)
        match left:
            case ast.Name(id=name):
                return self._name(name, (self.hidden_size, size))
            case ast.Attribute(value=ast.Name(id=name), attr="T"):
                self._name(name, (size, self.hidden_size))
                return self.params[name][1]
        return self.size(left)

    def _name(self, name: str, shape: Shape) -> int:
        if name in self.constants:
            return 0
        if name in self.intermediates:
            return self.intermediates[name]
        shape = self.params.setdefault(name, self.given.get(name, shape))
        return shape[0] if shape else 0
