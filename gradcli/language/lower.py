"""Equations to graph: names resolved, sums flattened, concatenations split, every mistake placed."""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping, Sequence

from gradcli.errors import did_you_mean
from gradcli.language.across import ACROSS, DEFAULT_EPS, Across
from gradcli.language.functions import ELEMENTWISE, value_at
from gradcli.language.graph import Dependence, Graph, Node, reachable
from gradcli.language.habits import instead_of, no_state, state_meant
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
from gradcli.language.syntax import OPERATORS_NOT_OFFERED, names_left_of_products, not_offered

#: The name that equations may call and that `activation:` binds to an elementwise function.
ACTIVATION_NAME = "phi"
#: The function that `activation:` takes the place of in a built-in cell, as it does in Keras.
USUAL_ACTIVATION = "tanh"

#: Every function that equations may call, in the order in which messages list them.
CALLABLE = (*ELEMENTWISE, *ACROSS)

_LONGEST_WORDS = 24


class _Mistake(Exception):
    def __init__(self, place: Place, message: str, elsewhere: int = 0) -> None:
        self.problem = place.problem(message, elsewhere)


class Lowering:
    """Builds the graph of one cell; `problems` gathers the mistakes, of which each equation gives at most one.

    places: for every node, where it first stood in the text, for messages about shapes.
    matrices: the names of parameters used as matrices, with the place of the first use; `vectors` likewise.
    """

    def __init__(
        self,
        equations: Sequence[Equation],
        constants: Mapping[str, float],
        activation: str | None,
        scalars: frozenset[str],
        batch_size: int | None,
        replaces_usual: bool = False,
    ) -> None:
        self.graph = Graph()
        self.scalars = scalars
        self.constants = constants
        self.activation = activation
        replaced = (ACTIVATION_NAME, USUAL_ACTIVATION) if replaces_usual else (ACTIVATION_NAME,)
        self.calls = {} if activation is None else dict.fromkeys(replaced, activation)
        self.batch_size = batch_size
        self.places: dict[Node, Place] = {}
        self._texts: dict[Node, tuple[Statement, ast.expr]] = {}
        self.matrices: dict[str, Place] = {}
        self.vectors: dict[str, Place] = {}
        self.problems: list[EquationProblem] = []
        self.concatenations: dict[tuple[int, ...], list[Node]] = {}
        self.values: dict[str, Node] = {}
        self.states: dict[str, Node] = {}
        self.used_constants: set[str] = set()
        self.uses_activation = False
        self._lags: dict[str, Place] = {}
        self._vectors_given: set[str] = set()
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
                is_matrix = equation.name in self._matrix_names and not equation.is_state
                if is_matrix and self._is_vector(equation.expression):
                    # Then the mistake is where it stands left of '@', and not here.
                    self._vectors_given.add(equation.name)
                    is_matrix = False
                node = (self._matrix if is_matrix else self._vector)(equation.expression, equation)
            except _Mistake as mistake:
                self.problems.append(mistake.problem)
                # The rest is still checked, with this name standing for an unknown value.
                node = self.graph.parameter(f"?{equation.name}")
            self.values[equation.name] = node
            if equation.is_state:
                self.states[equation.name] = node
        self._check_states(equations)

    def _is_vector(self, tree: ast.expr) -> bool:
        """Tell whether an expression has a value at one step: of x, of a state, or of a name given as a vector."""
        return any(
            isinstance(node, ast.Subscript) or (isinstance(node, ast.Name) and node.id in self._vectors_given)
            for node in ast.walk(tree)
        )

    def _clash(self, equation: Equation) -> str:
        name = equation.name
        if name in self.constants:
            return f"{name} is given as a constant and by an equation; rename one of them"
        if name in CALLABLE or name == ACTIVATION_NAME:
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

    # Expressions whose value is a vector (or a scalar) at one step.

    def _vector(self, tree: ast.expr, equation: Equation) -> Node:
        node = self._vector_node(tree, equation)
        self._note(node, tree, equation)
        return node

    def _note(self, node: Node, tree: ast.expr, equation: Equation) -> None:
        if node not in self.places:
            self.places[node] = equation.statement.place(tree)
            self._texts[node] = (equation.statement, tree)

    def words_of(self, node: Node) -> str:
        """Return a node as it was first written, or the name that it was given; empty where neither is short."""
        if node not in self._texts:
            return ""
        statement, tree = self._texts[node]
        text = ast.get_source_segment(statement.text, tree) or ""
        if len(text) > _LONGEST_WORDS or "\n" in text:
            return next((name for name, value in self.values.items() if value is node and name not in self.states), "")
        return text

    def _vector_node(self, tree: ast.expr, equation: Equation) -> Node:
        g = self.graph
        place = equation.statement.place(tree)
        match tree:
            case ast.Constant():
                return g.number(_number(tree, place))
            case ast.Name(id=name):
                return self._name(name, place, equation)
            case ast.Subscript(value=ast.Name(id=name), slice=subscript):
                return self._subscript(name, subscript, place, equation)
            case ast.UnaryOp(op=ast.UAdd(), operand=operand):
                return self._vector(operand, equation)
            case ast.BinOp(op=ast.Add() | ast.Sub()) | ast.UnaryOp(op=ast.USub()):
                terms = g.sum(self._terms(tree, 1, equation))
                for part in (terms, *terms.args):
                    _finite(part, place)
                return terms
            case ast.BinOp(left=left, op=ast.MatMult(), right=right):
                return self._product(left, right, place, equation)
            case ast.BinOp(left=left, op=op, right=right):
                return self._elementwise(left, op, right, place, equation)
            case ast.Call():
                return self._call(tree, place, equation)
            case ast.List():
                raise _Mistake(place, "a list is a concatenation and stands right after '@': W @ [h[t-1], x[t]]")
            case ast.Attribute(value=ast.Name(id=name), attr="T"):
                raise _Mistake(place, f"the transpose {name}.T stands left of '@': {name}.T @ h[t-1]")
            case _:
                raise _Mistake(place, not_offered(tree))

    def _terms(self, tree: ast.expr, sign: int, equation: Equation) -> list[tuple[int, Node]]:
        """Return the signed terms of a chain of + and -, so that a sum is one node however it is bracketed."""
        match tree:
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return self._terms(left, sign, equation) + self._terms(right, sign, equation)
            case ast.BinOp(left=left, op=ast.Sub(), right=right):
                return self._terms(left, sign, equation) + self._terms(right, -sign, equation)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return self._terms(operand, -sign, equation)
            case _:
                return [(sign, self._vector(tree, equation))]

    def _elementwise(self, left: ast.expr, op: ast.operator, right: ast.expr, place: Place, equation: Equation) -> Node:
        build = {ast.Mult: self.graph.mul, ast.Div: self.graph.div, ast.Pow: self.graph.pow}.get(type(op))
        if build is None:
            raise _Mistake(place, OPERATORS_NOT_OFFERED.get(type(op), "operators are + - * / ** @"))
        a, b = self._vector(left, equation), self._vector(right, equation)
        if isinstance(op, ast.Div) and b.is_number and b.data == 0.0:
            raise _Mistake(place, "division by zero")
        try:
            node = build(a, b)
        except (OverflowError, ZeroDivisionError, ValueError):
            raise _Mistake(place, "these numbers give no finite result") from None
        return _finite(node, place)

    def _name(self, name: str, place: Place, equation: Equation) -> Node:
        if name in self.constants:
            self.used_constants.add(name)
            return self.graph.number(self.constants[name])
        if name == INPUT_NAME:
            raise _Mistake(place, "x is the input: write x[t]")
        if name == TIME_NAME:
            raise _Mistake(place, "t is the time step and has no value of its own")
        if name in CALLABLE or name == ACTIVATION_NAME:
            raise _Mistake(place, f"{name} is a function: write {name}(...)")
        if name in self._given:
            return self._vector_value(name, place, equation)
        if meant := state_meant(name, self._state_names, INPUT_NAME):
            raise _Mistake(place, f"{name} would be a parameter here; the value that it seems to mean is {meant}")
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
            message = f"{name} is used before {OTHER_LINE}, which gives it; move that line up"
            raise _Mistake(place, message, given.place.line)
        return self.values[name]

    def _vector_value(self, name: str, place: Place, equation: Equation) -> Node:
        node = self._assigned(name, place, equation)
        if name in self._matrix_names - self._vectors_given and not node.is_number:
            raise _Mistake(place, f"{name} is a matrix (it stands left of '@' elsewhere) and here it would be a vector")
        return node

    def _subscript(self, name: str, subscript: ast.expr, place: Place, equation: Equation) -> Node:
        lag = lag_of(subscript)
        if lag is None:
            raise _Mistake(place, f"the index of {name} is t, or t-1, t-2 and so on for earlier steps")
        if lag < 0:
            raise _Mistake(place, f"{name}[t+{-lag}] lies in the future; a cell sees t and earlier steps")
        if lag > MAX_LAG:
            raise _Mistake(place, f"{name}[t-{lag}] is further back than {MAX_LAG} steps")
        if name == INPUT_NAME:
            if lag:
                raise _Mistake(
                    place, f"the input is known at t only: write x[t], or keep x[t-{lag}] in a state of its own"
                )
            return self.graph.input()
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
            message = f"{name}[t] is used before {OTHER_LINE}, which gives it; move that line up"
            raise _Mistake(place, message, given.place.line)
        return self.graph.state(name, 0)

    def _call(self, tree: ast.Call, place: Place, equation: Equation) -> Node:
        if isinstance(tree.func, ast.Attribute) and tree.func.attr in CALLABLE:
            raise _Mistake(place, f"write {tree.func.attr}(...), with nothing before it")
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
            if instead := instead_of(name):
                raise _Mistake(place, f"no function is called {name}; {instead}")
            hint = did_you_mean(name, CALLABLE) or f"; functions: {', '.join(CALLABLE)}"
            raise _Mistake(place, f"no function is called {name}{hint}")
        if name in ACROSS:
            return self._across(ACROSS[name], tree, place, equation)
        if len(tree.args) != 1 or tree.keywords or isinstance(tree.args[0], ast.Starred):
            raise _Mistake(place, f"{name} takes one argument: {name}(a)")
        argument = self._vector(tree.args[0], equation)
        if argument.is_number:
            return _finite(self.graph.number(value_at(name, argument.data)), place)
        return self.graph.call(name, argument)

    def _across(self, function: Across, tree: ast.Call, place: Place, equation: Equation) -> Node:
        name = function.name
        plain = not tree.keywords and not any(isinstance(arg, ast.Starred) for arg in tree.args)
        if not plain or len(tree.args) not in ((1, 2) if function.is_norm else (1,)):
            also = f", or with an eps of your own {name}(a, 1e-3)" if function.is_norm else ""
            raise _Mistake(place, f"{name} takes one vector: {name}(a){also}")
        argument = self._vector(tree.args[0], equation)
        if argument.is_number:
            raise _Mistake(place, f"{name} takes a vector, and this is a single number")
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

    def _product(self, left: ast.expr, right: ast.expr, place: Place, equation: Equation) -> Node:
        if isinstance(left, ast.BinOp) and isinstance(left.op, ast.MatMult):
            # U @ V @ h: two products with a vector instead of one of two matrices.
            inner = self._product(left.right, right, equation.statement.place(left), equation)
            return self.graph.matmul(self._left_matrix(left.left, place, equation), inner)
        matrix = self._left_matrix(left, place, equation)
        if not isinstance(right, ast.List):
            return self.graph.matmul(matrix, self._factor(right, equation))
        if not right.elts:
            raise _Mistake(place, "an empty concatenation; write W @ [h[t-1], x[t]]")
        parts = [self._factor(part, equation) for part in right.elts]
        self.concatenations[tuple(part.index for part in parts)] = parts
        columns = [self.graph.columns(matrix, i, parts) for i in range(len(parts))]
        products = [self.graph.matmul(column, part) for column, part in zip(columns, parts, strict=True)]
        for node in (*columns, *products):
            self.places.setdefault(node, place)
        return self.graph.sum([(1, product) for product in products])

    def _factor(self, tree: ast.expr, equation: Equation) -> Node:
        """Return the vector right of an '@'."""
        vector = self._vector(tree, equation)
        if vector.is_number:
            place = equation.statement.place(tree)
            raise _Mistake(place, "a number cannot stand right of '@'; for a bias, add a vector: W @ h[t-1] + b")
        return vector

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
