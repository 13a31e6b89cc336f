"""What is a number, a vector or a matrix: the rank of every name, from how the equations use it.

The rank is 0 for one number, 1 for a vector, 2 for a matrix. Every expression has an unknown rank; what it is made of
ties it to others:

    a + b, a * b, where(a > b, p, q)   the largest of their ranks; a vector and a matrix do not go together
    A @ b                              A is a matrix; the result has the rank of b
    outer(a, b), diag(a)               matrices made of vectors
    dot(a, b), sum(a), norm(a)         numbers

What that leaves open is settled in this order: what stands left of ``@`` is a matrix; what is added to a number that
changes with the step is a number; what stands elementwise beside a matrix is a matrix; any other state or parameter is
a vector.

Only states and parameters are settled here. What cannot be is told by `lower`, where it stands. A state that one place
makes a matrix and another a vector is what more of its places agree with, so that the odd one out is blamed.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence

from gradcli.language.across import ACROSS
from gradcli.language.parser import INPUT_NAME, TIME_NAME, Equation, lag_of
from gradcli.language.syntax import only_times_rows

NUMBER, VECTOR, MATRIX = range(3)
#: The identity matrix, of whatever size fits.
IDENTITY_NAME = "I"
#: Functions that make one number of all entries.
OF_ENTRIES = ("sum", "mean", "norm")
_MADE = ("outer", "diag")


class _Rank:
    """An unknown rank; `root` leads to the one that it is the same as.

    changes: whether it is that of something that is no parameter, and no number written as such.
    """

    __slots__ = ("changes", "root", "value")

    def __init__(self, value: int | None = None, *, changes: bool = False) -> None:
        self.value, self.changes = value, changes
        self.root: _Rank | None = None

    def find(self) -> _Rank:
        rank = self
        while rank.root is not None:
            rank = rank.root
        return rank


class _Elementwise:
    """A result that is taken entry by entry of some arguments; `adds` where these are terms or alternatives."""

    def __init__(self, result: _Rank, args: Sequence[_Rank], *, adds: bool) -> None:
        self.result, self.args, self.adds = result, args, adds


class _Product:
    """``left @ right``, each side with its rank; of a side that is a transpose that of what is transposed.

    of_parameters: whether the left side holds nothing that changes with the step.
    """

    def __init__(
        self, result: _Rank, left: _Rank, right: _Rank, *, of_parameters: bool, transposed: tuple[bool, bool]
    ) -> None:
        self.result, self.left, self.right, self.of_parameters = result, left, right, of_parameters
        self.left_transposed, self.right_transposed = transposed


def find_ranks(equations: Sequence[Equation], constants: Sequence[str], declared: Mapping[str, int]) -> Ranks:
    """Return the ranks in a cell. Where its places contradict each other, as few of them as can be are wrong."""
    found = Ranks(equations, constants, declared)
    wrong = found.wrong_places()
    for name, is_given_one in found.torn() if wrong else ():
        as_matrix = {**declared, name: MATRIX}
        other = Ranks(equations, constants, as_matrix)
        # A state that is given an outer product is hardly ever meant as a vector.
        if other.wrong_places() < wrong + 2 * is_given_one:
            found, declared, wrong = other, as_matrix, other.wrong_places()
    return found


class Ranks:
    """The ranks of the states, parameters and other names of a cell.

    Args:
        equations: the cell. constants: names of numbers. declared: how many sizes `shapes:` gives of a name.
    """

    def __init__(self, equations: Sequence[Equation], constants: Sequence[str], declared: Mapping[str, int]) -> None:
        self._constants = frozenset(constants)
        self._given = {equation.name: equation for equation in equations}
        self._open = only_times_rows(equations) - self._constants - declared.keys()
        self._names: dict[str, _Rank] = {}
        self._of_parameters: dict[str, bool] = {}
        self._elementwise: list[_Elementwise] = []
        self._products: list[_Product] = []
        self._vectors: list[_Rank] = []
        self._with_rows: list[_Rank] = []
        self._results: list[tuple[_Rank, _Rank]] = []
        for name, count in declared.items():
            if name not in self._given or self._given[name].is_state:
                self._name(name).value = count
        for equation in equations:
            if equation.is_readable:
                self._results.append((self._name(equation.name), self._of(equation.expression)))
                self._same(*self._results[-1])
        self._settle()

    def of(self, name: str) -> int:
        """Return the rank of a name; that of a vector where nothing tells."""
        found = self._names.get(name)
        value = None if found is None else found.find().value
        return VECTOR if value is None else value

    def torn(self) -> list[tuple[str, bool]]:
        """Return the states that came out as vectors though they stand left of '@', or are given a matrix.

        With each whether it is given one: an outer product, or what is made of one.
        """
        found = []
        for name, equation in self._given.items():
            rank = self._names[name].find() if equation.is_state and name in self._names else None
            if rank is None or rank.value != VECTOR:
                continue
            own = [tie for tie in self._elementwise if tie.result.find() is rank]
            is_given_one = any(self._is_made_of_a_matrix(arg) for tie in own for arg in tie.args)
            is_given_one |= any(a.find() is rank and self._is_made_of_a_matrix(b) for a, b in self._results)
            left = any(p.left.find() is rank and not (p.left_transposed or p.right_transposed) for p in self._products)
            if is_given_one or left:
                found.append((name, is_given_one))
        return found

    def wrong_places(self) -> int:
        """Return how many places do not go with these ranks; W @ h[t-1] of a matrix is two, as no matrix is so used."""
        found = sum(rank.find().value == MATRIX for rank in self._vectors)
        for tie in self._elementwise:
            ranks = [MATRIX if self._has_row(arg) else arg.find().value for arg in tie.args]
            found += min(ranks.count(VECTOR), ranks.count(MATRIX))
        for result, expression in self._results:
            found += {result.find().value, expression.find().value} == {VECTOR, MATRIX}
        states = [self._names[name].find() for name, e in self._given.items() if e.is_state and name in self._names]
        for product in self._products:
            left, right = product.left.find(), product.right.find()
            if product.right_transposed:
                found += {left.value, right.value} == {VECTOR, MATRIX}
            elif left.value == VECTOR and (right.value == MATRIX or not product.left_transposed):
                found += 1
            elif product.of_parameters and right.value == MATRIX and any(right is state for state in states):
                found += 2
        return found

    def _has_row(self, rank: _Rank) -> bool:
        """Tell whether a value is written a * b.T, which means an outer product where b is a vector."""
        return any(rank.find() is row.find() for row in self._with_rows)

    def _is_made_of_a_matrix(self, rank: _Rank) -> bool:
        """Tell whether a value is a matrix that changes, or is made of one, whatever else stands beside it."""
        waiting, seen = [rank.find()], set()
        while waiting:
            each = waiting.pop()
            if (each.value == MATRIX and each.changes) or self._has_row(each):
                return True
            if id(each) not in seen:
                seen.add(id(each))
                waiting += [arg.find() for tie in self._elementwise if tie.result.find() is each for arg in tie.args]
                waiting += [p.right.find() for p in self._products if p.result.find() is each]
        return False

    def nothing_tells(self, tree: ast.expr) -> bool:
        """Tell whether a tree of parameters stands left of transposes alone, W @ x[t].T, and W is in no other place.

        It is an outer product of vectors as it is written; but that is how frameworks write a matrix times a vector.
        """
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} - self._constants
        return bool(names) and names <= self._open and self._is_of_parameters(tree)

    # The unknowns, and what ties them together.

    def _name(self, name: str) -> _Rank:
        if name not in self._names:
            of_parameters = name not in self._given or self._is_of_parameters(ast.Name(name))
            self._names[name] = _Rank(changes=not of_parameters)
        return self._names[name]

    def _same(self, a: _Rank, b: _Rank) -> None:
        a, b = a.find(), b.find()
        if a is b:
            return
        if a.value is None:
            a, b = b, a
        # Where both are known and differ, it is told when the equation is lowered.
        a.changes = a.changes or b.changes
        if a.value == b.value or b.value is None:
            b.root = a

    def _of(self, tree: ast.expr) -> _Rank:
        match tree:
            case ast.Constant():
                return _Rank(NUMBER)
            case ast.Name(id=name) if name in self._constants:
                return _Rank(NUMBER)
            case ast.Name(id=name) if name == IDENTITY_NAME and name not in self._given:
                return _Rank(MATRIX)
            case ast.Name(id=name) if name not in (INPUT_NAME, TIME_NAME):
                return self._name(name)
            case ast.Subscript(value=inner, slice=ast.Constant()) if not self._is_state(inner):
                self._is_vector(inner)
                return _Rank(NUMBER, changes=True)
            case ast.Subscript(value=inner, slice=ast.Slice()):
                self._is_vector(inner)
                return _Rank(VECTOR, changes=True)
            case ast.Subscript(value=ast.Name(id=name), slice=subscript) if lag_of(subscript) is not None:
                return _Rank(VECTOR, changes=True) if name == INPUT_NAME else self._name(name)
            case ast.UnaryOp(operand=operand):
                return self._of(operand)
            case ast.Attribute(value=inner, attr="T"):
                return self._of(inner)
            case ast.BinOp(left=left, op=ast.MatMult(), right=right):
                return self._product(left, right)
            case ast.BinOp(op=ast.Add() | ast.Sub()):
                return self._entry_by_entry(_terms(tree), adds=True)
            case ast.BinOp(left=left, right=right):
                found = self._entry_by_entry([left, right], adds=False)
                if isinstance(right, ast.Attribute):
                    self._with_rows.append(found)
                return found
            case ast.Compare(left=left, comparators=others):
                return self._entry_by_entry([left, *others], adds=True)
            case ast.List(elts=parts):
                for part in parts:
                    self._of(part)
                return _Rank(VECTOR, changes=True)
            case ast.Call(func=ast.Name(id=name), args=args):
                return self._call(name, args)
            case _:
                return _Rank()

    def _is_state(self, tree: ast.expr) -> bool:
        """Tell whether a tree is the name of a state, or of the input, without a step."""
        return isinstance(tree, ast.Name) and (
            tree.id == INPUT_NAME or (tree.id in self._given and self._given[tree.id].is_state)
        )

    def _is_vector(self, tree: ast.expr) -> None:
        rank = self._of(tree)
        self._vectors.append(rank)
        self._same(_Rank(VECTOR), rank)

    def _entry_by_entry(self, trees: Sequence[ast.expr], *, adds: bool) -> _Rank:
        args = [self._of(tree) for tree in trees]
        result = _Rank(changes=any(arg.find().changes for arg in args))
        self._elementwise.append(_Elementwise(result, args, adds=adds))
        return result

    def _product(self, left: ast.expr, right: ast.expr) -> _Rank:
        result = _Rank(changes=True)
        rank = self._of(left)
        inner = left.value if isinstance(left, ast.Attribute) else left
        is_row = self._may_be_a_row(right) and not self.nothing_tells(left)
        if isinstance(inner, ast.Name) and inner.id not in self._given and not is_row:
            _learn(rank, MATRIX)
        transposed = isinstance(left, ast.Attribute), is_row
        of_parameters = self._is_of_parameters(left)
        product = _Product(result, rank, self._of(right), of_parameters=of_parameters, transposed=transposed)
        self._products.append(product)
        return result

    def _may_be_a_row(self, tree: ast.expr) -> bool:
        """Tell whether a transpose may be that of a vector: a parameter is a matrix here, unless it is declared."""
        match tree:
            case ast.Attribute(value=ast.Name(id=name)) if name not in self._given:
                if name in self._names and self._names[name].find().value == VECTOR:
                    return True
                _learn(self._name(name), MATRIX)
                return False
            case _:
                return isinstance(tree, ast.Attribute)

    def _is_of_parameters(self, tree: ast.expr) -> bool:
        """Tell whether an expression is made of parameters alone, and is no outer product, diagonal or identity."""
        for node in ast.walk(tree):
            if isinstance(node, ast.Subscript) or (isinstance(node, ast.Name) and node.id in (*_MADE, IDENTITY_NAME)):
                return False
            if isinstance(node, ast.Name) and node.id in self._given:
                equation = self._given[node.id]
                if node.id not in self._of_parameters:
                    self._of_parameters[node.id] = False  # also where it is given by itself, which is told later
                    whole = not equation.is_state and self._is_of_parameters(equation.expression)
                    self._of_parameters[node.id] = whole
                if not self._of_parameters[node.id]:
                    return False
        return True

    def _call(self, name: str, args: Sequence[ast.expr]) -> _Rank:
        match name, args:
            case "outer", _:
                for arg in args:
                    self._is_vector(arg)
                return _Rank(MATRIX, changes=True)
            case "diag", [arg]:
                self._is_vector(arg)
                return _Rank(MATRIX, changes=True)
            case "dot", _:
                for arg in args:
                    self._is_vector(arg)
                return _Rank(NUMBER, changes=True)
            case (("max" | "min"), [_, _, *_]):
                return self._entry_by_entry(args, adds=True)
            case "where", _:
                return self._entry_by_entry(args, adds=True)
            case _ if name in OF_ENTRIES or name in ("max", "min"):
                for arg in args:
                    self._of(arg)
                return _Rank(NUMBER, changes=True)
            case _ if (name in ACROSS or name == "cumsum") and args:
                self._is_vector(args[0])
                return _Rank(VECTOR, changes=True)
            case _:
                found = [self._of(arg) for arg in args]
                return found[0] if found else _Rank()

    # Solving.

    def _settle(self) -> None:
        self._propagate()
        while (
            self._stand_left(of_parameters=True)
            or self._are_made_of_matrices(changing=True)
            or self._are_multiplied()
            or self._stand_left(of_parameters=False)
            or self._are_dotted()
            or self._add_numbers()
            or self._are_made_of_matrices(changing=False)
            or self._stand_beside_matrices()
            or self._take_as_vectors()
        ):
            self._propagate()

    def _propagate(self) -> None:
        changed = True
        while changed:
            changed = False
            for tie in self._elementwise:
                changed |= _propagate_elementwise(tie)
            for product in self._products:
                changed |= _propagate_product(product)

    def _stand_left(self, *, of_parameters: bool) -> bool:
        """Take as a matrix what stands left of '@'."""
        products = [
            product
            for product in self._products
            if (product.of_parameters or not of_parameters) and not product.right_transposed
        ]
        left = [product.left for product in products if of_parameters or not product.left_transposed]
        learnt = [_learn(rank, MATRIX) for rank in left]
        return any(learnt)

    def _are_multiplied(self) -> bool:
        """Take as a vector what a matrix of parameters is multiplied with."""
        products = [product for product in self._products if product.of_parameters and not product.right_transposed]
        learnt = [_learn(product.right, VECTOR) for product in products]
        return any(learnt)

    def _are_dotted(self) -> bool:
        """Take as a vector what a transposed vector is multiplied with."""
        products = [product for product in self._products if product.left_transposed]
        learnt = [_learn(p.right, VECTOR) for p in products if p.left.find().value == VECTOR]
        return any(learnt)

    def _are_made_of_matrices(self, *, changing: bool) -> bool:
        """Take as a matrix the first thing of unknown rank that is made of one entry by entry, and of no vector."""
        for tie in self._elementwise:
            found = [arg.find() for arg in tie.args]
            is_made = any(arg.value == MATRIX and (arg.changes or not changing) for arg in found)
            if is_made and _learn(tie.result, MATRIX):
                return True
        return False

    def _add_numbers(self) -> bool:
        """Take as numbers what is added to numbers that change with the step, and to nothing else that is known.

        Not where a product with a matrix is added too, which is no number.
        """
        found = False
        products = {id(p.result.find()) for p in self._products if p.left.find().value == MATRIX}
        for tie in self._elementwise:
            args = [arg.find() for arg in tie.args]
            result = tie.result.find()
            if not tie.adds or result.value not in (None, NUMBER):
                continue
            known = [arg for arg in args if arg.value is not None]
            if any(id(arg) in products for arg in args):
                continue
            if any(arg.changes for arg in known) and all(arg.value == NUMBER for arg in known):
                for arg in args:
                    if arg.value is None:
                        arg.value = NUMBER
                        found = True
        return found

    def _stand_beside_matrices(self) -> bool:
        """Take as a matrix the first thing of unknown rank that stands elementwise beside one."""
        for tie in self._elementwise:
            if tie.result.find().value == MATRIX:
                for arg in tie.args:
                    if arg.find().value is None:
                        arg.find().value = MATRIX
                        return True
        return False

    def _take_as_vectors(self) -> bool:
        """Take as a vector the first state of unknown rank, or else the first parameter."""
        states = [name for name, equation in self._given.items() if equation.is_state]
        for name in (*states, *self._names):
            rank = self._names[name].find() if name in self._names else None
            if rank is not None and rank.value is None:
                rank.value = VECTOR
                return True
        return False


def _terms(tree: ast.expr) -> list[ast.expr]:
    """Return the terms of a sum, those of the sums within it too: in what order it is taken tells nothing of them."""
    match tree:
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub(), right=right):
            return [*_terms(left), *_terms(right)]
        case _:
            return [tree]


def _learn(rank: _Rank, value: int) -> bool:
    rank = rank.find()
    if rank.value is None:
        rank.value = value
        return True
    return False


def _propagate_elementwise(tie: _Elementwise) -> bool:
    known = [value for arg in tie.args if (value := arg.find().value) is not None]
    changed = False
    if VECTOR in known:
        changed |= _learn(tie.result, VECTOR)  # a matrix beside it is the mistake
    elif len(known) == len(tie.args):
        changed |= _learn(tie.result, max(known))
    result = tie.result.find().value
    if result == NUMBER:
        for arg in tie.args:
            changed |= _learn(arg, NUMBER)
    open_args = [arg for arg in tie.args if arg.find().value is None]
    if result is not None and len({id(arg.find()) for arg in open_args}) == 1 and result not in known:
        changed |= _learn(open_args[0], result)
    return changed


def _propagate_product(product: _Product) -> bool:
    left, right, result = (rank.find().value for rank in (product.left, product.right, product.result))
    changed = False
    if product.right_transposed and VECTOR in (left, right):
        # a @ b.T, an outer product
        learnt = _learn(product.left, VECTOR) | _learn(product.right, VECTOR)
        return learnt | _learn(product.result, MATRIX)
    if left == VECTOR and right == MATRIX:
        return False  # a row, which is told
    if (left == VECTOR and not product.left_transposed) or result == NUMBER or (left, right) == (VECTOR, VECTOR):
        changed |= _learn(product.right, VECTOR) | _learn(product.result, NUMBER)
    elif left == MATRIX:
        if right is not None:
            changed |= _learn(product.result, max(right, VECTOR))
        elif result in (VECTOR, MATRIX):
            changed |= _learn(product.right, result)
    return changed
