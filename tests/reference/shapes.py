"""The shapes of a cell's states and parameters, by the rules of the language and what `shapes:` says, for drawing them.

First the ranks: what `shapes:` says; a matrix left of `@`; else what stands beside a name, entry by entry, or in a
function of vectors; a parameter that is added to numbers only is one; all else is a vector. Then the sizes: those that
must be the same are tied together, and what is tied to nothing that is known is hidden_size.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from reference.equations import IDENTITY, OPERATORS, Equation, bounds, parse

Shape = tuple[int, ...]

OF_VECTORS = ("outer", "dot", "diag", "cumsum", "softmax", "layer_norm", "batch_norm")
TO_A_NUMBER = ("dot", "sum", "mean", "norm")


@dataclass(frozen=True)
class Shapes:
    """The shapes of one layer: () of a number, (size,) of a vector, (rows, columns) of a matrix."""

    states: dict[str, Shape]
    parameters: dict[str, Shape]


def shapes_of(
    cell_block: Mapping[str, Any], hidden_size: int, input_size: int
) -> tuple[dict[str, int], dict[str, Shape]]:
    """Return the size of each state and the shape of each parameter of one layer, where all states are vectors."""
    found = layer_shapes(cell_block, hidden_size, input_size)
    sizes = {}
    for name, shape in found.states.items():
        (sizes[name],) = shape
    return sizes, found.parameters


def layer_shapes(cell_block: Mapping[str, Any], hidden_size: int, input_size: int) -> Shapes:
    """Return the shapes of the states and parameters of one layer.

    Raises ValueError where the equations cannot be at these sizes.
    """
    sizes = {"hidden_size": hidden_size, "input_size": input_size}
    given = {name: tuple(size_of(dim, sizes) for dim in dims) for name, dims in cell_block.get("shapes", {}).items()}
    equations = parse(cell_block["equations"])
    constants = set(cell_block.get("constants", {}))
    ranks = _Ranks(equations, {name: len(shape) for name, shape in given.items()}, constants)
    return _Sizes(equations, ranks, given, hidden_size, input_size).solved()


def size_of(text: int | str, sizes: Mapping[str, int]) -> int:
    """Return a size of `shapes:`: a number, or products and quotients such as ``hidden_size / 4``."""
    found = _quotient(ast.parse(str(text), mode="eval").body, sizes)
    if found.denominator != 1 or found < 1:
        raise ValueError(f"{text} is {found}, and no size")
    return int(found)


def _quotient(node: ast.expr, sizes: Mapping[str, int]) -> Fraction:
    match node:
        case ast.Constant(value=int(number)):
            return Fraction(number)
        case ast.Name(id=name) if name in sizes:
            return Fraction(sizes[name])
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return _quotient(left, sizes) * _quotient(right, sizes)
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            return _quotient(left, sizes) / _quotient(right, sizes)
    raise ValueError(f"a size cannot be {ast.unparse(node)}")


def _operands(node: ast.expr) -> list[ast.expr]:
    """Return the values that a node joins entry by entry: those of an operator, of max, min, where, of any function."""
    match node:
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            return [left, right]
        case ast.UnaryOp(operand=operand):
            return [operand]
        case ast.Call(func=ast.Name(id="where"), args=[ast.Compare(left=a, comparators=[b]), p, q]):
            return [a, b, p, q]
        case ast.Call(func=ast.Name(id="max" | "min"), args=[a, b]):
            return [a, b]
        case ast.Call(func=ast.Name(id="max" | "min")):
            return []
        case ast.Call(func=ast.Name(id=name), args=[operand, *_]) if name not in (*OF_VECTORS, *TO_A_NUMBER):
            return [operand]
    return []


class _Ranks:
    """The rank of every name: 0 of a number, 1 of a vector, 2 of a matrix."""

    def __init__(self, equations: Sequence[Equation], given: Mapping[str, int], constants: set[str]) -> None:
        self.equations = equations
        self.constants = constants
        self.states = [equation.target for equation in equations if equation.is_state]
        self.intermediates = [equation.target for equation in equations if not equation.is_state]
        self.known: dict[str, int] = {"x": 1, IDENTITY: 2, **dict.fromkeys(constants, 0), **given}
        self._settle()
        # Only now is it known what is a number: w_f is a vector in `dot(w_f, x[t]) + b_f`, so b_f is none.
        while name := self._added_to_a_number():
            self.known[name] = 0
            self._settle()
        for name in self.names():
            self.known.setdefault(name, 1)
        self._settle()

    def names(self) -> Iterator[str]:
        """Yield the names of states and parameters."""
        for equation in self.equations:
            nodes = list(ast.walk(equation.expression))
            functions = [node.func for node in nodes if isinstance(node, ast.Call)]
            for node in nodes:
                if isinstance(node, ast.Name) and node not in functions and self._is_free(node.id):
                    yield node.id
            if equation.is_state:
                yield equation.target

    def _is_free(self, name: str) -> bool:
        return name not in self.intermediates and name not in (*self.constants, *OTHER_NAMES)

    def _settle(self) -> None:
        """Go over the equations until nothing new follows."""
        before = -1
        while before != len(self.known):
            before = len(self.known)
            for equation in self.equations:
                found = self.of(equation.expression)
                if found is not None and (found > 0 or not equation.is_state):
                    self.known.setdefault(equation.target, found)
                if equation.is_state and self.known.get(equation.target):
                    self._must_be(equation.expression, self.known[equation.target])

    def _added_to_a_number(self) -> str | None:
        """Return a parameter, of a rank not known yet, that is added to one number, not written as a number."""
        for equation in self.equations:
            for node in ast.walk(equation.expression):
                if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
                    for one, other in ((node.left, node.right), (node.right, node.left)):
                        if self.of(one) == 0 and not self._is_written(one):
                            for name in self._open(other):
                                return name
        return None

    def _is_written(self, node: ast.expr) -> bool:
        return all(
            node.id in (*self.constants, *OTHER_NAMES) for node in ast.walk(node) if isinstance(node, ast.Name)
        ) and not any(isinstance(node, ast.Subscript) for node in ast.walk(node))

    def _open(self, node: ast.expr) -> Iterator[str]:
        """Yield the parameters of no known rank that give a value its rank."""
        if isinstance(node, ast.Name) and node.id not in (*self.known, *self.states, *self.intermediates):
            yield node.id
        for operand in _operands(node):
            yield from self._open(operand)

    def of(self, node: ast.expr) -> int | None:
        """Return the rank of a value, and None where it is not known yet; note what follows for the names in it."""
        match node:
            case ast.Constant():
                return 0
            case ast.Name(id=name):
                return self.known.get(name)
            case ast.List(elts=parts):
                for part in parts:
                    self.of(part)
                return 1
            case ast.Subscript(value=whole, slice=ast.Slice()):
                self._must_be(whole, 1)
                return 1
            case ast.Subscript(value=ast.Name(id=name)):
                return self.known.get(name)
            case ast.Attribute(value=operand):
                return self.of(operand)
            case ast.BinOp(left=left, op=ast.MatMult(), right=right):
                return self._of_product(left, right)
            case ast.Call(func=ast.Name(id=name), args=arguments) if name in OF_VECTORS:
                for operand in arguments[: 2 if name in ("outer", "dot") else 1]:
                    self.of(operand)
                    self._must_be(operand, 1)
                return {"outer": 2, "diag": 2, "dot": 0}.get(name, 1)
            case ast.Call(func=ast.Name(id="sum" | "mean" | "norm" | "max" | "min"), args=[operand]):
                self.of(operand)
                return 0
        return self._of_entrywise(_operands(node))

    def _of_entrywise(self, operands: Sequence[ast.expr]) -> int | None:
        ranks = [self.of(operand) for operand in operands]
        largest = max((rank for rank in ranks if rank is not None), default=0)
        if largest == 0:
            return None if None in ranks else 0
        for operand, rank in zip(operands, ranks, strict=True):
            if rank is None:
                self._must_be(operand, largest)
        return largest

    def _of_product(self, left: ast.expr, right: ast.expr) -> int | None:
        of_left, of_right = self.of(left), self.of(right)
        if isinstance(left, ast.Attribute) and of_left == 1:
            self._must_be(right, 1)
            return 0
        # h[t-1].T may be a vector's, in a dot product; a parameter's there is a matrix unless `shapes:` says otherwise.
        if of_left is None and not (isinstance(left, ast.Attribute) and isinstance(left.value, ast.Subscript)):
            self._must_be(left, 2)
        return of_right

    def _must_be(self, node: ast.expr, rank: int) -> None:
        """Note that a value is a vector or a matrix, for the names that can only then be."""
        match node:
            case ast.Name(id=name) | ast.Subscript(value=ast.Name(id=name), slice=ast.Name() | ast.BinOp()):
                if name not in self.intermediates:
                    self.known.setdefault(name, rank)
            case ast.Attribute(value=operand):
                self._must_be(operand, rank)
            case ast.BinOp(op=ast.MatMult(), right=right):
                self._must_be(right, rank)
            case _:
                operands = _operands(node)
                ranks = [self.of(operand) for operand in operands]
                is_sum = isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub)
                if rank in ranks or (is_sum and 0 in ranks):
                    return
                for operand, known in zip(operands, ranks, strict=True):
                    if known is None:
                        self._must_be(operand, rank)


#: Names in equations that are no parameters.
OTHER_NAMES = ("t", "x", IDENTITY)


@dataclass(eq=False)
class _Size:
    """A size, or one that stands for all that are tied to it."""

    number: int | None = None
    tied_to: _Size | None = None

    def root(self) -> _Size:
        return self if self.tied_to is None else self.tied_to.root()

    @property
    def known(self) -> int | None:
        return self.root().number

    def tie(self, other: _Size) -> None:
        mine, its = self.root(), other.root()
        if mine is its:
            return
        if mine.number is not None and its.number is not None and mine.number != its.number:
            raise ValueError(f"the sizes {mine.number} and {its.number} should be one")
        mine.number = its.number if mine.number is None else mine.number
        its.tied_to = mine


@dataclass
class _Sum:
    """A concatenation's size: that of its parts together."""

    total: _Size
    parts: list[_Size] = field(default_factory=list)

    def follow(self) -> bool:
        """Tell whether a size was found: the total by all parts, or the last part by the rest."""
        unknown = [part for part in self.parts if part.known is None]
        so_far = sum(part.known or 0 for part in self.parts)
        if not unknown:
            was_known = self.total.known is not None
            self.total.tie(_Size(so_far))
            return not was_known
        if self.total.known is None or len(unknown) > 1:
            return False
        unknown[0].tie(_Size(self.total.known - so_far))
        return True


Dimensions = tuple[_Size, ...]


class _Sizes:
    """Goes over the equations once, in their order, and ties together the sizes that must be one."""

    def __init__(
        self,
        equations: Sequence[Equation],
        ranks: _Ranks,
        given: Mapping[str, Shape],
        hidden_size: int,
        input_size: int,
    ) -> None:
        self.equations, self.ranks, self.hidden_size = equations, ranks, hidden_size
        self.read: dict[str, None] = {}  # in the order in which parameters are drawn
        self.sums: list[_Sum] = []
        self.least: list[tuple[_Size, int]] = []
        self.of_names: dict[str, Dimensions] = {"x": (_Size(input_size),)}
        self.of_names |= dict.fromkeys(ranks.constants, ())
        for name, shape in given.items():
            self.of_names[name] = tuple(_Size(size) for size in shape)
        for name in ranks.names():
            if name not in self.of_names:
                rank = ranks.known[name]
                # A state that is a vector has hidden_size, whatever else it meets.
                is_vector = name in ranks.states and rank == 1
                self.of_names[name] = tuple(_Size(hidden_size if is_vector else None) for _ in range(rank))

    def solved(self) -> Shapes:
        """Return the shapes of states and parameters; ValueError where sizes contradict each other."""
        for equation in self.equations:
            found = self.of(equation.expression)
            if not equation.is_state:
                self.of_names[equation.target] = found
            elif found:
                self._together(equation.expression, self.of_names[equation.target], found)
        while self._follow() or self._default():
            pass
        for size, least in self.least:
            if (size.known or 0) < least:
                raise ValueError(f"a slice goes to {least} of {size.known} entries")
        free = set(self.ranks.names()) - set(self.ranks.states)
        return Shapes(
            {name: self._shape(name) for name in self.ranks.states},
            {name: self._shape(name) for name in self.read if name in free},
        )

    def _shape(self, name: str) -> Shape:
        return tuple(size.known or 0 for size in self.of_names[name])

    def _follow(self) -> bool:
        found = [one.follow() for one in self.sums]
        return any(found)

    def _default(self) -> bool:
        """Make one size that nothing settles hidden_size: a total last, as it follows from its parts."""
        sizes = [size for dimensions in self.of_names.values() for size in dimensions]
        parts = [part for one in self.sums for part in one.parts]
        totals = {one.total.root() for one in self.sums}
        unknown = [size for size in (*parts, *sizes) if size.known is None]
        for size in sorted(unknown, key=lambda size: size.root() in totals):
            size.tie(_Size(self.hidden_size))
            return True
        return False

    def _together(self, node: ast.expr, *dimensions: Dimensions) -> Dimensions:
        """Return the size of values that go together entry by entry; a number goes with anything."""
        several = [one for one in dimensions if one]
        if len({len(one) for one in several}) > 1:
            raise ValueError(f"line {node.lineno}: a vector beside a matrix: {ast.unparse(node)}")
        for one in several[1:]:
            for mine, its in zip(several[0], one, strict=True):
                mine.tie(its)
        return several[0] if several else ()

    def of(self, node: ast.expr) -> Dimensions:
        """Return the sizes of a value: none of a number, one of a vector, two of a matrix."""
        match node:
            case ast.Constant():
                return ()
            case ast.Name(id=name) if name == IDENTITY:
                size = _Size()
                return size, size
            case ast.Name(id=name) | ast.Subscript(value=ast.Name(id=name), slice=ast.Name() | ast.BinOp()):
                self.read[name] = None
                return self.of_names[name]
            case ast.Subscript(value=whole, slice=ast.Slice() as part):
                first, last = bounds(part)
                self.least.append((self._vector(whole)[0], last))
                return (_Size(last - first),)
            case ast.List(elts=parts):
                sizes = [self.of(part) or (_Size(1),) for part in parts]
                self.sums.append(_Sum(_Size(), [size for (size,) in sizes]))
                return (self.sums[-1].total,)
            case ast.Attribute(value=operand):
                return self.of(operand)[::-1]
            case ast.BinOp(left=left, op=ast.MatMult(), right=right):
                return self._of_product(node, left, right)
            case ast.Call(func=ast.Name(id="outer"), args=[left, right]):
                return (*self._vector(left), *self._vector(right))
            case ast.Call(func=ast.Name(id="dot"), args=[left, right]):
                self._together(node, self._vector(left), self._vector(right))
                return ()
            case ast.Call(func=ast.Name(id="diag"), args=[operand]):
                return self._vector(operand) * 2
            case ast.Call(func=ast.Name(id=name), args=[operand, *_]) if name in OF_VECTORS:
                return self._vector(operand)
            case ast.Call(func=ast.Name(id="sum" | "mean" | "norm" | "max" | "min"), args=[operand]):
                self.of(operand)
                return ()
        operands = _operands(node)
        if not operands:
            raise ValueError(f"line {node.lineno}: no shape of {ast.unparse(node)}")
        return self._together(node, *map(self.of, operands))

    def _vector(self, node: ast.expr) -> Dimensions:
        found = self.of(node)
        if len(found) != 1:
            raise ValueError(f"line {node.lineno}: expected a vector: {ast.unparse(node)}")
        return found

    def _of_product(self, node: ast.expr, left: ast.expr, right: ast.expr) -> Dimensions:
        second, first = self.of(right), self.of(left)
        if isinstance(left, ast.Attribute) and len(first) == 1 and len(second) == 1:
            first[0].tie(second[0])
            return ()
        if len(first) != 2 or not second:
            raise ValueError(f"line {node.lineno}: no product: {ast.unparse(node)}")
        first[1].tie(second[0])
        return first[0], *second[1:]
