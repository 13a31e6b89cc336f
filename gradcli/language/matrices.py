"""Matrices that change with the step, as what they are made of, so that products with them stay cheap.

``S @ (I - beta * outer(k, k))`` is S - outer(beta * (S @ k), k): two products of a matrix and a vector, not one of two
matrices. With M v and M^T v known for every kind of M, the rest follows:

    M outer(a, b) = outer(M a, b)        outer(a, b) M = outer(a, M^T b)
    (M + N) v = M v + N v                (s M) v = s (M v)

Two matrices that are given entry by entry have no such product.
"""

from __future__ import annotations

from collections.abc import Sequence

from gradcli.frozen import frozen
from gradcli.language.graph import Graph, Node


class NoProduct(Exception):
    """Two matrices are given entry by entry: their product would be one of matrices."""


@frozen
class Dense:
    """Given entry by entry."""

    entries: Node


@frozen
class Parameters:
    """A matrix of parameters."""

    matrix: Node


@frozen
class Identity:
    """The identity, of whatever size fits."""


@frozen
class Diagonal:
    """diag(vector)."""

    vector: Node


@frozen
class Outer:
    """outer(left, right): the entry in row i and column j is left_i right_j."""

    left: Node
    right: Node


@frozen
class Scaled:
    """factor * matrix, of a matrix that is none of the above but `Dense`, `Parameters` or `Identity`."""

    factor: Node
    matrix: Dense | Parameters | Identity


@frozen
class Sum:
    """A signed sum of matrices that are none themselves."""

    terms: tuple[tuple[int, Term], ...]


Term = Dense | Parameters | Identity | Diagonal | Outer | Scaled
Matrix = Term | Sum


class Algebra:
    """Products and sums of matrices, as nodes of a graph."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    def sum(self, terms: Sequence[tuple[int, Matrix]]) -> Matrix:
        """Return a signed sum."""
        flat: list[tuple[int, Term]] = []
        for sign, matrix in terms:
            if isinstance(matrix, Sum):
                flat += [(sign * inner, term) for inner, term in matrix.terms]
            else:
                flat.append((sign, matrix))
        flat = self._with_outer_products_joined(flat)
        return flat[0][1] if len(flat) == 1 and flat[0][0] == 1 else Sum(tuple(flat))

    def _with_outer_products_joined(self, terms: Sequence[tuple[int, Term]]) -> list[tuple[int, Term]]:
        """Return terms in which outer(a, k) + outer(b, k) is outer(a + b, k): one matrix less to make and to add."""
        found: list[tuple[int, Term]] = []
        of_right: dict[Node, list[tuple[int, Node]]] = {}
        for sign, term in terms:
            if isinstance(term, Outer):
                of_right.setdefault(term.right, []).append((sign, term.left))
            else:
                found.append((sign, term))
        for right, lefts in of_right.items():
            if len(lefts) == 1:
                found.append((lefts[0][0], Outer(lefts[0][1], right)))
            else:
                found.append((1, Outer(self._graph.sum(lefts), right)))
        return found

    def scaled(self, factor: Node, matrix: Matrix) -> Matrix:
        """Return factor * matrix for one number."""
        g = self._graph
        match matrix:
            case Sum(terms):
                return self.sum([(sign, self.scaled(factor, term)) for sign, term in terms])
            case Outer(left, right):
                return Outer(g.mul(factor, left), right)
            case Diagonal(vector):
                return Diagonal(g.mul(factor, vector))
            case Scaled(inner, term):
                return Scaled(g.mul(factor, inner), term)
            case _:
                return Scaled(factor, matrix)

    def transposed(self, matrix: Matrix) -> Matrix:
        """Return M^T."""
        match matrix:
            case Sum(terms):
                return self.sum([(sign, self.transposed(term)) for sign, term in terms])
            case Dense(entries):
                return Dense(self._graph.transposed(entries))
            case Parameters(parameters):
                return Parameters(self._graph.transpose(parameters))
            case Outer(left, right):
                return Outer(right, left)
            case Scaled(factor, term):
                return self.scaled(factor, self.transposed(term))
            case _:
                return matrix

    def stopped(self, matrix: Matrix) -> Matrix:
        """Return M without a gradient: made of stopped vectors, so that products with it stay as cheap."""
        g = self._graph

        def stop(node: Node) -> Node:
            return node if node.is_number else g.node("stop", (node,))

        match matrix:
            case Sum(terms):
                return self.sum([(sign, self.stopped(term)) for sign, term in terms])
            case Outer(left, right):
                return Outer(stop(left), stop(right))
            case Diagonal(vector):
                return Diagonal(stop(vector))
            case Scaled(factor, term):
                return self.scaled(stop(factor), self.stopped(term))
            case Identity():
                return matrix
            case _:
                return Dense(stop(self.entries(matrix)))

    def times_vector(self, matrix: Matrix, vector: Node) -> Node:
        """Return M v."""
        g = self._graph
        match matrix:
            case Sum(terms):
                return g.sum([(sign, self.times_vector(term, vector)) for sign, term in terms])
            case Dense(entries) if entries.op == "transposed":
                matrix_entries = entries.args[0]
                return g.total(g.mul(matrix_entries, g.spread(vector, "columns", matrix_entries)), "rows")
            case Dense(entries):
                return g.total(g.mul(entries, g.spread(vector, "rows", entries)), "columns")
            case Parameters(parameters):
                return g.matmul(parameters, vector)
            case Identity():
                return vector
            case Diagonal(diagonal):
                return g.mul(diagonal, vector)
            case Outer(left, right):
                return g.mul(self.dot(right, vector), left)
            case Scaled(factor, term):
                return g.mul(factor, self.times_vector(term, vector))

    def dot(self, a: Node, b: Node) -> Node:
        """Return sum_i a_i b_i."""
        return self._graph.total(self._graph.mul(a, b), "entries")

    def times(self, left: Matrix, right: Matrix) -> Matrix:
        """Return the product of two matrices.

        Raises:
            NoProduct: both are given entry by entry.
        """
        g = self._graph
        match left, right:
            case Sum(terms), _:
                return self.sum([(sign, self.times(term, right)) for sign, term in terms])
            case _, Sum(terms):
                return self.sum([(sign, self.times(left, term)) for sign, term in terms])
            case Identity(), _:
                return right
            case _, Identity():
                return left
            case Scaled(factor, term), _:
                return self.scaled(factor, self.times(term, right))
            case _, Scaled(factor, term):
                return self.scaled(factor, self.times(left, term))
            case _, Outer(a, b):
                return Outer(self.times_vector(left, a), b)
            case Outer(a, b), _:
                return Outer(a, self.times_vector(self.transposed(right), b))
            case Diagonal(a), Diagonal(b):
                return Diagonal(g.mul(a, b))
            case Diagonal(a), _:
                entries = self.entries(right)
                return Dense(g.mul(g.spread(a, "columns", entries), entries))
            case _, Diagonal(b):
                entries = self.entries(left)
                return Dense(g.mul(entries, g.spread(b, "rows", entries)))
            case _:
                raise NoProduct

    def entries(self, matrix: Matrix) -> Node:
        """Return the matrix as a node, entry by entry."""
        g = self._graph
        match matrix:
            case Sum(terms):
                return self._entries_of_sum(terms)
            case Dense(entries):
                return entries
            case Parameters(parameters):
                return g.entries(parameters)
            case Identity():
                return g.identity(None)
            case Diagonal(vector):
                return g.mul(g.spread(vector, "columns", vector), g.identity(vector))
            case Outer(left, right):
                return g.mul(g.spread(left, "columns", right), g.spread(right, "rows", left))
            case Scaled(factor, term):
                return g.mul(factor, self.entries(term))

    def _entries_of_sum(self, terms: Sequence[tuple[int, Term]]) -> Node:
        """Return a sum entry by entry: an identity has the size of what it is added to."""
        g = self._graph
        found = {term: self.entries(term) for _, term in terms if not _is_of_identity(term)}
        like = next(iter(found.values()), None)
        for _, term in terms:
            if isinstance(term, Identity):
                found[term] = g.identity(like)
            elif isinstance(term, Scaled) and term not in found:
                found[term] = g.mul(term.factor, g.identity(like))
        return g.sum([(sign, found[term]) for sign, term in terms])


def _is_of_identity(term: Term) -> bool:
    return isinstance(term, Identity) or (isinstance(term, Scaled) and isinstance(term.matrix, Identity))
