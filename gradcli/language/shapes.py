"""The shapes of everything in a cell, from use: ``W @ v`` makes W a matrix, ``a * h[t-1]`` gives a the size of h.

Sizes are found by unification. Every vector has an unknown size; an elementwise operation makes two sizes equal, a
product ties the columns of its matrix to the vector on the right and its rows to the result. What stays open is
hidden_size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from gradcli.frozen import frozen
from gradcli.language.graph import Graph, Node, reachable
from gradcli.language.lower import Lowering
from gradcli.language.parser import EquationProblem, Place
from gradcli.language.ranks import VECTOR
from gradcli.language.sizes import HIDDEN, INPUT, Dimension, size_at

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


Dimensions = tuple[_Size, ...]


@frozen
class Shapes:
    """The outcome: shapes of states and parameters, every value's shape, and that of matrices of parameters.

    states: how many entries each state has. of_states: its shape, () for one number.
    sizes: how many entries the value of a node has. of_nodes: its shape.
    """

    input_size: int
    states: dict[str, int]
    of_states: dict[str, Shape]
    parameters: dict[str, Shape]
    sizes: dict[Node, int]
    of_nodes: dict[Node, Shape]
    matrices: dict[Node, Shape]


class _Inference:
    def __init__(
        self, cell: Lowering, declared: Mapping[str, Sequence[Dimension]], hidden_size: int, input_size: int
    ) -> None:
        self.cell = cell
        self.graph: Graph = cell.graph
        self.named = {HIDDEN: _Size(hidden_size, HIDDEN), INPUT: _Size(input_size, INPUT)}
        self.problems: list[EquationProblem] = []
        self.values: dict[Node, Dimensions] = {}
        self.matrix_sizes: dict[Node, tuple[_Size, _Size]] = {}
        self.state_sizes: dict[str, Dimensions] = {}
        self.parameter_sizes: dict[str, Dimensions] = {}
        self._later: list[_Later] = []
        self._told: set[str] = set()
        self.declared = {name: tuple(self._declared(d) for d in dims) for name, dims in declared.items()}

    def _declared(self, dimension: Dimension) -> _Size:
        if dimension in self.named:
            return self.named[str(dimension)]
        value = size_at(dimension, {name: size.value or 0 for name, size in self.named.items()})
        return _Size(value, str(dimension))

    # Values: as many sizes as they have axes; a number, which has none, goes with every shape.

    def value(self, node: Node) -> Dimensions:
        if node not in self.values:
            self.values[node] = self._value_of(node)
        return self.values[node]

    def vector(self, node: Node) -> _Size | None:
        """Return the size of a vector; None for a number."""
        sizes = self.value(node)
        return sizes[0] if sizes else None

    def _value_of(self, node: Node) -> Dimensions:
        match node.op:
            case "number":
                return ()
            case "input":
                return (self.named[INPUT],)
            case "state":
                return self.state(node.data[0])
            case "parameter":
                return self._parameter(node)
            case "entries":
                return self.matrix(node.args[0])
            case "identity":
                size = self.value(self.graph.at(node.data))[0] if node.data >= 0 else _Size()
                return size, size
            case "matmul":
                rows, columns = self.matrix(node.args[0])
                operand = self.vector(node.args[1]) or _Size(1, "1")
                self.equate(columns, operand, node, "{2} has {0} columns, but {3} has {1} entries", node.args)
                return (rows,)
            case "across" | "cumsum":
                return self.value(node.args[0])
            case "spread":
                size = self.vector(node.args[0]) or _Size(1, "1")
                along, like = node.data
                sizes = self.value(self.graph.at(like)) or (_Size(1, "1"),)
                return (sizes[0], size) if along == "rows" else (size, sizes[-1])
            case "transposed":
                rows, columns = self.value(node.args[0])
                return columns, rows
            case "total" if node.data != "entries":
                rows, columns = self.value(node.args[0])
                return (rows,) if node.data == "columns" else (columns,)
            case "total" | "mean" | "largest":
                self.value(node.args[0])
                return ()
            case "slice":
                return self._slice(node)
            case "pad":
                return (self._concatenation(node, self.cell.concatenations[node.data[1]]),)
            case _:
                return self._elementwise(node)

    def _elementwise(self, node: Node) -> Dimensions:
        found: Dimensions = ()
        first = node
        for arg in node.args:
            other = self.value(arg)
            if not found:
                found, first = other, arg
                continue
            for axis, (mine, its) in enumerate(zip(found, other, strict=bool(other))):
                message = "{2} has {0} entries, but {3} has {1}; a product W @ v has another size"
                message += self._cure((first, its), (arg, mine))
                if len(found) > 1:
                    message = f"{{2}} has {{0}} {('rows', 'columns')[axis]}, but {{3}} has {{1}}"
                self.equate(mine, its, node, message, (first, arg))
        return found

    def _cure(self, *beside: tuple[Node, _Size]) -> str:
        """Return how a state is made as large as what it stands beside, where that has a size of its own."""
        named = [size.find() for size in self.named.values()]
        for node, size in beside:
            if node.op != "state" or any(size.find() is each for each in named):
                continue
            if told := self._as_large(node.data[0], size):
                return f"; so has a state by {told}"
        return ""

    def _as_large(self, name: str, size: _Size) -> str:
        """Return what gives a state another size than it has, where the spec says nothing of it: part of a message."""
        found = size.find()
        own = self.state(name)
        if name in self.declared or len(own) != 1 or found.value in (None, own[0].find().value):
            return ""
        self._told.add(name)
        word = str(found.value) if "+" in found.word else found.word or str(found.value)
        return f"shapes: {{{{{name}: [{word}]}}}}"

    def _slice(self, node: Node) -> Dimensions:
        whole = self.vector(node.args[0])
        assert whole is not None
        start, stop = node.data[0], node.data[1]
        size = _Size() if stop is None else _Size(stop - start, str(stop - start))
        if stop is not None and stop > (whole.find().value or stop):
            # What the slice stands beside is not told as well.
            size = _Size()

        def rest(sizes: list[int]) -> int | None:
            if (sizes[0] if stop is None else stop) <= sizes[0] > start:
                return int(sizes[0] - start if stop is None else stop - start)
            place = self.cell.places.get(node, Place(1, 1))
            what = self.cell.words_of(node.args[0]) or "this vector"
            end = f"{start}:" if stop is None else f"{start}:{stop}"
            self.problems.append(place.problem(f"{what} has {sizes[0]} entries, fewer than the slice [{end}] takes"))
            return None

        self._later.append(_Later(node, size, [whole], rest))
        return (size,)

    def _concatenation(self, node: Node, parts: Sequence[Node]) -> _Size:
        """Return the size of a concatenation, which is known once those of all its parts are."""
        whole = _Size()
        self._later.append(_Later(node, whole, [self.vector(part) or _Size(1, "1") for part in parts], sum))
        return whole

    def state(self, name: str) -> Dimensions:
        if name not in self.state_sizes:
            rank = self.cell.ranks.of(name)
            sizes = self.declared.get(name)
            if sizes is None:
                sizes = (self.named[HIDDEN],) if rank == VECTOR else tuple(_Size() for _ in range(rank))
            self.state_sizes[name] = sizes
        return self.state_sizes[name]

    def _parameter(self, node: Node) -> Dimensions:
        name = node.data
        if name not in self.parameter_sizes:
            rank = self.cell.ranks.of(name)
            self.parameter_sizes[name] = self.declared.get(name, tuple(_Size() for _ in range(rank)))
        sizes = self.parameter_sizes[name]
        if len(sizes) == 1 and sizes[0].find().value == 1 and name in self.declared:
            return ()
        return sizes

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
                of_parts = [self.vector(part) or _Size(1, "1") for part in parts]
                self._later.append(_Later(node, columns, of_parts, sum))
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

    def equate(
        self,
        a: _Size,
        b: _Size,
        node: Node,
        message: str,
        operands: Sequence[Node] = (),
        place: Place | None = None,
    ) -> None:
        """Make two sizes one, or note a problem where `node` first stood, unless another place is given.

        {0} and {1} are the sizes, {2} and {3} the operands.
        """
        a, b = a.find(), b.find()
        if a is b:
            return
        if a.value is not None and b.value is not None:
            if a.value != b.value:
                place = place or self.cell.places.get(node, Place(1, 1))
                words = [self.cell.words_of(operand) or "this part" for operand in operands]
                self.problems.append(place.problem(message.format(_words(a), _words(b), *words)))
            return
        known, unknown = (b, a) if a.value is None else (a, b)
        unknown.root = known

    def solve(self) -> Shapes:
        values = self.cell.values
        # In evaluation order, so that no recursion goes deeper than one node.
        nodes = reachable(values.values())
        of_parameters = self.cell.of_parameters
        inside = [n.args[0] for n in nodes if n.op in ("matmul", "entries")]
        matrices = {n for n in reachable([*inside, *of_parameters]) if not n.is_number}
        for node in nodes:
            if node in matrices:
                self.matrix(node)
            else:
                self.value(node)
        for name, node in self.cell.states.items():
            sizes = self.value(node)
            own = self.state(name)
            if len(sizes) == len(own) == 1:
                self._equate_state(name, sizes[0], node)
                continue
            if sizes and len(sizes) != len(own):
                place = self.cell.place_of_value(name)
                what = ("a number", "a vector", "a matrix")
                message = f"{name} is {what[len(own)]}, but its equation gives {what[len(sizes)]}"
                self.problems.append(place.problem(message))
                continue
            for axis, (mine, found) in enumerate(zip(own, sizes, strict=False)):
                word = ("rows", "columns")[axis]
                message = f"{name} has {{0}} {word}, but its equation gives {{1}}"
                self.equate(mine, found, node, message, place=self.cell.place_of_value(name))
        self._solve_later()
        for size in self._open_sizes():
            size.root = self.named[HIDDEN]
        # What was open until now settles the rest only here.
        self._solve_later()
        of_nodes = {
            node: tuple(map(self._value, sizes)) for node, sizes in self.values.items() if node not in of_parameters
        }
        of_states = {name: tuple(map(self._value, self.state(name))) for name in self.cell.states}
        return Shapes(
            input_size=self._value(self.named[INPUT]),
            states={name: math.prod(shape) for name, shape in of_states.items()},
            of_states=of_states,
            parameters={
                node.data: tuple(self._value(s) for s in self.parameter_sizes[node.data])
                for node in nodes
                if node.op == "parameter" and node.data in self.parameter_sizes
            },
            sizes={node: math.prod(shape) for node, shape in of_nodes.items()},
            of_nodes=of_nodes,
            matrices={n: (self._value(s[0]), self._value(s[1])) for n, s in self.matrix_sizes.items()},
        )

    def _equate_state(self, name: str, size: _Size, node: Node) -> None:
        """Make a state as large as what its equation gives; a vector times x that does not fit is told there."""
        own, found = self.state(name)[0].find(), size.find()
        for part in reachable([node]):
            if part.op != "mul" or part not in self.cell.places or own.value == found.value:
                continue
            vectors = [arg.data for arg in part.args if arg.op == "parameter" and self.value(arg)]
            if vectors and any(arg.op == "input" for arg in part.args) and found is self.named[INPUT].find():
                message = f"{vectors[0]} * x[t] has {{1}} entries, but {name} has {{0}}; write {vectors[0]} @ x[t]"
                self.equate(own, found, part, message)
                return
        if name in self._told:
            return
        message = f"{name} has {{0}} entries, but its equation gives {{1}}"
        told = self._as_large(name, found)
        if told:
            message += f"; a state of that size: {told}"
        self.equate(own, found, node, message, place=self.cell.place_of_value(name))

    def _solve_later(self) -> None:
        """Find the sizes that follow from others by sums, as far as these are known."""
        waiting = self._later
        while waiting:
            left = []
            for later in waiting:
                sizes = [size.find() for size in later.sources]
                known = [size.value for size in sizes if size.value is not None]
                if len(known) < len(sizes):
                    left.append(later)
                    continue
                value = later.found(known)
                if value is not None:
                    whole = _Size(value, " + ".join(size.word or str(size.value) for size in sizes))
                    message = "{2} has {0} columns, but the concatenation has {1} entries"
                    if later.node.op != "columns":
                        message = "here {0} entries are needed, but the concatenation has {1}"
                    self.equate(later.size, whole, later.node, message, later.node.args)
            if len(left) == len(waiting):
                break
            waiting = left
        self._later = waiting

    def _open_sizes(self) -> list[_Size]:
        every = [size for sizes in self.values.values() for size in sizes]
        every += [s for pair in self.matrix_sizes.values() for s in pair]
        every += [size for sizes in self.state_sizes.values() for size in sizes]
        later = {id(waiting.size.find()) for waiting in self._later}
        roots = {id(s.find()): s.find() for s in every}
        return [s for key, s in roots.items() if s.value is None and key not in later]

    def _value(self, size: _Size) -> int:
        value = size.find().value
        return 1 if value is None else value  # what is still open has its problem told


@frozen
class _Later:
    """A size that follows from others once they are known; `found` gives it, or None where it is told to be wrong."""

    node: Node
    size: _Size
    sources: list[_Size]
    found: Callable[[list[int]], int | None]


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
