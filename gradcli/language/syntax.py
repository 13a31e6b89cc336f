"""What the syntax of an equation alone tells: which names are matrices, and why a construct is not offered."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence

from gradcli.language.parser import Equation, lag_of

_NOT_OFFERED_SYNTAX = {
    ast.Compare: "a comparison outside of where(a > b, p, q)",
    ast.BoolOp: "'and' and 'or'",
    ast.IfExp: "'if ... else', which is where(a > b, p, q),",
    ast.Lambda: "lambda",
    ast.Attribute: "attributes other than the transpose W.T",
    ast.Subscript: "this index: of a vector there are a[0] and a[0:16], of a state and x h[t-1]; it",
    ast.Dict: "braces",
    ast.Set: "braces",
    ast.NamedExpr: "':='",
    ast.ListComp: "comprehensions",
    ast.GeneratorExp: "comprehensions",
    ast.JoinedStr: "text",
}

_TRANSPOSES = ("t", "T", "transpose", "swapaxes", "permute")

OPERATORS_NOT_OFFERED = {
    ast.BitXor: "'^' is not a power here: write **",
    ast.Mod: "'%' is not offered; operators are + - * / ** @",
    ast.FloorDiv: "'//' is not offered; operators are + - * / ** @",
}


def names_left_of_products(equations: Sequence[Equation]) -> frozenset[str]:
    """Return every name that stands left of an '@', directly or through an equation that gives such a name."""
    matrices: set[str] = set()
    for equation in reversed(equations):
        if equation.name in matrices and not equation.is_state:
            matrices |= {node.id for node in ast.walk(equation.expression) if isinstance(node, ast.Name)}
        for product in ast.walk(equation.expression):
            if isinstance(product, ast.BinOp) and isinstance(product.op, ast.MatMult):
                left = product.left
                while isinstance(left, ast.BinOp) and isinstance(left.op, ast.MatMult):
                    matrices |= {node.id for node in ast.walk(left.right) if isinstance(node, ast.Name)}
                    left = left.left
                matrices |= {node.id for node in ast.walk(left) if isinstance(node, ast.Name)}
    return frozenset(matrices)


def only_times_rows(equations: Sequence[Equation]) -> frozenset[str]:
    """Return every name that stands left of an '@' with a transpose on its right, as in W @ x[t].T, and nowhere else.

    Such a product of two vectors is an outer product; but nothing else says that the name is a vector.
    """
    left: set[ast.AST] = set()
    names: list[ast.Name] = []
    for equation in equations:
        for node in ast.walk(equation.expression):
            if isinstance(node, ast.Name):
                names.append(node)
            elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult) and _is_transpose(node.right):
                left |= set(ast.walk(node.left))
    return frozenset({name.id for name in names if name in left} - {name.id for name in names if name not in left})


def _is_transpose(tree: ast.expr) -> bool:
    return isinstance(tree, ast.Attribute) and tree.attr == "T"


def transposed_by_power(left: ast.expr, right: ast.expr) -> ast.expr | None:
    """Return the W of W^T, which binds less than the products and sums on both of its sides; None for other powers."""
    while isinstance(right, ast.BinOp):
        right = right.left
    while isinstance(left, ast.BinOp):
        left = left.right
    return left if isinstance(right, ast.Name) and right.id == "T" else None


def transposed_by_call(tree: ast.Call) -> ast.expr | None:
    """Return the W of W.t(), W.transpose(0, 1), transpose(W) or torch.t(W); None for other calls."""
    match tree:
        case ast.Call(func=ast.Attribute(attr=attribute), args=[arg, *_]) if (
            attribute in _TRANSPOSES and not isinstance(arg, ast.Constant | ast.UnaryOp)
        ):
            return arg
        case ast.Call(func=ast.Attribute(value=value, attr=attribute)) if attribute in _TRANSPOSES:
            return value
        case ast.Call(func=ast.Name(id=name), args=[arg, *_]) if name in _TRANSPOSES:
            return arg
        case _:
            return None


def needed_within_the_step(equation: Equation, given: Mapping[str, Equation]) -> frozenset[str]:
    """Return every name whose value at t an equation needs, directly or through other equations."""
    found: set[str] = set()
    waiting = [equation]
    while waiting:
        for name in _used_at_t(waiting.pop(), given) - found:
            found.add(name)
            waiting.append(given[name])
    return frozenset(found)


def _used_at_t(equation: Equation, given: Mapping[str, Equation]) -> set[str]:
    names = {node.id for node in ast.walk(equation.expression) if isinstance(node, ast.Name)}
    used = {name for name in names if name in given and not given[name].is_state}
    for node in ast.walk(equation.expression):
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and lag_of(node.slice) == 0:
            used |= {node.value.id} & given.keys()
    return used


def not_offered(tree: ast.AST) -> str:
    """Return why a piece of syntax cannot stand in an equation."""
    if isinstance(tree, ast.Tuple):
        return (
            "a comma cannot stand here; a decimal is written with a point, as in 0.5, "
            "and a concatenation in brackets, as in W @ [h[t-1], x[t]]"
        )
    if isinstance(tree, ast.Constant):
        what = {bool: "truth values", complex: "complex numbers", str: "text", bytes: "text"}.get(
            type(tree.value), repr(tree.value).replace("Ellipsis", "...")
        )
    elif isinstance(tree, ast.UnaryOp):
        what = "'not'" if isinstance(tree.op, ast.Not) else "'~'"
    else:
        what = _NOT_OFFERED_SYNTAX.get(type(tree), "this")
    return f"{what} cannot stand in an equation; there are numbers, names, x[t], h[t-1], + - * / ** @ and functions"
