"""Equations to graph: names resolved, sums flattened, concatenations split, every mistake placed."""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping, Sequence

from gradcli.errors import did_you_mean
from gradcli.language.across import ACROSS, DEFAULT_EPS, Across
from gradcli.language.callables import CALLABLE, TAKES, no_function, no_method
from gradcli.language.functions import ELEMENTWISE, value_at
from gradcli.language.graph import Dependence, Graph, Node, reachable
from gradcli.language.habits import no_state, state_meant
from gradcli.language.matrices import Algebra, Dense, Diagonal, Identity, Matrix, NoProduct, Outer, Parameters
from gradcli.language.parser import (
    INPUT_NAME,
    MAX_LAG,
    OTHER_LINE,
    TIME_NAME,
    Equation,
    EquationProblem,
    Place,
    Statement,
    lag_of,
)
from gradcli.language.ranks import IDENTITY_NAME, MATRIX, NUMBER, VECTOR, find_ranks
from gradcli.language.sizes import HIDDEN, INPUT
from gradcli.language.surrogates import SURROGATES
from gradcli.language.syntax import (
    OPERATORS_NOT_OFFERED,
    names_left_of_products,
    needed_within_the_step,
    not_offered,
    transposed_by_call,
    transposed_by_power,
)

#: The name that equations may call and that `activation:` binds to an elementwise function.
ACTIVATION_NAME = "phi"
#: The function that `activation:` takes the place of in a built-in cell, as it does in Keras.
USUAL_ACTIVATION = "tanh"

_COMPARISONS = {ast.Gt: ("greater", 1), ast.GtE: ("greater_equal", 1), ast.Lt: ("greater", -1)}
_COMPARISONS[ast.LtE] = ("greater_equal", -1)
_SIGNS = {ast.Gt: ">", ast.GtE: ">=", ast.Lt: "<", ast.LtE: "<=", ast.Eq: "==", ast.NotEq: "!="}
_WHAT = {NUMBER: "a number", VECTOR: "a vector", MATRIX: "a matrix"}

_LONGEST_WORDS = 24
_FROM_THE_END = "entries are counted from the front, from 0 on"


class _Mistake(Exception):
    def __init__(self, place: Place, message: str, elsewhere: int = 0) -> None:
        self.problem = place.problem(message, elsewhere)


class _Consequence(Exception):
    """What cannot be said of a line, because of a mistake in another that is told there."""


class Lowering:
    """Builds the graph of one cell; `problems` gathers the mistakes, of which each equation gives at most one.

    places: for every node, where it first stood in the text, for messages about shapes.
    matrices: the names of parameters that stand left of '@', with the place of the first use; likewise `vectors`, and
        `by_entries` of matrices that are used entry by entry.
    """

    def __init__(
        self,
        equations: Sequence[Equation],
        constants: Mapping[str, float],
        activation: str | None,
        scalars: frozenset[str],
        batch_size: int | None,
        replaces_usual: bool = False,
        declared: Mapping[str, int] | None = None,
    ) -> None:
        self.graph = Graph()
        self.algebra = Algebra(self.graph)
        self.scalars = scalars
        self.ranks = find_ranks(equations, tuple(constants), declared or {})
        self.constants = constants
        self.activation = activation
        replaced = (ACTIVATION_NAME, USUAL_ACTIVATION) if replaces_usual else (ACTIVATION_NAME,)
        self.calls = {} if activation is None else dict.fromkeys(replaced, activation)
        self.batch_size = batch_size
        self.places: dict[Node, Place] = {}
        self._texts: dict[Node, tuple[Statement, ast.expr]] = {}
        self.matrices: dict[str, Place] = {}
        self.vectors: dict[str, Place] = {}
        self.by_entries: dict[str, Place] = {}
        self.problems: list[EquationProblem] = []
        self.concatenations: dict[tuple[int, ...], list[Node]] = {}
        self.values: dict[str, Node] = {}
        self.states: dict[str, Node] = {}
        self.used_constants: set[str] = set()
        self.uses_activation = False
        self._lags: dict[str, Place] = {}
        self._vectors_given: set[str] = set()
        self._mistaken: set[str] = set()
        self.of_parameters_by_name: set[str] = set()
        self.of_parameters: set[Node] = set()
        self._given_matrices: dict[str, Matrix] = {}
        self._rank_of: dict[Node, int] = {}
        self._state_names = {e.name for e in equations if e.is_state}
        self._given = {e.name: e for e in reversed(equations)}
        self._matrix_names = names_left_of_products(equations)
        self._lower_all(equations)

    def _lower_all(self, equations: Sequence[Equation]) -> None:
        seen: dict[str, Equation] = {}
        for equation in equations:
            if equation.name in seen:
                first = seen[equation.name].place.line
                message = f"{equation.left_side} is given twice; {OTHER_LINE} gives it already"
                self.problems.append(equation.place.problem(message, first))
                continue
            seen[equation.name] = equation
            if clash := self._clash(equation):
                self.problems.append(equation.place.problem(clash))
                continue
            try:
                if not equation.is_readable:
                    raise _Consequence
                is_matrix = equation.name in self._matrix_names and not equation.is_state
                has_rank = self.ranks.of(equation.name) == MATRIX
                if is_matrix and not (has_rank and self._is_of_parameters(equation.expression)):
                    is_matrix = False
                    if not has_rank:
                        # Then the mistake is where it stands left of '@', and not here.
                        self._vectors_given.add(equation.name)
                if is_matrix:
                    self.of_parameters_by_name.add(equation.name)
                    node = self._matrix(equation.expression, equation)
                    self.of_parameters.add(node)
                else:
                    node = self._given_value(equation)
            except (_Mistake, _Consequence) as mistake:
                if isinstance(mistake, _Mistake):
                    self.problems.append(mistake.problem)
                self._mistaken.add(equation.name)
                # The rest is still checked, with this name standing for an unknown value.
                node = self.graph.parameter(f"?{equation.name}")
            self.values[equation.name] = node
            if equation.is_state:
                self.states[equation.name] = node
        self._check_states(equations)

    def _is_of_parameters(self, tree: ast.expr) -> bool:
        """Tell whether an expression is a matrix of parameters, or made of such, and changes with nothing."""
        for node in ast.walk(tree):
            if isinstance(node, ast.Subscript | ast.List | ast.Compare):
                return False
            if isinstance(node, ast.Name):
                name = node.id
                if name in TAKES or (name == IDENTITY_NAME and name not in self._given):
                    return False
                if name in self._state_names or (name in self._given and name not in self.of_parameters_by_name):
                    return False
        return True

    def _given_value(self, equation: Equation) -> Node:
        """Return the value of an equation; of a matrix, what it is made of is kept as well."""
        tree = equation.expression
        found = self._value(tree, equation)
        if isinstance(found, Node):
            self._note(found, tree, equation)
            return found
        if not equation.is_state:
            self._given_matrices[equation.name] = found
        node = self.algebra.entries(found)
        self._note(node, tree, equation)
        return node

    def _clash(self, equation: Equation) -> str:
        name = equation.name
        if name == IDENTITY_NAME:
            return f"{name} is the identity matrix; choose another name"
        if name in self.constants:
            return f"{name} is given as a constant and by an equation; rename one of them"
        # What came to be a function later may be the name of something in cells that were written before.
        if (name in CALLABLE and name not in TAKES) or name == ACTIVATION_NAME:
            return f"{name} is a function; choose another name"
        return ""

    def _check_states(self, equations: Sequence[Equation]) -> None:
        states = {e.name for e in equations if e.is_state}
        for name, place in self._lags.items():
            if name not in self._given:
                hint = did_you_mean(name, sorted(states))
                what = f"{name}[t-1] makes {name} a state, but no line gives {name}[t]"
                self.problems.append(place.problem(what + hint))
        if not states and not self._lags and equations:
            name, message = no_state([equation.name for equation in equations])
            # What is wrong with a name that was meant as a state says nothing more.
            self.problems = [problem for problem in self.problems if not problem.message.startswith(f"{name} ")]
            self.problems.append(self._given[name].place.problem(message))

    # Values at one step.

    def _vector(self, tree: ast.expr, equation: Equation) -> Node:
        """Return the value of an expression, whatever its rank, as a node."""
        found = self._value(tree, equation)
        node = found if isinstance(found, Node) else self.algebra.entries(found)
        self._note(node, tree, equation)
        return node

    def _value(self, tree: ast.expr, equation: Equation) -> Node | Matrix:
        """Return the value of an expression; a matrix as what it is made of."""
        found = self._value_of(tree, equation)
        if isinstance(found, Node):
            self._note(found, tree, equation)
            return Dense(found) if self._rank(found) == MATRIX else found
        return found

    def _rank(self, node: Node) -> int:
        """Return the rank of a value."""
        for below in reachable([node], stop=self._rank_of.keys()):
            if below not in self._rank_of:
                self._rank_of[below] = self._rank_by_op(below)
        return self._rank_of[node]

    def _rank_by_op(self, node: Node) -> int:
        match node.op:
            case "number":
                return NUMBER
            case "parameter":
                return self.ranks.of(node.data.removeprefix("?"))
            case "state":
                return self.ranks.of(node.data[0])
            case "spread" | "transposed" | "entries" | "identity" | "transpose" | "columns":
                return MATRIX
            case "total" if node.data == "entries":
                return NUMBER
            case "mean" | "largest":
                return NUMBER
            case "input" | "matmul" | "across" | "cumsum" | "slice" | "pad" | "total":
                return VECTOR
            case _:
                return max(self._rank_of[arg] for arg in node.args)

    def _together(self, nodes: Sequence[Node], trees: Sequence[ast.expr], place: Place, equation: Equation) -> None:
        """Tell where a vector and a matrix are combined entry by entry."""
        ranks = [self._rank(node) for node in nodes]
        if VECTOR in ranks and MATRIX in ranks:
            self._check_is_known(*trees)
            match trees[ranks.index(MATRIX)]:
                case ast.Name(id=name) if name in self.of_parameters_by_name:
                    message = f"{name} is a matrix (it stands left of '@' elsewhere) and here it would be a vector"
                    raise _Mistake(place, message)
                case ast.Name(id=name) if name not in self._given and name != IDENTITY_NAME:
                    # Told in the end, at the later one of the two places.
                    self.vectors.setdefault(name, equation.statement.place(trees[ranks.index(MATRIX)]))
                    self._rank_of[nodes[ranks.index(MATRIX)]] = VECTOR
                    return
                case ast.Attribute(value=ast.Name(id=name)) if name not in self._given:
                    raise _Mistake(
                        equation.statement.place(trees[ranks.index(MATRIX)]),
                        f"the transpose {name}.T stands left of '@': {name}.T @ h[t-1]",
                    )
            vector, matrix = (self._written(trees[ranks.index(rank)], equation) for rank in (VECTOR, MATRIX))
            told = self._made_a_vector(trees[ranks.index(VECTOR)], equation)
            if told:
                raise _Mistake(place, f"{vector} is a vector and {matrix} a matrix: {told}")
            of = self._factor(trees[ranks.index(MATRIX)], equation)
            raise _Mistake(
                place,
                f"{vector} is a vector and {matrix} a matrix: write diag({vector}) @ {of} for its rows, "
                f"{of} @ diag({vector}) for its columns, or outer(a, b) for a matrix of two vectors; "
                "a gate that is one number is made by dot(w, x[t]), and one that is a parameter by shapes: {NAME: []}",
            )

    def _check_is_known(self, *trees: ast.expr) -> None:
        """Leave a line alone that uses what a mistake of another leaves unknown: what it would say may not be so."""
        names = {node.id for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Name)}
        if names & (self._mistaken - self._state_names):
            raise _Consequence

    def _made_a_vector(self, tree: ast.expr, equation: Equation) -> str:
        """Return what makes a number of w.T @ x[t], where it is what makes a vector of an expression; else nothing."""
        if isinstance(tree, ast.Name) and tree.id in self._given and not self._given[tree.id].is_state:
            equation = self._given[tree.id]
            tree = equation.expression
        for node in ast.walk(tree):
            match node:
                case ast.BinOp(left=ast.Attribute(value=ast.Name(id=name)), op=ast.MatMult(), right=right) if (
                    self._is_only_transposed(name)
                ):
                    a = self._written(right, equation)
                    product = self._written(node, equation)
                    size = INPUT if isinstance(right, ast.Subscript) and a.startswith(f"{INPUT_NAME}[") else HIDDEN
                    if "this" in (a, product):
                        a, product = "...", f"{name}.T @ ..."
                    why = "as a parameter left of '@' is a matrix unless something says otherwise"
                    named = f", or shapes: {{{name}: [{size}]}}" if isinstance(right, ast.Subscript) else ""
                    return f"{product} makes it one, {why}; for a number write dot({name}, {a}){named}"
        return ""

    def _is_only_transposed(self, name: str) -> bool:
        """Tell whether a name is a parameter that stands nowhere but in name.T @ ..., so that it may mean a vector."""
        if name in self._given or name in self.constants or self.ranks.of(name) != MATRIX:
            return False
        trees = [node for e in self._given.values() for node in ast.walk(e.expression)]
        transposed = [t.value for t in trees if isinstance(t, ast.Attribute)]
        return all(t in transposed for t in trees if isinstance(t, ast.Name) and t.id == name)

    def _written(self, tree: ast.expr, equation: Equation) -> str:
        text = ast.get_source_segment(equation.statement.text, tree) or ""
        return text if text and len(text) <= _LONGEST_WORDS and "\n" not in text else "this"

    def _note(self, node: Node, tree: ast.expr, equation: Equation) -> None:
        if node not in self.places:
            self.places[node] = equation.statement.place(tree)
            self._texts[node] = (equation.statement, tree)

    def place_of_value(self, name: str) -> Place:
        """Return where the right side of the equation of a name stands."""
        given = self._given[name]
        return given.statement.place(given.expression)

    def words_of(self, node: Node) -> str:
        """Return a node as it was first written, or the name that it was given; empty where neither is short."""
        if node not in self._texts:
            return ""
        statement, tree = self._texts[node]
        text = ast.get_source_segment(statement.text, tree) or ""
        if len(text) > _LONGEST_WORDS or "\n" in text:
            return next((name for name, value in self.values.items() if value is node and name not in self.states), "")
        return text

    def _value_of(self, tree: ast.expr, equation: Equation) -> Node | Matrix:
        g = self.graph
        place = equation.statement.place(tree)
        match tree:
            case ast.Constant():
                return g.number(_number(tree, place))
            case ast.Name(id=name) if name == IDENTITY_NAME and name not in self.constants:
                return Identity()
            case ast.Name(id=name) if name in self._given_matrices:
                return self._given_matrices[name]
            case ast.Name(id=name):
                return self._name(name, place, equation)
            case ast.Subscript(value=inner, slice=ast.Slice() as part):
                return self._slice(inner, part, place, equation)
            case ast.Subscript(value=inner, slice=ast.Constant(value=int(index))) if not self._is_state_name(inner):
                return self._entry(inner, index, place, equation)
            case ast.Subscript(value=inner, slice=ast.UnaryOp(op=ast.USub(), operand=ast.Constant())) if (
                not self._is_state_name(inner)
            ):
                raise _Mistake(place, f"{_FROM_THE_END}: of 8 entries a[7] is the last")
            case ast.Subscript(value=ast.Name(id=name), slice=subscript):
                return self._subscript(name, subscript, place, equation)
            case ast.UnaryOp(op=ast.UAdd(), operand=operand):
                return self._value(operand, equation)
            case ast.BinOp(op=ast.Add() | ast.Sub()) | ast.UnaryOp(op=ast.USub()):
                return self._sum(tree, place, equation)
            case ast.BinOp(left=left, op=ast.MatMult(), right=right):
                return self._product(left, right, place, equation)
            case ast.BinOp(left=left, op=op, right=right):
                return self._elementwise(left, op, right, place, equation)
            case ast.Call():
                return self._call(tree, place, equation)
            case ast.List():
                return self._concatenation(tree, equation)
            case ast.Attribute(value=inner, attr="T") if not self._is_of_parameters(inner):
                matrix = self._value(inner, equation)
                if isinstance(matrix, Node):
                    what = self._written(inner, equation)
                    raise _Mistake(
                        place,
                        f"{what} is no matrix; the transpose of a vector stands beside '@': {what}.T @ b, which is "
                        f"dot({what}, b), a number, or a @ {what}.T, which is outer(a, {what}), a matrix",
                    )
                return self.algebra.transposed(matrix)
            case ast.Attribute(value=ast.Name(id=name), attr="T") if self.ranks.of(name) != MATRIX:
                raise _Mistake(place, f"the transpose {name}.T stands left of '@': {name}.T @ h[t-1]")
            case ast.Attribute(attr="T"):
                return g.entries(self._matrix(tree, equation))
            case _:
                raise _Mistake(place, not_offered(tree))

    def _sum(self, tree: ast.expr, place: Place, equation: Equation) -> Node | Matrix:
        terms = self._terms(tree, 1, equation)
        if any(not isinstance(term, Node) for _, term, _ in terms):
            nodes = [(sign, term if isinstance(term, Node) else self.algebra.entries(term)) for sign, term, _ in terms]
            self._together([node for _, node in nodes], [part for _, _, part in terms], place, equation)
            if any(isinstance(term, Node) for _, term, _ in terms):
                return self.graph.sum(nodes)  # a number goes with every entry
            return self.algebra.sum([(sign, term) for sign, term, _ in terms if not isinstance(term, Node)])
        found = self.graph.sum([(sign, term) for sign, term, _ in terms if isinstance(term, Node)])
        for part in (found, *found.args):
            _finite(part, place)
        return found

    def _terms(self, tree: ast.expr, sign: int, equation: Equation) -> list[tuple[int, Node | Matrix, ast.expr]]:
        """Return the signed terms of a chain of + and -, so that a sum is one node however it is bracketed."""
        match tree:
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return self._terms(left, sign, equation) + self._terms(right, sign, equation)
            case ast.BinOp(left=left, op=ast.Sub(), right=right):
                return self._terms(left, sign, equation) + self._terms(right, -sign, equation)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return self._terms(operand, -sign, equation)
            case _:
                return [(sign, self._value(tree, equation), tree)]

    def _elementwise(
        self, left: ast.expr, op: ast.operator, right: ast.expr, place: Place, equation: Equation
    ) -> Node | Matrix:
        build = {ast.Mult: self.graph.mul, ast.Div: self.graph.div, ast.Pow: self.graph.pow}.get(type(op))
        if isinstance(op, ast.BitXor) and (matrix := transposed_by_power(left, right)) is not None:
            message = f"the transpose is written with a point: {self._written(matrix, equation)}.T"
            raise _Mistake(equation.statement.place(matrix), message)
        if build is None:
            raise _Mistake(place, OPERATORS_NOT_OFFERED.get(type(op), "operators are + - * / ** @"))
        if isinstance(op, ast.Mult):
            self._refuse_row_as_factor(left, right, equation)
        first, second = self._value(left, equation), self._value(right, equation)
        if isinstance(op, ast.Mult):
            # A number times an outer product is one with a multiple of one of its vectors.
            if isinstance(first, Node) and not isinstance(second, Node) and self._rank(first) == NUMBER:
                return self.algebra.scaled(first, second)
            if isinstance(second, Node) and not isinstance(first, Node) and self._rank(second) == NUMBER:
                return self.algebra.scaled(second, first)
        if isinstance(op, ast.Div) and isinstance(second, Node) and not isinstance(first, Node):
            by_zero = second.is_number and second.data == 0.0
            if self._rank(second) == NUMBER and not by_zero:
                return self.algebra.scaled(_finite(self.graph.div(self.graph.number(1.0), second), place), first)
        a, b = (value if isinstance(value, Node) else self.algebra.entries(value) for value in (first, second))
        self._together([a, b], [left, right], place, equation)
        if isinstance(op, ast.Div) and b.is_number and b.data == 0.0:
            raise _Mistake(place, "division by zero")
        try:
            node = build(a, b)
        except (OverflowError, ZeroDivisionError, ValueError):
            raise _Mistake(place, "these numbers give no finite result") from None
        return _finite(node, place)

    def _refuse_row_as_factor(self, left: ast.expr, right: ast.expr, equation: Equation) -> None:
        """Tell of a * b.T, which papers write for the outer product of two vectors."""
        if not isinstance(right, ast.Attribute) or self._is_of_parameters(right.value):
            return
        if not isinstance(self._value(right.value, equation), Node):
            return
        factors = [left]
        while isinstance(factors[-1], ast.BinOp) and isinstance(factors[-1].op, ast.Mult):
            factors[-1:] = [factors[-1].left, factors[-1].right]
        b = self._written(right.value, equation)
        for factor in reversed(factors):
            value = self._value(factor, equation)
            if isinstance(value, Node) and self._rank(value) == VECTOR:
                a = self._factor(factor, equation)
                told = f"for a matrix write {a} @ {b}.T, or outer({a}, {b})"
                raise _Mistake(equation.statement.place(right), f"{b}.T is no factor of '*': {told}")

    def _slice(self, inner: ast.expr, part: ast.Slice, place: Place, equation: Equation) -> Node:
        vector = self._vector(inner, equation)
        if self._rank(vector) != VECTOR:
            raise _Mistake(place, f"a slice is one of a vector, and this is {_WHAT[self._rank(vector)]}")
        ends = [None if end is None else self._vector(end, equation) for end in (part.lower, part.upper)]
        if any(end is not None and end.is_number and end.data < 0.0 for end in ends):
            message = f"{_FROM_THE_END}: of 8 entries a[6:] are the last two, and a[0:6] all but these"
            raise _Mistake(place, message)
        if part.step is not None or any(
            end is not None and not (end.is_number and end.data >= 0 and end.data == int(end.data)) for end in ends
        ):
            raise _Mistake(place, "a slice is written a[0:16]: from the first entry to the one behind the last")
        start, stop = (None if end is None else int(end.data) for end in ends)
        if stop is not None and stop <= (start or 0):
            raise _Mistake(
                place, "this slice has no entries: a[0:16] is from the first entry to the one behind the last"
            )
        return self.graph.node("slice", (vector,), (start or 0, stop))

    def _is_state_name(self, tree: ast.expr) -> bool:
        return isinstance(tree, ast.Name) and tree.id in (*self._state_names, INPUT_NAME)

    def _entry(self, inner: ast.expr, index: int, place: Place, equation: Equation) -> Node:
        """Return one entry of a vector, a number."""
        vector = self._vector(inner, equation)
        if self._rank(vector) != VECTOR:
            raise _Mistake(place, f"an entry is one of a vector, and this is {_WHAT[self._rank(vector)]}")
        entry = self.graph.node("slice", (vector,), (index, index + 1))
        self.places.setdefault(entry, place)
        return self.graph.total(entry, "entries")

    def _concatenation(self, tree: ast.List, equation: Equation) -> Node:
        parts = self._parts(tree, equation)
        padded = [self.graph.node("pad", (part,), (i, _indices(parts))) for i, part in enumerate(parts)]
        for node in padded:
            self.places.setdefault(node, equation.statement.place(tree))
        return self.graph.sum([(1, node) for node in padded])

    def _parts(self, tree: ast.List, equation: Equation) -> list[Node]:
        """Return the parts of a concatenation, and take note of them."""
        place = equation.statement.place(tree)
        if not tree.elts:
            raise _Mistake(place, "an empty concatenation; write W @ [h[t-1], x[t]]")
        parts = [self._vector(part, equation) for part in tree.elts]
        for part, element in zip(parts, tree.elts, strict=True):
            if part.is_number and isinstance(element, ast.Constant) and len(parts) == 1:
                raise _Mistake(place, "a concatenation of one number is no vector; write the number itself")
            if self._rank(part) == MATRIX:
                where = equation.statement.place(element)
                raise _Mistake(where, "a concatenation is one of vectors and numbers, and this is a matrix")
        self.concatenations[_indices(parts)] = parts
        return parts

    def _name(self, name: str, place: Place, equation: Equation) -> Node:
        if name in self.constants:
            self.used_constants.add(name)
            return self.graph.number(self.constants[name])
        if name == INPUT_NAME:
            raise _Mistake(place, "x is the input: write x[t]")
        if name == TIME_NAME:
            raise _Mistake(place, "t is the time step and has no value of its own")
        is_function = name in CALLABLE and name not in TAKES
        if (is_function and name not in self._given) or name == ACTIVATION_NAME:
            raise _Mistake(place, f"{name} is a function: write {name}(...)")
        if name in self._given:
            return self._vector_value(name, place, equation)
        if meant := state_meant(name, self._state_names, INPUT_NAME):
            raise _Mistake(place, f"{name} would be a parameter here; the value that it seems to mean is {meant}")
        if self.ranks.of(name) == MATRIX:
            self.by_entries.setdefault(name, place)
            return self.graph.entries(self.graph.parameter(name))
        if name not in self.scalars:
            self.vectors.setdefault(name, place)
        return self.graph.parameter(name)

    def _assigned(self, name: str, place: Place, equation: Equation) -> Node:
        given = self._given[name]
        if given.is_state:
            raise _Mistake(
                place, f"{name} is a state: write {name}[t-1] for its last value, or {name}[t] for its new one"
            )
        if name not in self.values:
            if name == equation.name:
                raise _Mistake(place, f"{name} is given by itself; for its last value make it a state: {name}[t-1]")
            raise _Mistake(place, self._used_before(given, equation), given.place.line)
        return self.values[name]

    def _used_before(self, given: Equation, equation: Equation) -> str:
        """Return what is wrong where a line uses what a later one gives: their order, or a loop within the step."""
        if equation.name not in needed_within_the_step(given, self._given):
            return f"{given.left_side} is used before {OTHER_LINE}, which gives it; move that line up"
        loop = (
            f"{given.left_side} is given on {OTHER_LINE} out of {equation.left_side}, which this line gives: "
            "a loop within the step"
        )
        if given.is_state:
            return f"{loop}; write {given.name}[t-1] here, or give what both need a name of its own"
        if equation.is_state:
            return f"{loop}; write {equation.name}[t-1] there"
        return f"{loop}; one of the two must be a state, whose last value the other uses: {given.name}[t-1]"

    def _vector_value(self, name: str, place: Place, equation: Equation) -> Node:
        node = self._assigned(name, place, equation)
        return self.graph.entries(node) if name in self.of_parameters_by_name and not node.is_number else node

    def _subscript(self, name: str, subscript: ast.expr, place: Place, equation: Equation) -> Node:
        lag = lag_of(subscript)
        if lag is None:
            raise _Mistake(place, f"the index of {name} is t, or t-1, t-2 and so on for earlier steps")
        if lag < 0:
            raise _Mistake(place, f"{name}[t+{-lag}] lies in the future; a cell sees t and earlier steps")
        if lag > MAX_LAG:
            raise _Mistake(place, f"{name}[t-{lag}] is further back than {MAX_LAG} steps")
        if name == INPUT_NAME:
            return self.graph.input(lag)
        if lag:
            self._lags.setdefault(name, place)
            given = self._given.get(name)
            if given is not None and not given.is_state:
                message = f"{name}[t-{lag}] makes {name} a state: write {name}[t] = ... on {OTHER_LINE}"
                raise _Mistake(place, message, given.place.line)
            return self.graph.state(name, lag)
        given = self._given.get(name)
        if given is None:
            near = did_you_mean(name, [n for n, e in self._given.items() if e.is_state])
            raise _Mistake(place, f"no line gives {name}[t]{near}")
        if not given.is_state:
            raise _Mistake(place, f"{name} is no state: write {name} without [t], or give it as {name}[t] = ...")
        if name not in self.states:
            if name == equation.name:
                raise _Mistake(place, f"{name}[t] is given by itself; its last value is {name}[t-1]")
            raise _Mistake(place, self._used_before(given, equation), given.place.line)
        return self.graph.state(name, 0)

    def _call(self, tree: ast.Call, place: Place, equation: Equation) -> Node | Matrix:
        if (inner := transposed_by_call(tree)) is not None:
            raise _Mistake(place, f"the transpose is written with a point: {self._factor(inner, equation)}.T")
        if isinstance(tree.func, ast.Attribute | ast.Call):
            raise _Mistake(place, no_method(tree.func))
        if not isinstance(tree.func, ast.Name):
            raise _Mistake(place, "only functions of the list can be called: " + ", ".join(CALLABLE))
        name = tree.func.id
        if name in self.calls:
            self.uses_activation = True
            name = self.calls[name]
        if name == ACTIVATION_NAME:
            raise _Mistake(
                place, "phi stands for the function that 'activation:' names; give it, as in 'activation: tanh'"
            )
        if name not in CALLABLE and len(tree.args) == 1 and lag_of(tree.args[0]) is not None:
            raise _Mistake(place, f"an index of time stands in square brackets: {name}[t] or {name}[t-1]")
        if name in self._given or name in self.constants:
            raise _Mistake(place, f"{name} is no function; a product is written {name} * (...) or {name} @ (...)")
        if name not in CALLABLE:
            raise _Mistake(place, no_function(name))
        if name in ACROSS:
            return self._across(ACROSS[name], tree, place, equation)
        if name in TAKES:
            return self._of_shapes(name, tree, place, equation)
        if len(tree.args) != 1 or tree.keywords or isinstance(tree.args[0], ast.Starred):
            raise _Mistake(place, f"{name} takes one argument: {name}(a)")
        argument = self._vector(tree.args[0], equation)
        if argument.is_number:
            return _finite(self.graph.number(value_at(name, argument.data)), place)
        return self.graph.call(name, argument)

    def _of_shapes(self, name: str, tree: ast.Call, place: Place, equation: Equation) -> Node | Matrix:
        """Return the value of a function of several values, of all entries, or of another shape."""
        args = tree.args
        if name == "where" and args and isinstance(args[0], ast.Compare) and len(args) == 3 and not tree.keywords:
            return self._where(args[0], args[1:], place, equation)
        if name == "where" and args and isinstance(args[0], ast.BoolOp | ast.UnaryOp) and len(args) == 3:
            self._refuse_condition(args[0], equation)
        takes = TAKES[name]
        if tree.keywords or len(args) not in takes.counts or any(isinstance(arg, ast.Starred) for arg in args):
            raise _Mistake(place, f"{name} takes {takes.what}")
        if name == "spike":
            return self._spike(tree, place, equation)
        if name == "stop" and not isinstance(matrix := self._value(args[0], equation), Node):
            return self.algebra.stopped(matrix)
        nodes = [self._vector(arg, equation) for arg in args]
        for node, arg in zip(nodes, args, strict=True):
            if takes.rank is not None and self._rank(node) != takes.rank:
                what = f"{name} takes {takes.what}, and this is {_WHAT[self._rank(node)]}"
                raise _Mistake(equation.statement.place(arg), what)
        g = self.graph
        match name, nodes:
            case "outer", [a, b]:
                return Outer(a, b)
            case "diag", [a]:
                return Diagonal(a)
            case "dot", [a, b]:
                return self.algebra.dot(a, b)
            case "sum", [a]:
                return g.total(a, "entries")
            case "mean", [a]:
                return g.node("mean", (a,))
            case "norm", [a]:
                return g.call("_root", g.total(g.mul(a, a), "entries"))
            case "cumsum", [a]:
                return g.node("cumsum", (a,), False)
            case "stop", [a]:
                return a if a.is_number else g.node("stop", (a,))
            case (("max" | "min"), [a]):
                if self._rank(a) == NUMBER:
                    raise _Mistake(place, f"{name} takes {takes.what}, and this is a number")
                return g.node("largest", (a,)) if name == "max" else g.neg(g.node("largest", (g.neg(a),)))
            case _, [a, b]:
                self._together([a, b], args, place, equation)
                return (g.maximum if name == "max" else g.minimum)(a, b)
        raise AssertionError(name)

    def _where(self, condition: ast.Compare, args: Sequence[ast.expr], place: Place, equation: Equation) -> Node:
        comparison = _COMPARISONS.get(type(condition.ops[0]))
        if len(condition.ops) > 1:
            sides = [self._written(side, equation) for side in (condition.left, *condition.comparators)]
            signs = [_SIGNS.get(type(op), "<") for op in condition.ops]
            both = [" ".join(part) for part in zip(sides, signs, sides[1:], strict=False)]
            where = equation.statement.place(condition)
            raise _Mistake(where, f"where takes one comparison; for two write {_nested(both, holds_both=True)}")
        if comparison is None:
            what = "where compares two values by <, <=, > or >="
            if isinstance(condition.ops[0], ast.Eq | ast.NotEq):
                sign = _SIGNS[type(condition.ops[0])]
                what += f", not {sign}: numbers that are computed are hardly ever equal to the last digit"
            raise _Mistake(equation.statement.place(condition), what)
        trees = [condition.left, *condition.comparators, *args]
        nodes = [self._vector(arg, equation) for arg in trees]
        self._together(nodes, trees, place, equation)
        op, direction = comparison
        mask = self.graph.compare(op, *nodes[:2][::direction])
        return self.graph.where(mask, nodes[2], nodes[3])

    def _refuse_condition(self, condition: ast.BoolOp | ast.UnaryOp, equation: Equation) -> None:
        """Tell how a choice by several comparisons is written, at the `and` or `or` between them."""
        if isinstance(condition, ast.UnaryOp):
            if isinstance(condition.op, ast.Not):
                message = "there is no 'not'; turn the comparison round, or p and q: where(a > b, q, p)"
                raise _Mistake(equation.statement.place(condition), message)
            return
        word = "and" if isinstance(condition.op, ast.And) else "or"
        comparisons = [self._written(value, equation) for value in condition.values]
        nested = _nested(comparisons, holds_both=word == "and")
        place = equation.statement.place_behind(condition.values[0], word)
        raise _Mistake(place, f"where takes one comparison, without '{word}'; write {nested}")

    def _spike(self, tree: ast.Call, place: Place, equation: Equation) -> Node:
        argument, surrogate, steepness = tree.args
        if not isinstance(surrogate, ast.Constant) or surrogate.value not in SURROGATES:
            hint = did_you_mean(str(surrogate.value), list(SURROGATES)) if isinstance(surrogate, ast.Constant) else ""
            what = f"the surrogate of a spike is one of {', '.join(SURROGATES)}, in quotation marks{hint}"
            raise _Mistake(equation.statement.place(surrogate), what)
        k = self._vector(steepness, equation)
        if not k.is_number or not k.data > 0.0:
            where = equation.statement.place(steepness)
            raise _Mistake(where, "the steepness of a surrogate is a number or constant above 0")
        return self.graph.node("spike", (self._vector(argument, equation),), (surrogate.value, k.data))

    def _across(self, function: Across, tree: ast.Call, place: Place, equation: Equation) -> Node:
        name = function.name
        plain = not tree.keywords and not any(isinstance(arg, ast.Starred) for arg in tree.args)
        if not plain or len(tree.args) not in ((1, 2) if function.is_norm else (1,)):
            also = f", or with an eps of your own {name}(a, 1e-3)" if function.is_norm else ""
            raise _Mistake(place, f"{name} takes one vector: {name}(a){also}")
        argument = self._vector(tree.args[0], equation)
        if self._rank(argument) != VECTOR:
            what = "a single number" if argument.is_number else _WHAT[self._rank(argument)]
            raise _Mistake(place, f"{name} takes a vector, and this is {what}")
        eps = DEFAULT_EPS if function.is_norm else 0.0
        if len(tree.args) == 2:
            second = self._vector(tree.args[1], equation)
            if not second.is_number or second.data < 0.0:
                where = equation.statement.place(tree.args[1])
                raise _Mistake(where, f"the second argument of {name} is eps, a number or constant of at least 0")
            eps = second.data
        if function.over_sequences and self.batch_size == 1:
            message = f"{name} takes statistics over the sequences of a batch: make batch_size 2 or more; got 1"
            raise _Mistake(place, message)
        return self.graph.across(name, eps, argument)

    # Products with a matrix.

    def _product(self, left: ast.expr, right: ast.expr, place: Place, equation: Equation) -> Node | Matrix:
        of_numbers = isinstance(right, ast.List) and any(map(self._is_number, right.elts))
        if isinstance(right, ast.List) and not of_numbers and self._is_of_parameters(left) and not _is_product(left):
            return self._product_with_parts(left, right, place, equation)
        if isinstance(right, ast.Attribute) and (outer := self._outer(left, right, equation)) is not None:
            return outer
        factor = self._value(right, equation)
        self._refuse_vector(left, right, factor, equation)
        if isinstance(factor, Node):
            self._refuse_number(factor, right, equation)
            return self._times_vector(left, factor, place, equation)
        if isinstance(left, ast.Attribute) and isinstance(self._value(left.value, equation), Node):
            row, matrix = self._written(left.value, equation), self._written(right, equation)
            raise _Mistake(place, f"{row}.T @ {matrix} would be a row; vectors are columns: write {matrix}.T @ {row}")
        try:
            return self.algebra.times(self._left(left, place, equation), factor)
        except NoProduct:
            self._check_is_known(left, right)
            raise _Mistake(
                place,
                "a product of two whole matrices is not offered, as one step would need a matrix for every entry; one "
                "of them may be made of outer(a, b), diag(a) and I, or put W where a vector is: outer(v, W @ k), "
                "S @ (W @ q)",
            ) from None

    def _outer(self, left: ast.expr, right: ast.Attribute, equation: Equation) -> Matrix | None:
        """Return a @ b.T of two vectors, as papers write an outer product; None for other products."""
        if self._is_of_parameters(right.value) and not (
            isinstance(right.value, ast.Name) and self._is_vector_parameter(right.value.id)
        ):
            return None
        row = self._value(right.value, equation)
        if not isinstance(row, Node) or self._rank(row) != VECTOR:
            return None
        self._refuse_row(left, right, equation)
        column = self._value(left, equation)
        return Outer(column, row) if isinstance(column, Node) and self._rank(column) == VECTOR else None

    def _refuse_row(self, left: ast.expr, right: ast.Attribute, equation: Equation) -> None:
        """Tell of W @ x[t].T, as frameworks write it, where W is a matrix, or nothing else tells what it is."""
        if not self._is_of_parameters(left):
            return
        names = {node.id for node in ast.walk(left) if isinstance(node, ast.Name)} - self.constants.keys()
        is_matrix = any(self.ranks.of(name) == MATRIX for name in names)
        is_open = self.ranks.nothing_tells(left)
        if not (is_matrix or is_open):
            return
        matrix, vector = (self._written(tree, equation) for tree in (left, right.value))
        told = f"vectors are columns, so that {vector} needs no .T: write {matrix} @ {vector}"
        if is_open and isinstance(left, ast.Name):
            told += f"; of two vectors outer({matrix}, {vector}) makes a matrix"
        raise _Mistake(equation.statement.place(right), told)

    def _names_a_matrix(self, tree: ast.expr) -> bool:
        return isinstance(tree, ast.Name) and tree.id in self.of_parameters_by_name

    def _is_number(self, tree: ast.expr) -> bool:
        """Tell whether a part of a concatenation is written as a number, which is one entry."""
        return isinstance(tree, ast.Constant) or (isinstance(tree, ast.Name) and tree.id in self.constants)

    def _left(self, tree: ast.expr, place: Place, equation: Equation) -> Matrix:
        """Return the matrix left of an '@'."""
        if self._is_of_parameters(tree) and not _is_product(tree):
            return Parameters(self._left_matrix(tree, place, equation))
        if self._names_a_vector(tree):
            self._matrix(tree, equation)  # tells what is wrong with it
        vectors = dict(self.vectors)
        matrix = self._value(tree, equation)
        if isinstance(matrix, Node):
            self.vectors = vectors
            self._matrix(tree, equation)
            raise _Mistake(place, "left of '@' stands a matrix")
        return matrix

    def _refuse_vector(self, left: ast.expr, right: ast.expr, factor: Node | Matrix, equation: Equation) -> None:
        """Tell of k @ v and v @ S, in which a vector stands left of '@' without the transpose that it needs."""
        name = left.value if isinstance(left, ast.Subscript) else left
        if not isinstance(name, ast.Name) or not (self._names_a_vector(left) or isinstance(left, ast.Subscript)):
            return
        if isinstance(left, ast.Name) and (name.id in self._state_names or name.id == equation.name):
            return
        if name.id in self._mistaken:
            raise _Consequence
        a, b = self._written(left, equation), self._written(right, equation)
        rank = MATRIX if not isinstance(factor, Node) else self._rank(factor)
        if "this" in (a, b) or self._rank(self._vector(left, equation)) != VECTOR or rank == NUMBER:
            return
        if rank == VECTOR and self._is_of_parameters(right):
            return  # as frameworks write h[t-1] @ W, of which more is said where W is taken for a vector
        place = equation.statement.place(left)
        given = self._given.get(name.id)
        elsewhere = given.place.line if given is not None and isinstance(left, ast.Name) else 0
        what = f"{a} is a vector" + (f", given on {OTHER_LINE}, and" if elsewhere else " and")
        if rank == MATRIX:
            told = f"would be a row left of '@': write {self._factor(right, equation)}.T @ {a}, or diag({a}) @ {b} for"
            raise _Mistake(place, f"{what} {told} each row times an entry of {a}", elsewhere)
        raise _Mistake(
            place,
            f"{what} cannot stand left of '@': write {a} * {b} for a gate, outer({a}, {b}) or "
            f"{a} @ {self._factor(right, equation)}.T for a matrix, or dot({a}, {b}) or {a}.T @ {b} for a number",
            elsewhere,
        )

    def _factor(self, tree: ast.expr, equation: Equation) -> str:
        """Return an expression as it is written as a factor, in brackets where it needs them."""
        text = self._written(tree, equation)
        return f"({text})" if isinstance(tree, ast.BinOp | ast.UnaryOp) else text

    def _names_a_vector(self, tree: ast.expr) -> bool:
        match tree:
            case ast.Name(id=name) | ast.Subscript(value=ast.Name(id=name)):
                return name in self._given and self.ranks.of(name) != MATRIX
            case _:
                return False

    def _times_vector(self, left: ast.expr, vector: Node, place: Place, equation: Equation) -> Node:
        if _is_product(left):
            # U @ V @ h: two products with a vector instead of one of two matrices.
            assert isinstance(left, ast.BinOp)
            inner = self._times_vector(left.right, vector, equation.statement.place(left), equation)
            if self._rank(inner) == NUMBER:
                # a @ b.T @ v: a times a number
                return self.graph.mul(inner, self._vector(left.left, equation))
            return self._times_vector(left.left, inner, place, equation)
        if isinstance(left, ast.Attribute) and not self._is_of_parameters(left.value):
            row = self._value(left.value, equation)
            if isinstance(row, Node) and self._rank(row) == VECTOR:
                return self.algebra.dot(row, vector)
        if (
            isinstance(left, ast.Attribute)
            and isinstance(left.value, ast.Name)
            and self._is_vector_parameter(left.value.id)
        ):
            return self.algebra.dot(self._vector(left.value, equation), vector)
        if self._is_of_parameters(left):
            return self.graph.matmul(self._left_matrix(left, place, equation), vector)
        product = self.algebra.times_vector(self._left(left, place, equation), vector)
        for node in reachable([product], stop=self.places.keys()):
            self.places.setdefault(node, place)
        return product

    def _is_vector_parameter(self, name: str) -> bool:
        return name not in self._given and name not in self.constants and self.ranks.of(name) == VECTOR

    def _product_with_parts(self, left: ast.expr, right: ast.List, place: Place, equation: Equation) -> Node:
        matrix = self._left_matrix(left, place, equation)
        parts = self._parts(right, equation)
        columns = [self.graph.columns(matrix, i, parts) for i in range(len(parts))]
        products = [self.graph.matmul(column, part) for column, part in zip(columns, parts, strict=True)]
        for node in (*columns, *products):
            self.places.setdefault(node, place)
        return self.graph.sum([(1, product) for product in products])

    def _refuse_number(self, vector: Node, tree: ast.expr, equation: Equation) -> None:
        if vector.is_number:
            place = equation.statement.place(tree)
            raise _Mistake(place, "a number cannot stand right of '@'; for a bias, add a vector: W @ h[t-1] + b")

    def _left_matrix(self, tree: ast.expr, place: Place, equation: Equation) -> Node:
        """Return what stands left of an '@': a matrix, and no number."""
        matrix = self._matrix(tree, equation)
        parameters = [node.data for node in reachable([matrix]) if node.op == "parameter"]
        if all(name in self.scalars for name in parameters):
            what = "left of '@' stands a matrix; a number is multiplied with '*'"
            if parameters:
                name = parameters[0]
                what = f"{name} is a matrix, with two sizes: [rows, columns]; shapes says that it is a single number"
            raise _Mistake(place, what)
        return matrix

    def _matrix(self, tree: ast.expr, equation: Equation) -> Node:
        node = self._matrix_node(tree, equation)
        if node.dependence is not Dependence.PARAMETERS:
            raise _Mistake(equation.statement.place(tree), "left of '@' stands a matrix of parameters")
        self._note(node, tree, equation)
        return node

    def _matrix_node(self, tree: ast.expr, equation: Equation) -> Node:
        g = self.graph
        place = equation.statement.place(tree)
        match tree:
            case ast.Constant():
                return g.number(_number(tree, place))
            case ast.Name(id=name) if name in self.constants:
                return self._name(name, place, equation)
            case ast.Name(id=name) if name == IDENTITY_NAME:
                raise _Mistake(place, "here I stands for no size that is known; write the value that it multiplies")
            case ast.Subscript(value=ast.Name(id=name)) if name in self._mistaken:
                raise _Consequence
            case ast.Name(id=name) if name in self._mistaken - self._state_names:
                raise _Consequence
            case ast.Name(id=name) if name in self._vectors_given | self._state_names:
                what, value = ("state", f"{name}[t-1]") if name in self._state_names else ("vector", name)
                message = f"{name} is a {what}, given on {OTHER_LINE}, and cannot stand left of '@'"
                message += f": for a gate write {value} * ..."
                raise _Mistake(place, message, self._given[name].place.line)
            case ast.Name(id=name) if name in self._given and not self._given[name].is_state:
                return self._assigned(name, place, equation)
            case ast.Name(id=name) if name not in self._given:
                if name in (INPUT_NAME, TIME_NAME, ACTIVATION_NAME) or name in CALLABLE:
                    return self._name(name, place, equation)
                if name not in self.scalars:
                    self.matrices.setdefault(name, place)
                return g.parameter(name)
            case ast.Attribute(value=inner, attr="T"):
                return g.transpose(self._matrix(inner, equation))
            case ast.UnaryOp(op=ast.USub(), operand=inner):
                return g.neg(self._matrix(inner, equation))
            case ast.BinOp(left=left, op=(ast.Add() | ast.Sub() | ast.Mult() | ast.Div()) as op, right=right):
                a, b = self._matrix(left, equation), self._matrix(right, equation)
                build = {ast.Add: g.add, ast.Sub: g.sub, ast.Mult: g.mul, ast.Div: g.div}[type(op)]
                if (a.is_number or b.is_number) and isinstance(op, ast.Add | ast.Sub):
                    raise _Mistake(
                        place, "a number cannot be added to a matrix; write number * h[t-1] as a term of its own"
                    )
                return build(a, b)
            case ast.Call(func=ast.Name(id=name), args=[inner], keywords=[]) if name in ELEMENTWISE:
                return g.call(name, self._matrix(inner, equation))
            case ast.Call() if (matrix := transposed_by_call(tree)) is not None:
                raise _Mistake(place, f"the transpose is written with a point: {self._factor(matrix, equation)}.T")
            case ast.BinOp(op=ast.MatMult()):
                raise _Mistake(place, "two matrices cannot be multiplied with each other: write U @ (V @ h[t-1])")
            case ast.Subscript(value=ast.Name()):
                vector = ast.get_source_segment(equation.statement.text, tree)
                raise _Mistake(
                    place,
                    f"{vector} is a vector and cannot stand left of '@'; vectors are columns: "
                    "write W @ h[t-1], and z * (W @ h[t-1]) for a gate",
                )
            case _:
                raise _Mistake(
                    place, "left of '@' stands a matrix of parameters, such as W_hh, or W_hh.T for its transpose"
                )


def _nested(comparisons: Sequence[str], *, holds_both: bool) -> str:
    """Return the choice between p and q by two comparisons; where these are more, or long, by two others."""
    if len(comparisons) != 2 or "this" in comparisons:
        comparisons = ["a > 0", "b < 1"]
    first, second = comparisons
    if holds_both:
        return f"where({first}, where({second}, p, q), q)"
    return f"where({first}, p, where({second}, p, q))"


def _is_product(tree: ast.expr) -> bool:
    return isinstance(tree, ast.BinOp) and isinstance(tree.op, ast.MatMult)


def _indices(parts: Sequence[Node]) -> tuple[int, ...]:
    return tuple(part.index for part in parts)


def _number(tree: ast.Constant, place: Place) -> float:
    if type(tree.value) not in (int, float):
        raise _Mistake(place, not_offered(tree))
    try:
        value = float(tree.value)  # type: ignore[arg-type]
    except OverflowError:
        value = math.inf
    if not math.isfinite(value):
        raise _Mistake(place, "this number is too large")
    return value


def _finite(node: Node, place: Place) -> Node:
    if node.is_number and not math.isfinite(node.data):
        raise _Mistake(place, "these numbers give no finite result")
    return node
