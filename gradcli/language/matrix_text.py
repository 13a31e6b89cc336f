"""Matrices in formulas: what is laid along rows and columns, summed or transposed, as matrices are written.

Entry by entry a cell has no products but elementwise ones. Read back as matrices, a product with a vector v along the
rows, summed over the columns, is S v; with a along the columns it is diag(a) S; two vectors make outer(a, b).

A route through a matrix is written applied to a small change of its end: of S[t] = f * (S[t-1] @ (I - outer(k, k)))

    S -> S:  f dS[t-1]  and  - f outer(dS[t-1] k, k)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from gradcli.language.graph import VIEW, Node
from gradcli.language.notation import Text
from gradcli.language.routes import AcrossJacobian, Diagonal, Factor, Map, Matrix

#: How a view lies: a vector along the rows or the columns of a matrix, a number beside many entries, a transposed
#: matrix, or some of the entries of a vector.
ALONG_ROWS, ALONG_COLUMNS, NUMBER, TRANSPOSED, SLICE = "rows", "columns", "number", "transposed", "slice"


#: Stands for what a product is applied to, where it has no name.
PLACE = "."


class Writer(Protocol):
    """What is asked of `formula.FormulaWriter`."""

    notation: Text

    def atom(self, node: Node, behind: int) -> str: ...
    def expression(self, node: Node, behind: int) -> str: ...
    def flattened(self, node: Node) -> tuple[float, list[Node]]: ...
    def operand(self, node: Node, behind: int) -> str: ...
    def is_single(self, node: Node) -> bool: ...
    def elementwise(self, nodes: Sequence[Node], behind: int) -> str: ...


def kind_of_view(node: Node) -> str:
    """Return how a view lies."""
    _, shape, strides = node.data[:VIEW]
    if not any(strides):
        return NUMBER
    if len(shape) == 1:
        return SLICE
    return TRANSPOSED if all(strides) else ALONG_ROWS if strides[1] else ALONG_COLUMNS


class Sorted:
    """The factors of an elementwise product of matrices, by how they lie.

    scalars, rows, columns: numbers, vectors along the rows, vectors along the columns. full: the others.
    """

    def __init__(self, writer: Writer, factors: Iterable[Node]) -> None:
        self.scalars: list[Node] = []
        self.rows: list[Node] = []
        self.columns: list[Node] = []
        self.full: list[Node] = []
        for factor in factors:
            kind = kind_of_view(factor) if factor.op == "view" else ""
            of_kind = {NUMBER: self.scalars, ALONG_ROWS: self.rows, ALONG_COLUMNS: self.columns}
            if kind in of_kind:
                of_kind[kind].append(factor.args[0])
            elif writer.is_single(factor):
                self.scalars.append(factor)
            else:
                self.full.append(factor)


def product_of_matrices(writer: Writer, factors: Sequence[Node], behind: int) -> str | None:
    """Return an elementwise product in which vectors lie along a matrix, as a matrix; None where none does."""
    n, found = writer.notation, Sorted(writer, factors)
    if not (found.rows or found.columns):
        return None
    left, right = (writer.elementwise(nodes, behind) if nodes else "" for nodes in (found.columns, found.rows))
    if found.full or not (left and right):
        middle = [writer.elementwise(found.full, behind)] if found.full else []
        words = [*([n.diagonal(left)] if left else []), *middle, *([n.diagonal(right)] if right else [])]
    else:
        words = [n.outer(left, right)]
    return n.times.join([*(writer.atom(node, behind) for node in found.scalars), *words])


def sum_over_axis(writer: Writer, node: Node, behind: int) -> str:
    """Return a sum over an axis: a product of a matrix and a vector, a dot product, or a plain sum."""
    n = writer.notation
    shape, axis = node.data
    constant, factors = writer.flattened(node.args[0])
    front = [n.number(constant)] if constant != 1.0 else []
    if len(shape) == 1:
        if len(factors) == 2 and constant == 1.0:
            return n.dot(*(writer.expression(factor, behind) for factor in factors))
        return n.call("sum", writer.expression(node.args[0], behind))
    found = Sorted(writer, factors)
    across, along = (found.rows, found.columns) if axis == 1 else (found.columns, found.rows)
    if len(across) == 1 and found.full and not along:
        matrix = found.full[0] if len(found.full) == 1 else None
        text = writer.atom(matrix, behind) if matrix else n.bracketed(writer.elementwise(found.full, behind))
        text = text if axis == 1 else n.transposed.format(text)
        scalars = [writer.atom(scalar, behind) for scalar in found.scalars]
        return n.times.join([*front, *scalars, text, writer.atom(across[0], behind)])
    over = "columns" if axis == 1 else "rows"
    return n.call(f"sum_{over}", writer.expression(node.args[0], behind))


def applied(writer: Writer, factors: Sequence[tuple[Factor, int]], argument: str) -> tuple[int, str]:
    """Return the sign and the text of a product of factors, applied to an argument: the last factor first."""
    n = writer.notation
    constant, text = 1.0, argument
    scalars: list[str] = []
    spread = ""
    waiting = list(factors)
    while waiting:
        factor, behind = waiting.pop()
        match factor:
            case Matrix(matrix):
                text = n.times.join([writer.atom(matrix, behind), text])
            case AcrossJacobian(node):
                text = n.times.join([n.jacobian(node.data[0], writer.operand(node, behind)), text])
            case Map(node):
                spread, text = _mapped(n, node, text)
            case Diagonal(coefficient):
                number, parts = writer.flattened(coefficient)
                constant *= number
                found = Sorted(writer, parts)
                scalars += [writer.atom(scalar, behind) for scalar in found.scalars]
                summed = waiting[-1][0].node if waiting and isinstance(waiting[-1][0], Map) else None
                if summed is not None and summed.op != "total":
                    summed = None
                if summed is not None:
                    taken = _taken_by_sum(writer, found, summed, spread, text, behind)
                    if taken is not None:
                        waiting.pop()
                        spread, text = "", taken
                        continue
                text = _beside(writer, found, spread, text, behind)
                spread = ""
    if spread:
        text = n.call(f"along_{spread}", text)
    if abs(constant) != 1.0:
        scalars.insert(0, n.number(abs(constant)))
    if text == argument == PLACE and scalars:
        return (-1 if constant < 0 else 1), n.times.join(scalars)
    return (-1 if constant < 0 else 1), n.times.join([*scalars, text])


def _mapped(n: Text, node: Node, text: str) -> tuple[str, str]:
    """Return how a map's result lies beside what comes next, "" where that is plain, and its text."""
    match node.op:
        case "total":
            shape, axis = node.data
            return "", n.call("sum" if len(shape) == 1 else f"sum_{'columns' if axis else 'rows'}", text)
        case "cumsum":
            return "", n.call("cumsum", text)
        case "pad":
            return "", n.concatenated([text])
    kind = kind_of_view(node)
    if kind == SLICE:
        start, (size,), _ = node.data[:VIEW]
        return "", n.entries(text, start, start + size)
    if kind == TRANSPOSED:
        return "", n.transposed.format(text)
    return ("" if kind == NUMBER else kind), text


def _taken_by_sum(writer: Writer, found: Sorted, total: Node, spread: str, text: str, behind: int) -> str | None:
    """Return a factor with the sum that follows it as a product with a vector; None where it is none."""
    n = writer.notation
    shape, axis = total.data
    if spread:
        lies_across = spread == (ALONG_ROWS if axis == 1 else ALONG_COLUMNS)
        if len(shape) == 1 or not lies_across or found.rows or found.columns or len(found.full) != 1:
            return None
        matrix = writer.atom(found.full[0], behind)
        return n.times.join([matrix if axis == 1 else n.transposed.format(matrix), text])
    if len(shape) == 1:
        others = [*found.full, *found.rows, *found.columns]
        return n.dot(writer.elementwise(others, behind), text) if others else None
    across, along = (found.rows, found.columns) if axis == 1 else (found.columns, found.rows)
    if len(across) == 1 and not along and not found.full:
        matrix = text if axis == 1 else n.transposed.format(text)
        return n.times.join([matrix, writer.atom(across[0], behind)])
    return None


def _beside(writer: Writer, found: Sorted, spread: str, text: str, behind: int) -> str:
    """Return an elementwise product with something that is a matrix, a vector, or a vector along a matrix."""
    n = writer.notation
    left, right = (writer.elementwise(nodes, behind) if nodes else "" for nodes in (found.columns, found.rows))
    full = writer.elementwise(found.full, behind) if found.full else ""
    if spread == ALONG_COLUMNS and right and not (left or full):
        return n.outer(text, right)
    if spread == ALONG_ROWS and left and not (right or full):
        return n.outer(left, text)
    if spread:
        matrix = full or (n.outer(left, right) if left and right else n.call(f"along_{spread}", left or right or "1"))
        ends = [n.diagonal(text), matrix] if spread == ALONG_COLUMNS else [matrix, n.diagonal(text)]
        return n.times.join(ends)
    if full and not (left or right):
        # Of vectors a diagonal; of matrices entry by entry.
        return n.times.join([n.diagonal(full), text])
    words = [*([n.diagonal(left)] if left else []), *([n.diagonal(full)] if full else []), text]
    return n.times.join([*words, *([n.diagonal(right)] if right else [])])
