"""The equations of a cell, read with Python's own parser and evaluated step by step, by PyTorch or another library.

Every value carries the batch as its last axis: a number is (batch,), a vector (size, batch), a matrix (rows, columns,
batch). What is the same for all sequences, such as a parameter, has 1 there: ``W`` is (out, in, 1), ``b`` (size, 1).
A value's rank is then the number of its other axes, and any number goes with any vector or matrix as it stands.
"""

from __future__ import annotations

import ast
import operator
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reference.torch_functions import SURROGATES, TORCH

#: PyTorch's tensor, or the array of the library that evaluates.
Array = Any

#: The operators that go entry by entry.
OPERATORS: dict[type[ast.operator], Callable[[Array, Array], Array]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
COMPARISONS: dict[type[ast.cmpop], Callable[[Array, Array], Array]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
ACTIVATION = "phi"
IDENTITY = "I"
#: Functions whose slope is not that of their value: no gradient, or a surrogate's.
OF_ANOTHER_SLOPE = ("stop", "spike")


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
        if isinstance(target, ast.Name) and target.id != IDENTITY:
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


def bounds(part: ast.Slice) -> tuple[int, int]:
    """Return the first entry of a slice ``[first:last]`` and the one behind its last."""
    match part:
        case ast.Slice(lower=ast.Constant(value=int(first)), upper=ast.Constant(value=int(last)), step=None):
            if 0 <= first < last:
                return first, last
    raise ValueError(f"line {part.lineno}: expected a slice such as [0:16], got [{ast.unparse(part)}]")


@dataclass(frozen=True)
class Scope:
    """What the names of the equations mean at one step."""

    t: int
    x: Array
    states: Mapping[str, Sequence[Array]]  # index 0 is the initial state
    named: Mapping[str, Array]  # intermediates of this step, constants, parameters
    activation: str | None
    library: Any = TORCH  # or one with the same functions
    earlier: Sequence[Array] = ()  # the inputs before this one, the latest last

    def at(self, name: str, k: int) -> Array:
        """Return ``name[t-k]``: zero before the initial state, and before the first input."""
        if name == "x":
            before = [*self.earlier, self.x]
            return before[-1 - k] if k < len(before) else self.library.zeros_like(self.x)
        history = self.states[name]
        return history[self.t - k] if k <= self.t else self.library.zeros_like(history[0])

    @property
    def batch_size(self) -> int:
        """The number of sequences."""
        size: int = self.x.shape[-1]
        return size


def rank(value: Array) -> int:
    """Return 0 of a number, 1 of a vector, 2 of a matrix."""
    return 0 if value.ndim < 2 else int(value.ndim) - 1


def evaluate(node: ast.expr, scope: Scope) -> Array:
    """Return the value of an expression at one step; ValueError for anything outside the language of equations."""
    try:
        value = _evaluate(node, scope)
    except _Outside as problem:
        raise ValueError(f"line {node.lineno}: not in the language of equations: {problem}") from None
    if isinstance(value, _Identity):
        raise ValueError(f"line {node.lineno}: nothing says how large the identity is: {ast.unparse(node)}")
    return value


class _Outside(Exception):
    """Something that no cell may say."""

    def __init__(self, node: ast.expr, reason: str = "") -> None:
        super().__init__(f"{ast.unparse(node)}{': ' if reason else ''}{reason}")


@dataclass(frozen=True)
class _Identity:
    """A multiple of the identity, of any size."""

    multiple: Array


def _evaluate(node: ast.expr, scope: Scope) -> Array:
    library = scope.library
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return library.number(float(number))
        case ast.Name(id=name) if name == IDENTITY:
            return _Identity(library.number(1.0))
        case ast.Name(id=name):
            return scope.named[name]
        case ast.Subscript(value=whole, slice=ast.Slice() as part):
            first, last = bounds(part)
            vector = _of_rank(1, whole, scope)
            if last > vector.shape[0]:
                raise _Outside(node, f"the vector has {vector.shape[0]} entries")
            return vector[first:last]
        case ast.Subscript(value=ast.Name(id=name), slice=index):
            return scope.at(name, lag(index))
        case ast.Attribute(value=ast.Name() | ast.Subscript() as operand, attr="T"):
            return library.transposed(_of_rank(2, operand, scope))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            value = _evaluate(operand, scope)
            return _Identity(-value.multiple) if isinstance(value, _Identity) else -value
        case ast.BinOp(left=left, op=ast.MatMult(), right=right):
            return _product(node, left, right, scope)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            return _entrywise(OPERATORS[type(op)], node, _evaluate(left, scope), _evaluate(right, scope), scope)
        case ast.List(elts=[_, *_] as parts):
            return library.concatenated([_entries(part, scope) for part in parts])
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
            return _call(node, name, arguments, scope)
    raise _Outside(node)


def _of_rank(expected: int, node: ast.expr, scope: Scope) -> Array:
    value = _evaluate(node, scope)
    if isinstance(value, _Identity) or rank(value) != expected:
        raise _Outside(node, f"expected a {('number', 'vector', 'matrix')[expected]}")
    return value


def _entries(node: ast.expr, scope: Scope) -> Array:
    """Return a part of a concatenation, with a column for every sequence; a number is one entry."""
    value = _evaluate(node, scope)
    if isinstance(value, _Identity) or rank(value) > 1:
        raise _Outside(node, "expected a vector or a number")
    return scope.library.columns(value, scope.batch_size)


def _product(node: ast.expr, left: ast.expr, right: ast.expr, scope: Scope) -> Array:
    """Return ``W @ v``, ``A @ B``, or ``a.T @ b`` of two vectors."""
    library = scope.library
    match left:
        case ast.Attribute(value=ast.Name() | ast.Subscript() as row, attr="T"):
            first = _plain(row, scope)
            if rank(first) == 1:
                return _dot(node, first, _of_rank(1, right, scope))
    first, second = _evaluate(left, scope), _evaluate(right, scope)
    if isinstance(first, _Identity):
        return _entrywise(operator.mul, node, first.multiple, second, scope)
    if isinstance(left, ast.Name) and first.ndim == 2:
        # A vector stands left of no product: this is a parameter that came as it is, without an axis for the batch.
        first = first[:, :, None]
    if rank(first) != 2:
        raise _Outside(left, "only a matrix stands left of @")
    if isinstance(second, _Identity):
        return _entrywise(operator.mul, node, first, second.multiple, scope)
    if rank(second) == 0 or first.shape[1] != second.shape[0]:
        raise _Outside(node, f"a matrix of {first.shape[1]} columns does not fit {tuple(second.shape[:-1])}")
    return library.einsum("rcb,cb->rb" if rank(second) == 1 else "rkb,kcb->rcb", first, second)


def _dot(node: ast.expr, a: Array, b: Array) -> Array:
    _fit(node, a, b)
    return (a * b).sum(0)


def _entrywise(function: Callable[[Array, Array], Array], node: ast.expr, a: Array, b: Array, scope: Scope) -> Array:
    """Return a function of two values, entry by entry; the identity takes the size of the matrix beside it."""
    match a, b:
        case _Identity(), _Identity() if function in (operator.add, operator.sub):
            return _Identity(function(a.multiple, b.multiple))
        case _Identity(), _Identity():
            raise _Outside(node, "nothing says how large the identity is")
        case _Identity(), _ if rank(b) == 0 and function in (operator.mul, operator.truediv):
            return _Identity(function(a.multiple, b))
        case _, _Identity() if rank(a) == 0 and function is operator.mul:
            return _Identity(a * b.multiple)
        case _Identity(), _:
            return _entrywise(function, node, _written_out(node, a, b, scope), b, scope)
        case _, _Identity():
            return _entrywise(function, node, a, _written_out(node, b, a, scope), scope)
    _fit(node, a, b)
    return function(a, b)


def _written_out(node: ast.expr, identity: _Identity, beside: Array, scope: Scope) -> Array:
    if rank(beside) != 2 or beside.shape[0] != beside.shape[1]:
        raise _Outside(node, "the identity goes with a square matrix")
    return identity.multiple * scope.library.identity(beside.shape[0])


def _fit(node: ast.expr, *values: Array) -> None:
    """Check that values go together entry by entry: of one shape, numbers apart, which go with anything."""
    shapes = {tuple(value.shape[:-1]) for value in values if rank(value) > 0}
    if len(shapes) > 1:
        raise _Outside(node, f"{' and '.join(map(str, sorted(shapes)))} do not go together entry by entry")


def _call(node: ast.Call, name: str, arguments: Sequence[ast.expr], scope: Scope) -> Array:
    library = scope.library
    match name, arguments:
        case (("outer" | "dot"), [left, right]):
            a, b = _of_rank(1, left, scope), _of_rank(1, right, scope)
            return a[:, None] * b[None] if name == "outer" else _dot(node, a, b)
        case "diag", [operand]:
            vector = _of_rank(1, operand, scope)
            return vector[:, None] * library.identity(vector.shape[0])
        case (("max" | "min"), [left, right]):
            return _entrywise(library.pairs[name], node, _evaluate(left, scope), _evaluate(right, scope), scope)
        case (("max" | "min" | "sum" | "mean" | "norm"), [operand]):
            return library.reductions[name](_listed(operand, scope))
        case "where", [ast.Compare(left=left, ops=[comparison], comparators=[right]), chosen, other]:
            if type(comparison) in COMPARISONS:
                values = [_evaluate(part, scope) for part in (left, right, chosen, other)]
                if any(isinstance(value, _Identity) for value in values):
                    raise _Outside(node, "nothing says how large the identity is")
                _fit(node, *values)
                a, b, p, q = values
                return library.where(COMPARISONS[type(comparison)](a.real, b.real), p, q)
        case "stop", [operand]:
            return library.stop(_plain(operand, scope))
        case "spike", [operand, ast.Constant(value=str(surrogate)), sharpness] if surrogate in SURROGATES:
            return library.spike(_plain(operand, scope), surrogate, float(_of_rank(0, sharpness, scope)))
        case _, [operand, *eps] if name in library.across and len(eps) <= (name in library.with_eps):
            vector = library.columns(_of_rank(1, operand, scope), scope.batch_size)
            return library.across[name](vector, *(float(_of_rank(0, value, scope)) for value in eps))
        case _, [operand]:
            function = scope.activation if name == ACTIVATION else name
            if function in library.functions:
                return library.functions[function](_plain(operand, scope))
    raise _Outside(node)


def _plain(node: ast.expr, scope: Scope) -> Array:
    value = _evaluate(node, scope)
    if isinstance(value, _Identity):
        raise _Outside(node, "nothing says how large the identity is")
    return value


def _listed(node: ast.expr, scope: Scope) -> Array:
    """Return all entries of a vector or a matrix in one axis."""
    value = _plain(node, scope)
    if rank(value) == 0:
        raise _Outside(node, "expected a vector or a matrix")
    return value.reshape(-1, value.shape[-1])


# --- what a text holds -----------------------------------------------------------------------------------------------

#: Calls that give a vector or matrix another shape, so that what stands in them is bound to no state entry by entry.
RESHAPING = ("outer", "dot", "sum", "mean", "norm")


def reads_input_elementwise(text: str) -> bool:
    """Tell whether x[t] goes with other values entry by entry, so that input_size must be hidden_size.

    It does not in a product, nor in ``outer``, ``dot`` and the like, nor as a slice or a part of a concatenation.
    """
    expressions = [equation.expression for equation in parse(text)]
    inside = {id(node) for expression in expressions for part in _apart(expression) for node in ast.walk(part)}
    return any(
        isinstance(node, ast.Name) and node.id == "x" and id(node) not in inside
        for expression in expressions
        for node in ast.walk(expression)
    )


def _apart(expression: ast.expr) -> Iterator[ast.expr]:
    """Yield the parts of an expression whose shape is not that of what they stand in."""
    for node in ast.walk(expression):
        match node:
            case ast.BinOp(left=left, op=ast.MatMult(), right=right):
                yield right
                if isinstance(left, ast.Attribute):
                    yield left
            case ast.Call(func=ast.Name(id=name), args=arguments) if name in RESHAPING:
                yield from arguments
            case (
                ast.Call(func=ast.Name(id="max" | "min"), args=[operand])
                | ast.Subscript(value=operand, slice=ast.Slice())
            ):
                yield operand
            case ast.List(elts=parts):
                yield from parts


def has_another_slope(text: str) -> bool:
    """Tell whether the cell has a `stop` or a `spike`, whose slopes no complex step finds."""
    return any(
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in OF_ANOTHER_SLOPE
        for equation in parse(text)
        for node in ast.walk(equation.expression)
    )


def has_more_arriving(text: str) -> bool:
    """Tell whether a state enters later than at the next step, or a product in its own: `h[t-2]`, `W @ f(c[t])`.

    So does an earlier input, `x[t-2]`. Products are those with matrices of parameters.
    """
    equations = parse(text)
    states = {equation.target for equation in equations if equation.is_state}
    intermediates = {equation.target for equation in equations}
    of_this_step: set[str] = set()

    def lags(node: ast.expr, *others: str) -> set[int]:
        return {
            lag(part.slice)
            for part in ast.walk(node)
            if isinstance(part, ast.Subscript)
            and isinstance(part.value, ast.Name)
            and part.value.id in (*states, *others)
            and not isinstance(part.slice, ast.Slice | ast.Constant)
        }

    def is_of_parameters(node: ast.expr) -> bool:
        return not any(isinstance(part, ast.Name) and part.id in (*intermediates, "x") for part in ast.walk(node))

    def follows(node: ast.expr) -> bool:
        names = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
        return 0 in lags(node) or not names.isdisjoint(of_this_step)

    for equation in equations:
        expression = equation.expression
        products = [n for n in ast.walk(expression) if isinstance(n, ast.BinOp) and isinstance(n.op, ast.MatMult)]
        products = [product for product in products if is_of_parameters(product.left)]
        if max(lags(expression, "x"), default=0) > 1 or any(follows(product.right) for product in products):
            return True
        if follows(expression):
            of_this_step.add(equation.target)
    return False
