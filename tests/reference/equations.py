"""The equations of a cell, read with Python's own parser and evaluated with PyTorch, one step at a time.

Everything that varies over the batch is a tensor of columns, (size, batch); a vector parameter is one column,
(size, 1); a matrix is (out, in). The equations then read as they stand: ``W @ h[t-1] + b`` is exactly that.
"""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "leaky_relu": functional.leaky_relu,
    "elu": functional.elu,
    "selu": functional.selu,
    "gelu": functional.gelu,
    "silu": functional.silu,
    "softplus": functional.softplus,
    "softsign": functional.softsign,
    # functional.hardsigmoid's own backward multiplies by 1/6 rounded to float32, even for float64 tensors.
    "hard_sigmoid": lambda a: torch.clamp(a / 6 + 0.5, 0, 1),
    "hard_tanh": functional.hardtanh,
    "erf": torch.erf,
    "exp": torch.exp,
    "log": torch.log,
    "sqrt": torch.sqrt,
    "sin": torch.sin,
    "cos": torch.cos,
    "abs": torch.abs,
    "identity": lambda a: a,
    "softmax": lambda a: functional.softmax(a, dim=0),
}
#: Functions of a vector that take an eps of their own, if one is given.
NORMS: dict[str, Callable[..., Tensor]] = {
    "layer_norm": lambda a, eps=1e-5: functional.layer_norm(a.T, (a.shape[0],), eps=float(eps)).T,
    "batch_norm": lambda a, eps=1e-5: functional.batch_norm(a.T, None, None, training=True, eps=float(eps)).T,
}
OPERATORS: dict[type[ast.operator], Callable[[Tensor, Tensor], Tensor]] = {
    ast.Add: torch.add,
    ast.Sub: torch.sub,
    ast.Mult: torch.mul,
    ast.Div: torch.div,
    ast.Pow: torch.pow,
    ast.MatMult: torch.matmul,
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
    x: Tensor
    states: Mapping[str, Sequence[Tensor]]  # index 0 is the initial state
    named: Mapping[str, Tensor]  # intermediates of this step, constants, parameters
    activation: str | None

    def at(self, name: str, k: int) -> Tensor:
        """Return ``name[t-k]``: (size, batch); zero before the initial state."""
        if name == "x":
            if k:
                raise ValueError("x is given at [t] only")
            return self.x
        history = self.states[name]
        return history[self.t - k] if k <= self.t else torch.zeros_like(history[0])


def evaluate(node: ast.expr, scope: Scope) -> Tensor:
    """Return the value of an expression at one step; ValueError for anything outside the language of equations."""
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return torch.tensor(float(number), dtype=torch.float64)
        case ast.Name(id=name):
            return scope.named[name]
        case ast.Subscript(value=ast.Name(id=name), slice=index):
            return scope.at(name, lag(index))
        case ast.Attribute(value=ast.Name(id=name), attr="T"):
            return scope.named[name].T
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -evaluate(operand, scope)
        case ast.BinOp(left=left, op=ast.MatMult(), right=ast.List(elts=parts)):
            return evaluate(left, scope) @ _concatenated([evaluate(part, scope) for part in parts], scope)
        case ast.BinOp(left=left, op=operator, right=right) if type(operator) in OPERATORS:
            return OPERATORS[type(operator)](evaluate(left, scope), evaluate(right, scope))
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in NORMS:
            vector, *eps = (evaluate(argument, scope) for argument in arguments)
            return NORMS[name](vector.expand(-1, scope.x.shape[1]), *eps)
        case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]):
            function = scope.activation if name == ACTIVATION else name
            if function in FUNCTIONS:
                return FUNCTIONS[function](evaluate(argument, scope))
    raise ValueError(f"line {node.lineno}: not in the language of equations: {ast.unparse(node)}")


def _concatenated(parts: list[Tensor], scope: Scope) -> Tensor:
    batch_size = scope.x.shape[1]
    return torch.cat([part.expand(-1, batch_size) for part in parts])


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
