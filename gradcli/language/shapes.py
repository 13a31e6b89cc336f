"""The shapes of everything in a cell, from use: ``W @ v`` makes W a matrix, ``a * h[t-1]`` gives a the size of h.

Sizes are found by unification. Every vector has an unknown size; an elementwise operation makes two sizes equal, a
product ties the columns of its matrix to the vector on the right and its rows to the result. What stays open is
hidden_size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gradcli.frozen import frozen
from gradcli.language.graph import Graph, Node, reachable
from gradcli.language.lower import Lowering
from gradcli.language.parser import EquationProblem, Place

HIDDEN = "hidden_size"
INPUT = "input_size"

Dimension = int | str
Shape = tuple[int, ...]


@dataclass
class _Size:
    """An unknown size; `root` leads to the size that it was made equal to."""

    value: int | None = None
    word: str = ""
    root: _Size | None = None

    def find(self) -> _Size:
        size = self
        while size.root is not None:
            size = size.root
        return size


@frozen
class Shapes:
    """The outcome: sizes of states, shapes of parameters, and every node's size (1 for a scalar) or matrix shape."""

    input_size: int
    states: dict[str, int]
    parameters: dict[str, Shape]
    sizes: dict[Node, int]
    matrices: dict[Node, Shape]


class _Inference:
    def __init__(
        self, cell: Lowering, declared: Mapping[str, Sequence[Dimension]], hidden_size: int, input_size: int
    ) -> None:
        self.cell = cell
        self.graph: Graph = cell.graph
        self.named = {HIDDEN: _Size(hidden_size, HIDDEN), INPUT: _Size(input_size, INPUT)}
        self.problems: list[EquationProblem] = []
        self.vector_sizes: dict[Node, _Size | None] = {}
        self.matrix_sizes: dict[Node, tuple[_Size, _Size]] = {}
        self.state_sizes: dict[str, _Size] = {}
        self.parameter_sizes: dict[str, tuple[_Size, ...]] = {}
        self._concatenated: list[tuple[Node, _Size, list[Node]]] = []
        self.declared = {name: tuple(self._declared(d) for d in dims) for name, dims in declared.items()}

    def _declared(self, dimension: Dimension) -> _Size:
        if isinstance(dimension, str):
            return self.named[dimension]
        return _Size(dimension, str(dimension))

    # Vectors: a size, or None for a scalar, which goes with every size.

    def vector(self, node: Node) -> _Size | None:
        if node not in self.vector_sizes:
            self.vector_sizes[node] = self._vector(node)
        return self.vector_sizes[node]

    def _vector(self, node: Node) -> _Size | None:
        match node.op:
            case "number":
                return None
            case "input":
                return self.named[INPUT]
            case "state":
                return self.state(node.data[0])
            case "parameter":
                return self._vector_parameter(node)
            case "matmul":
                rows, columns = self.matrix(node.args[0])
                operand = self.vector(node.args[1]) or _Size(1, "1")
                self.equate(columns, operand, node, "{2} has {0} columns, but {3} has {1} entries", node.args)
                return rows
            case "across":
                own = self.vector(node.args[0])
                if own is None:
                    place = self.cell.places.get(node, Place(1, 1))
                    self.problems.append(place.problem(f"{node.data[0]} takes a vector, and this is a single number"))
                return own
            case _:
                size: _Size | None = None
                first = node
                for arg in node.args:
                    other = self.vector(arg)
                    if size is None:
                        size, first = other, arg
                    elif other is not None:
                        message = "{2} has {0} entries, but {3} has {1}; a product W @ v has another size"
                        self.equate(size, other, node, message, (first, arg))
                return size

    def state(self, name: str) -> _Size:
        if name not in self.state_sizes:
            dims = self.declared.get(name, (self.named[HIDDEN],))
            self.state_sizes[name] = dims[0] if dims else _Size(1, "1")
        return self.state_sizes[name]

    def _vector_parameter(self, node: Node) -> _Size | None:
        name = node.data
        if name not in self.parameter_sizes:
            dims = self.declared.get(name, (_Size(),))
            self.parameter_sizes[name] = dims
        dims = self.parameter_sizes[name]
        if not dims or (len(dims) == 1 and dims[0].find().value == 1 and name in self.declared):
            return None
        return dims[0]

    # Matrices: rows and columns.

    def matrix(self, node: Node) -> tuple[_Size, _Size]:
        if node not in self.matrix_sizes:
            self.matrix_sizes[node] = self._matrix(node)
        return self.matrix_sizes[node]

    def _matrix(self, node: Node) -> tuple[_Size, _Size]:
        match node.op:
            case "number":
                return _Size(), _Size()
            case "parameter" if node.data in self.cell.scalars:
                # A number goes with matrices of every size.
                self.parameter_sizes.setdefault(node.data, self.declared[node.data])
                return _Size(), _Size()
            case "parameter":
                rows, columns = self.declared.get(node.data, (_Size(), _Size()))
                self.parameter_sizes.setdefault(node.data, (rows, columns))
                return rows, columns
            case "transpose":
                rows, columns = self.matrix(node.args[0])
                return columns, rows
            case "columns":
                part, indices = node.data
                parts = self.cell.concatenations[indices]
                rows, columns = self.matrix(node.args[0])
                own = self.vector(parts[part]) or _Size(1, "1")
                self._concatenated.append((node, columns, parts))
                return rows, own
            case _:
                result: tuple[_Size, _Size] | None = None
                for arg in node.args:
                    sizes = self.matrix(arg)
                    if result is None:
                        result = sizes
                    else:
                        self.equate(result[0], sizes[0], node, "the matrices have {0} and {1} rows")
                        self.equate(result[1], sizes[1], node, "the matrices have {0} and {1} columns")
                assert result is not None
                return result

    def equate(self, a: _Size, b: _Size, node: Node, message: str, operands: Sequence[Node] = ()) -> None:
        """Make two sizes one, or note a problem at `node`; {0} and {1} are the sizes, {2} and {3} the operands."""
        a, b = a.find(), b.find()
        if a is b:
            return
        if a.value is not None and b.value is not None:
            if a.value != b.value:
                place = self.cell.places.get(node, Place(1, 1))
                words = [self.cell.words_of(operand) or "this part" for operand in operands]
                self.problems.append(place.problem(message.format(_words(a), _words(b), *words)))
            return
        known, unknown = (b, a) if a.value is None else (a, b)
        unknown.root = known

    def solve(self) -> Shapes:
        values = self.cell.states
        # In evaluation order, so that no recursion goes deeper than one node.
        nodes = reachable(self.cell.values.values())
        matrices = {n for n in reachable(n.args[0] for n in nodes if n.op == "matmul") if not n.is_number}
        for node in nodes:
            if node in matrices:
                self.matrix(node)
            else:
                self.vector(node)
        for name, node in values.items():
            size = self.vector(node)
            if size is not None:
                self._equate_state(name, size, node)
        self._solve_concatenations()
        for size in self._open_sizes():
            size.root = self.named[HIDDEN]
        # A concatenation whose part was open until now has its columns only here.
        self._solve_concatenations()
        return Shapes(
            input_size=self._value(self.named[INPUT]),
            states={name: self._value(self.state(name)) for name in values},
            parameters={
                node.data: tuple(self._value(s) for s in self.parameter_sizes[node.data])
                for node in nodes
                if node.op == "parameter" and node.data in self.parameter_sizes
            },
            sizes={node: 1 if size is None else self._value(size) for node, size in self.vector_sizes.items()},
            matrices={n: (self._value(s[0]), self._value(s[1])) for n, s in self.matrix_sizes.items()},
        )

    def _equate_state(self, name: str, size: _Size, node: Node) -> None:
        """Make a state as large as what its equation gives; a vector times x that does not fit is told there."""
        own, found = self.state(name).find(), size.find()
        for part in reachable([node]):
            if part.op != "mul" or part not in self.cell.places or own.value == found.value:
                continue
            vectors = [arg.data for arg in part.args if arg.op == "parameter" and self.vector(arg) is not None]
            if vectors and any(arg.op == "input" for arg in part.args) and found is self.named[INPUT].find():
                message = f"{vectors[0]} * x[t] has {{1}} entries, but {name} has {{0}}; write {vectors[0]} @ x[t]"
                self.equate(own, found, part, message)
                return
        self.equate(own, found, node, f"{name} has {{0}} entries, but its equation gives {{1}}")

    def _solve_concatenations(self) -> None:
        for node, columns, parts in self._concatenated:
            sizes = [(self.vector(part) or _Size(1, "1")).find() for part in parts]
            known = [size.value for size in sizes if size.value is not None]
            if len(known) == len(sizes):
                whole = _Size(sum(known), " + ".join(size.word or str(size.value) for size in sizes))
                message = "{2} has {0} columns, but the concatenation has {1} entries"
                self.equate(columns, whole, node, message, node.args)

    def _open_sizes(self) -> list[_Size]:
        every = [s for s in self.vector_sizes.values() if s is not None]
        every += [s for pair in self.matrix_sizes.values() for s in pair]
        concatenated = {id(columns.find()) for _, columns, _ in self._concatenated}
        roots = {id(s.find()): s.find() for s in every}
        return [s for key, s in roots.items() if s.value is None and key not in concatenated]

    def _value(self, size: _Size) -> int:
        value = size.find().value
        assert value is not None
        return value


def _words(size: _Size) -> str:
    if not size.word or size.word == str(size.value):
        return str(size.value)
    return f"{size.value} ({size.word})"


def infer_shapes(
    cell: Lowering, declared: Mapping[str, Sequence[Dimension]], hidden_size: int, input_size: int
) -> tuple[Shapes, list[EquationProblem]]:
    """Return the shapes of a cell at these sizes, and the places where they do not fit together."""
    inference = _Inference(cell, declared, hidden_size, input_size)
    shapes = inference.solve()
    return shapes, inference.problems
