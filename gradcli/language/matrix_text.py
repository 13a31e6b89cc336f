"""Matrices in formulas: what is laid along rows and columns, summed or transposed, as matrices are written.

Entry by entry a cell has no products but elementwise ones. Read back as matrices, a product with a vector v along the
rows, summed over the columns, is S v; with a along the columns it is diag(a) S; two vectors make outer(a, b).

A route through a matrix is written applied to a small change of its end: of S[t] = f * (S[t-1] @ (I - outer(k, k)))

    S -> S:  f dS[t-1]  and  - f outer(dS[t-1] k, k)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from gradcli.language.graph import ELEMENTWISE_OPS, VIEW, Graph, Node
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

    @property
    def arena(self) -> Graph: ...
    def atom(self, node: Node, behind: int) -> str: ...
    def term(self, node: Node, behind: int) -> str: ...
    def expression(self, node: Node, behind: int) -> str: ...
    def flattened(self, node: Node) -> tuple[float, list[Node]]: ...
    def operand(self, node: Node, behind: int) -> str: ...
    def axes(self, node: Node) -> int: ...
    def elementwise(self, nodes: Sequence[Node], behind: int) -> str: ...


def kind_of_view(node: Node) -> str:
    """Return how a view lies."""
    _, shape, strides = node.data[:VIEW]
    if not any(strides):
        return NUMBER
    if len(shape) == 1:
        return SLICE
    return TRANSPOSED if all(strides) else ALONG_ROWS if strides[1] else ALONG_COLUMNS


def _laid(writer: Writer, node: Node) -> tuple[str, Node] | None:
    """Return how an expression of vectors lies that all lie along the same axis, and it of the vectors themselves."""
    kind = kind_of_view(node) if node.op == "view" else ""
    if kind in (ALONG_ROWS, ALONG_COLUMNS):
        return kind, node.args[0]
    if node.op not in ELEMENTWISE_OPS:
        return None
    kinds, args = set(), []
    for arg in node.args:
        if writer.axes(arg) == 0:
            args.append(arg)
        elif arg.op == "view" and kind_of_view(arg) == NUMBER:
            args.append(arg.args[0])
        elif (found := _laid(writer, arg)) is not None:
            kinds.add(found[0])
            args.append(found[1])
        else:
            return None
    return (kinds.pop(), writer.arena.node(node.op, args, node.data)) if len(kinds) == 1 else None


def laid_out(n: Text, kind: str, vector: str) -> str:
    """Return the matrix of a vector along the rows or the columns."""
    one = n.number(1)
    return n.outer(*((vector, one) if kind == ALONG_COLUMNS else (one, vector)))


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
            if writer.axes(factor) == 0:
                self.scalars.append(factor)
            elif factor.op == "view" and kind_of_view(factor) == NUMBER:
                self.scalars.append(factor.args[0])
            elif (laid := _laid(writer, factor)) is not None:
                (self.rows if laid[0] == ALONG_ROWS else self.columns).append(laid[1])
            else:
                self.full.append(factor)


def product_of_matrices(writer: Writer, factors: Sequence[Node], behind: int) -> str | None:
    """Return an elementwise product in which vectors lie along a matrix, as a matrix; None where none does."""
    n, found = writer.notation, Sorted(writer, factors)
    if not (found.rows or found.columns):
        return None
    left, right = (writer.elementwise(nodes, behind) if nodes else "" for nodes in (found.columns, found.rows))
    if found.full or not (left and right):
        middle = [_full(writer, found, behind)] if found.full else []
        words = [*([n.diagonal(left)] if left else []), *middle, *([n.diagonal(right)] if right else [])]
    else:
        words = [n.outer(left, right)]
    return n.times.join([*(writer.term(node, behind) for node in found.scalars), *words])


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
        text = _full(writer, found, behind)
        text = text if axis == 1 else n.transposed.format(text)
        scalars = [writer.term(scalar, behind) for scalar in found.scalars]
        return n.times.join([*front, *scalars, text, writer.atom(across[0], behind)])
    matrix = n.bracketed(writer.expression(node.args[0], behind))
    return n.times.join([matrix if axis == 1 else n.transposed.format(matrix), n.number(1)])


class _Acting:
    """What a product of factors makes of its argument, so far.

    spread: how a vector lies beside what comes next, "" where that is plain. is_whole: whether the text stands without
        brackets before a transpose, as a name does. is_entrywise: whether it is a product entry by entry, which stands
        in brackets beside matrices.
    """

    def __init__(self, n: Text, text: str) -> None:
        self._n = n
        self.text = text
        self.spread = ""
        self.is_whole = True
        self.is_entrywise = False

    def now(self, text: str, *, spread: str = "", is_whole: bool = False, is_entrywise: bool = False) -> None:
        self.text, self.spread, self.is_whole, self.is_entrywise = text, spread, is_whole, is_entrywise

    @property
    def factor(self) -> str:
        """The text as a factor of a product of matrices."""
        return self._n.bracketed(self.text) if self.is_entrywise else self.text

    @property
    def whole(self) -> str:
        """The text as it stands before a transpose and in products entry by entry."""
        return self.text if self.is_whole else self._n.bracketed(self.text)


def applied(writer: Writer, factors: Sequence[tuple[Factor, int]], argument: str) -> tuple[int, str]:
    """Return the sign and the text of a product of factors, applied to an argument: the last factor first."""
    n = writer.notation
    constant, acting = 1.0, _Acting(n, argument)
    scalars: list[str] = []
    waiting = list(factors)
    while waiting:
        factor, behind = waiting.pop()
        match factor:
            case Matrix(matrix):
                acting.now(n.times.join([writer.atom(matrix, behind), acting.factor]))
            case AcrossJacobian(node):
                acting.now(n.times.join([n.jacobian(node.data[0], writer.operand(node, behind)), acting.factor]))
            case Map():
                _map(n, factor, acting)
            case Diagonal(coefficient):
                number, parts = writer.flattened(coefficient)
                constant *= number
                found = Sorted(writer, parts)
                scalars += [writer.term(scalar, behind) for scalar in found.scalars]
                total = waiting[-1][0].node if waiting and isinstance(waiting[-1][0], Map) else None
                if total is not None and total.op == "total" and _sum_products(writer, found, total, acting, behind):
                    waiting.pop()
                elif acting.spread or found.rows or found.columns or found.full:
                    _multiply(writer, found, acting, behind)
    if acting.spread in (ALONG_ROWS, ALONG_COLUMNS):
        acting.now(laid_out(n, acting.spread, acting.text))
    if abs(constant) != 1.0:
        scalars.insert(0, n.number(abs(constant)))
    sign = -1 if constant < 0 else 1
    if acting.text == argument == PLACE and scalars:
        return sign, n.times.join(scalars)
    return sign, n.times.join([*scalars, acting.factor]) if scalars else acting.text


def _map(n: Text, factor: Map, acting: _Acting) -> None:
    """Go through a map."""
    node = factor.node
    if node.op == "total" and len(node.data[0]) == 1:
        acting.now(n.call("sum", acting.text), is_whole=True)
    elif node.op == "total":
        # The sums of rows are the matrix times a vector of ones.
        acting.now(n.times.join([acting.factor if node.data[1] else n.transposed.format(acting.whole), n.number(1)]))
    elif node.op == "cumsum":
        acting.now(n.call("cumsum", acting.text), is_whole=True)
    elif node.op == "pad":
        start, whole = node.data
        zero = n.number(0)
        words = [*([zero] if start else []), acting.text, *([zero] if start + factor.size < whole else [])]
        acting.now(n.concatenated(words), is_whole=True)
    elif (kind := kind_of_view(node)) == SLICE:
        start, (size,), _ = node.data[:VIEW]
        acting.now(n.entries(acting.whole, start, start + size), is_whole=True)
    elif kind == TRANSPOSED:
        acting.now(n.transposed.format(acting.whole), is_whole=True)
    else:
        acting.spread = kind


def _sum_products(writer: Writer, found: Sorted, total: Node, acting: _Acting, behind: int) -> bool:
    """Take a factor with the sum that follows it as a product with a vector; return whether it is one."""
    n = writer.notation
    shape, axis = total.data
    if len(shape) == 1:
        others = [*found.full, *found.rows, *found.columns]
        if acting.spread or not others:
            return False
        acting.now(n.dot(writer.elementwise(others, behind), acting.text))
        return True
    across, along = (found.rows, found.columns) if axis == 1 else (found.columns, found.rows)
    if acting.spread:
        lies_across = acting.spread == (ALONG_ROWS if axis == 1 else ALONG_COLUMNS)
        if not lies_across or across or along or len(found.full) != 1:
            return False
        matrix = writer.atom(found.full[0], behind)
        acting.now(n.times.join([matrix if axis == 1 else n.transposed.format(matrix), acting.factor]))
        return True
    if not across:
        return False
    if found.full:
        acting.now(n.times_entries.join([_full(writer, found, behind), acting.whole]), is_entrywise=True)
    vector = writer.atom(across[0], behind) if len(across) == 1 else n.bracketed(writer.elementwise(across, behind))
    ends = [n.diagonal(writer.elementwise(along, behind))] if along else []
    acting.now(n.times.join([*ends, acting.factor if axis == 1 else n.transposed.format(acting.whole), vector]))
    return True


def _full(writer: Writer, found: Sorted, behind: int) -> str:
    """Return the factors that lie along nothing, entry by entry, in brackets where they need them."""
    if len(found.full) == 1:
        return writer.atom(found.full[0], behind)
    return writer.notation.bracketed(writer.elementwise(found.full, behind))


def _multiply(writer: Writer, found: Sorted, acting: _Acting, behind: int) -> None:
    """Multiply entry by entry with something that is a matrix, a vector, or a vector along a matrix."""
    n = writer.notation
    left, right = (writer.elementwise(nodes, behind) if nodes else "" for nodes in (found.columns, found.rows))
    if acting.spread == NUMBER:
        value = n.outer(left or n.number(1), right or n.number(1)) if left or right else ""
        if found.full:
            ends = ([n.diagonal(left)] if left else [], [n.diagonal(right)] if right else [])
            value = n.times.join([*ends[0], _full(writer, found, behind), *ends[1]])
        acting.now(n.times.join([*([value] if value else []), acting.factor]))
        return
    if acting.spread:
        # Of a vector u along the columns the entries are u_i: diag(u a) F diag(b), or outer(u a, b).
        is_first = acting.spread == ALONG_COLUMNS
        own, other = (left, right) if is_first else (right, left)
        vector = n.times.join([n.diagonal(own), acting.factor]) if own else acting.text
        if found.full:
            words = [n.diagonal(vector), _full(writer, found, behind), *([n.diagonal(other)] if other else [])]
            acting.now(n.times.join(words if is_first else words[::-1]))
        else:
            pair = (vector, other or n.number(1))
            acting.now(n.outer(*(pair if is_first else pair[::-1])))
        return
    if found.full and max(map(writer.axes, found.full)) == 1:
        acting.now(n.times.join([n.diagonal(writer.elementwise(found.full, behind)), acting.factor]))
    elif found.full:
        acting.now(n.times_entries.join([_full(writer, found, behind), acting.whole]), is_entrywise=True)
    if left or right:
        ends = ([n.diagonal(left)] if left else [], [n.diagonal(right)] if right else [])
        acting.now(n.times.join([*ends[0], acting.factor, *ends[1]]))
