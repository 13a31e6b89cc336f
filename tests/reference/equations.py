"""The equations of a cell, read with Python's own parser and evaluated step by step, by PyTorch or another library.

Everything that varies over the batch is an array of columns, (size, batch); a vector parameter is one column,
(size, 1); a matrix is (out, in). The equations then read as they stand: ``W @ h[t-1] + b`` is exactly that.
"""

from __future__ import annotations

import ast
import operator
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reference.torch_functions import TORCH

#: PyTorch's tensor, or the array of the library that evaluates.
Array = Any

OPERATORS: dict[type[ast.operator], Callable[[Array, Array], Array]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.MatMult: operator.matmul,
}
ACTIVATION = "phi"


@dataclass(frozen=True)
class Equation:
    """One line ``target = expression``, or ``target[t] = expression`` when `is_state`."""

    target: str
    is_state: bool
    expression: ast.expr


def parse(text: str) -> list[Equation]:
    """Read the equations of a cell, in their order.

    Raises ValueError for a line that is no assignment to a name or to ``name[t]``.
    """
    equations = []
    for statement in ast.parse(textwrap.dedent(text)).body:
        if not isinstance(statement, ast.Assign) or len(statement.targets) != 1:
            raise ValueError(f"line {statement.lineno}: expected `name = ...` or `name[t] = ...`")
        target = statement.targets[0]
        if isinstance(target, ast.Name):
            equations.append(Equation(target.id, False, statement.value))
        elif isinstance(target, ast.Subscript) and isinstance(target.value, ast.Name) and lag(target.slice) == 0:
            equations.append(Equation(target.value.id, True, statement.value))
        else:
            raise ValueError(f"line {statement.lineno}: cannot assign to {ast.unparse(target)}")
    return equations


def lag(index: ast.expr) -> int:
    """Return k of an index ``t-k``, and 0 of ``t``."""
    match index:
        case ast.Name(id="t"):
            return 0
        case ast.BinOp(left=ast.Name(id="t"), op=ast.Sub(), right=ast.Constant(value=int(k))) if k >= 1:
            return k
    raise ValueError(f"line {index.lineno}: expected [t] or [t-k], got [{ast.unparse(index)}]")


@dataclass(frozen=True)
class Scope:
    """What the names of the equations mean at one step."""

    t: int
    x: Array
    states: Mapping[str, Sequence[Array]]  # index 0 is the initial state
    named: Mapping[str, Array]  # intermediates of this step, constants, parameters
    activation: str | None
    library: Any = TORCH  # or one with the same functions

    def at(self, name: str, k: int) -> Array:
        """Return ``name[t-k]``: (size, batch); zero before the initial state."""
        if name == "x":
            if k:
                raise ValueError("x is given at [t] only")
            return self.x
        history = self.states[name]
        return history[self.t - k] if k <= self.t else self.library.zeros_like(history[0])


def evaluate(node: ast.expr, scope: Scope) -> Array:
    """Return the value of an expression at one step; ValueError for anything outside the language of equations."""
    library = scope.library
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return library.number(float(number))
        case ast.Name(id=name):
            return scope.named[name]
        case ast.Subscript(value=ast.Name(id=name), slice=index):
            return scope.at(name, lag(index))
        case ast.Attribute(value=ast.Name(id=name), attr="T"):
            return scope.named[name].T
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -evaluate(operand, scope)
        case ast.BinOp(left=left, op=ast.MatMult(), right=ast.List(elts=parts)):
            columns = [library.columns(evaluate(part, scope), scope.x.shape[1]) for part in parts]
            return evaluate(left, scope) @ library.concatenated(columns)
        case ast.BinOp(left=left, op=operator, right=right) if type(operator) in OPERATORS:
            return OPERATORS[type(operator)](evaluate(left, scope), evaluate(right, scope))
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in library.norms:
            vector, *eps = (evaluate(argument, scope) for argument in arguments)
            return library.norms[name](library.columns(vector, scope.x.shape[1]), *eps)
        case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]):
            function = scope.activation if name == ACTIVATION else name
            if function in library.functions:
                return library.functions[function](evaluate(argument, scope))
    raise ValueError(f"line {node.lineno}: not in the language of equations: {ast.unparse(node)}")


def reads_input_elementwise(text: str) -> bool:
    """Tell whether x[t] stands anywhere but at the right of a product, so that input_size must be hidden_size."""
    expressions = [equation.expression for equation in parse(text)]
    products = [
        node.right
        for expression in expressions
        for node in ast.walk(expression)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult)
    ]
    multiplied = {id(node) for product in products for node in ast.walk(product)}
    return any(
        isinstance(node, ast.Name) and node.id == "x" and id(node) not in multiplied
        for expression in expressions
        for node in ast.walk(expression)
    )


def has_more_arriving(text: str) -> bool:
    """Tell whether a state enters later than at the next step, or a product in its own: `h[t-2]`, `W @ f(c[t])`."""
    equations = parse(text)
    states = {equation.target for equation in equations if equation.is_state}
    of_this_step: set[str] = set()

    def lags(node: ast.expr) -> set[int]:
        return {
            lag(part.slice)
            for part in ast.walk(node)
            if isinstance(part, ast.Subscript) and isinstance(part.value, ast.Name) and part.value.id in states
        }

    def follows(node: ast.expr) -> bool:
        names = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
        return 0 in lags(node) or not names.isdisjoint(of_this_step)

    for equation in equations:
        expression = equation.expression
        products = [n for n in ast.walk(expression) if isinstance(n, ast.BinOp) and isinstance(n.op, ast.MatMult)]
        if max(lags(expression), default=0) > 1 or any(follows(product.right) for product in products):
            return True
        if follows(expression):
            of_this_step.add(equation.target)
    return False
