"""A cell's equations, understood: from the text to a graph with shapes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType

from gradcli.errors import did_you_mean
from gradcli.frozen import frozen
from gradcli.language.across import ACROSS
from gradcli.language.functions import ELEMENTWISE
from gradcli.language.graph import Graph, Node, reachable
from gradcli.language.lower import ACTIVATION_NAME, USUAL_ACTIVATION, Lowering
from gradcli.language.parser import OTHER_LINE, Equation, EquationProblem, Place, parse_equations
from gradcli.language.shapes import Shapes, infer_shapes
from gradcli.language.sized import sized
from gradcli.language.sizes import HIDDEN, INPUT, Dimension, size_at


class CellError(Exception):
    """A cell that cannot be used: mistakes in its equations, and in the settings beside them.

    problems: mistakes in the equations, each with its line and column.
    settings: (path, message) of mistakes in ``output``, ``constants``, ``shapes`` and ``activation``.
    """

    def __init__(self, problems: Sequence[EquationProblem], settings: Sequence[tuple[str, str]] = ()) -> None:
        self.problems = sorted(set(problems))
        self.settings = list(settings)
        lines = [f"{p.line}:{p.column}: {p.text(p.elsewhere)}" for p in self.problems]
        super().__init__("\n".join(lines + [f"{path}: {message}" for path, message in settings]))


@frozen
class SizedCell:
    """A cell at given sizes: what the engine compiles.

    states: for each state, in the order of the equations, the node of its value at t.
    lags: for each state the largest k in ``[t-k]``, at least 1.
    calls: the function that a name of the equations stands for, where that is not the one of the same name.
    fixed: the parameters that are constants, which no training changes: they have no gradient.
    """

    graph: Graph
    states: dict[str, Node]
    lags: dict[str, int]
    output: str
    shapes: Shapes
    equations: tuple[Equation, ...]
    values: dict[str, Node]
    concatenations: dict[tuple[int, ...], list[Node]]
    calls: dict[str, str]
    fixed: frozenset[str] = frozenset()


class ParsedCell:
    """A cell without sizes yet. See `parse_cell`.

    states: in the order of the equations; `carried` are those that a later step reads, the others are outputs only.
    """

    def __init__(
        self,
        lowering: Lowering,
        equations: list[Equation],
        output: str,
        shapes: Mapping[str, Sequence[Dimension]],
        fixed: frozenset[str] = frozenset(),
    ) -> None:
        self._lowering = lowering
        self.fixed = fixed
        self._shapes = shapes
        self.equations = tuple(equations)
        self.output = output
        nodes = reachable(lowering.values.values())
        self.parameters = tuple(sorted({n.data for n in nodes if n.op == "parameter"}))
        self.states = tuple(lowering.states)
        read = {n.data[0] for n in nodes if n.op == "state"}
        self.carried = tuple(name for name in self.states if name in read)
        #: Parameters that are matrices because of what they stand beside, and not because `shapes` says so.
        self.inferred_matrices = frozenset(lowering.by_entries) - frozenset(lowering.matrices) - frozenset(shapes)
        #: Parameters that are the weights of a sum, as w of dot(w, x[t]).
        self.dotted = frozenset(
            factor.data
            for n in nodes
            if n.op == "total" and n.data == "entries" and n.args[0].op == "mul"
            for factor in n.args[0].args
            if factor.op == "parameter"
        )
        #: The surrogates of its spikes, each with its k.
        self.surrogates = tuple(sorted({n.data for n in nodes if n.op == "spike"}))
        #: Whether it holds back the gradient of something that changes with a state, an input or a parameter.
        self.stops = any(n.op == "stop" for n in nodes)
        self.uses_input = any(n.op == "input" for n in nodes)
        self._lags = dict.fromkeys(self.states, 1)
        for node in nodes:
            if node.op == "state":
                name, lag = node.data
                self._lags[name] = max(self._lags[name], lag)

    def at_sizes(self, hidden_size: int, input_size: int) -> SizedCell:
        """Return the cell with all shapes known.

        Raises:
            CellError: sizes that do not fit together, each at its place in the equations, or are not whole.
        """
        if settings := _not_whole(self._shapes, {HIDDEN: hidden_size, INPUT: input_size}):
            raise CellError([], settings)
        shapes, problems = infer_shapes(self._lowering, self._shapes, hidden_size, input_size)
        if problems:
            raise CellError(problems)
        low = self._lowering
        values = sized(low, shapes)
        return SizedCell(
            low.graph,
            {name: values[name] for name in low.states},
            self._lags,
            self.output,
            shapes,
            self.equations,
            values,
            low.concatenations,
            low.calls,
            self.fixed,
        )


def parse_cell(
    equations: str,
    *,
    output: str | None = None,
    constants: Mapping[str, float] | None = None,
    shapes: Mapping[str, Sequence[Dimension]] | None = None,
    activation: str | None = None,
    batch_size: int | None = None,
    replaces_usual: bool = False,
    fixed: Collection[str] = (),
    arrays: Mapping[str, Sequence[Dimension]] = MappingProxyType({}),
) -> ParsedCell:
    """Return the cell that the text of its equations describes.

    Args:
        equations: one ``name = ...`` or ``state[t] = ...`` a line.
        output: the state that feeds the loss and the next layer; ``h`` where there is one, else the first state.
        constants: names that stand for numbers.
        shapes: sizes that inference cannot find, such as ``{"W_hm": ["hidden_size", 4]}``; ``[]`` is a scalar.
        activation: the elementwise function that ``phi`` stands for.
        replaces_usual: whether it stands for every ``tanh`` as well.
        fixed: the parameters that are constants, which no training changes.
        arrays: those of `constants` that are vectors or matrices, with their sizes; `shapes` has the last word.
        batch_size: how many sequences it will run on; with one, what takes statistics over the batch is a mistake.

    Raises:
        CellError: every mistake found, in the equations and in the settings.
    """
    constants, shapes = constants or {}, shapes or {}
    listed = {name: sizes for name, sizes in arrays.items() if name not in shapes}
    shapes = {**listed, **shapes}
    parsed, problems = parse_equations(equations)
    scalars = frozenset(name for name, dims in shapes.items() if len(dims) == 0 or list(dims) == [1])
    is_known = activation is None or activation in ELEMENTWISE
    # Equations that use an unknown function are checked with another in its place.
    lowering = Lowering(
        parsed,
        constants,
        activation if is_known else ELEMENTWISE[0],
        scalars,
        batch_size,
        replaces_usual,
        {name: 0 if name in scalars else len(dims) for name, dims in shapes.items() if len(dims) <= 2},
    )
    unreadable = {problem.line for problem in problems}
    problems += [problem for problem in lowering.problems if problem.line not in unreadable]
    for name in lowering.matrices.keys() & lowering.vectors.keys():
        problems.append(_both(name, lowering.matrices[name], lowering.vectors[name]))
    # Of what has sizes in `shapes` it is told there.
    for name in (lowering.by_entries.keys() & lowering.vectors.keys()) - lowering.matrices.keys() - shapes.keys():
        problems.append(_both_by_entries(name, lowering.by_entries[name], lowering.vectors[name]))
    settings = []
    if not is_known:
        what = f"{activation} is not elementwise" if activation in ACROSS else f"no function is called {activation!r}"
        hint = did_you_mean(str(activation), ELEMENTWISE)
        settings.append(("activation", f"{what}; functions: {', '.join(ELEMENTWISE)}{hint}"))
    if not unreadable:
        settings += _output_problems(lowering, output)
    if not problems:
        # What the equations use, they only tell in full where all of them are understood.
        unused = _unused_arrays(lowering, arrays)
        settings += unused
        settings += _unused(lowering, constants, activation if is_known else None, replaces_usual)
        named = {path.partition(".")[2] for path, _ in unused}
        # A constant that nothing uses is one mistake, however much more is said of it.
        settings += _shape_problems(lowering, {name: shapes[name] for name in shapes if name not in named}, listed)
        settings += _fixed_problems(lowering, [name for name in fixed if name not in arrays])
    if problems or settings:
        raise CellError(problems, settings)
    states = list(lowering.states)
    return ParsedCell(lowering, parsed, output or ("h" if "h" in states else states[0]), shapes, frozenset(fixed))


def _not_whole(shapes: Mapping[str, Sequence[Dimension]], sizes: Mapping[str, int]) -> list[tuple[str, str]]:
    """Return the settings that are no sizes at these, such as hidden_size / 4 at 6, each of which is told once."""
    found: dict[str, tuple[str, str]] = {}
    for name, dims in shapes.items():
        for index, dimension in enumerate(dims):
            try:
                size_at(dimension, sizes)
            except ValueError as error:
                found.setdefault(str(error), (f"shapes.{name}[{index}]", str(error)))
    return list(found.values())


def _both(name: str, matrix: Place, vector: Place) -> EquationProblem:
    """Return the problem of a parameter used as a matrix and as a vector, at the later of the two places."""
    if (matrix.line, matrix.column) < (vector.line, vector.column):
        elsewhere = "a matrix there" if matrix.line == vector.line else f"a matrix on {OTHER_LINE}"
        message = (
            f"{name} is a vector here, and {elsewhere}: write {name} @ ... here too, or give one of them another name"
        )
        return vector.problem(message, matrix.line)
    message = (
        f"{name} is a matrix here, left of '@', and a vector on {OTHER_LINE}: write {name} * ... here too, or give one"
    )
    return matrix.problem(f"{message} of them another name", vector.line)


def _both_by_entries(name: str, matrix: Place, vector: Place) -> EquationProblem:
    """Return the problem of a parameter that stands beside a matrix in one place, and beside a vector in another."""
    cure = "give one of them another name"
    if matrix == vector:
        what = f"{name} is a matrix here, as what it is part of is one, and stands beside a vector"
        return matrix.problem(f"{what}: a matrix of two vectors is outer(a, b)")
    if (matrix.line, matrix.column) < (vector.line, vector.column):
        elsewhere = "beside a matrix there" if matrix.line == vector.line else f"beside a matrix on {OTHER_LINE}"
        message = f"{name} stands beside a vector here, and {elsewhere}, entry by entry: {cure}"
        return vector.problem(message, matrix.line)
    elsewhere = "beside a vector there" if matrix.line == vector.line else f"beside a vector on {OTHER_LINE}"
    return matrix.problem(f"{name} stands beside a matrix here, and {elsewhere}, entry by entry: {cure}", vector.line)


def _output_problems(lowering: Lowering, output: str | None) -> list[tuple[str, str]]:
    states = list(lowering.states)
    if output is None or output in states or not states:
        return []
    what = f"{output} is no state" if output in lowering.values else f"no state is called {output!r}"
    return [("output", f"{what}; states: {', '.join(states)}{did_you_mean(output, states)}")]


def _unused(
    lowering: Lowering, constants: Mapping[str, float], activation: str | None, replaces_usual: bool
) -> list[tuple[str, str]]:
    parameters = sorted(lowering.matrices.keys() | lowering.vectors.keys() | lowering.by_entries.keys())
    found = [
        (f"constants.{name}", f"the equations do not use {name}{did_you_mean(name, parameters)}")
        for name in constants
        if name not in lowering.used_constants
    ]
    if activation is not None and not lowering.uses_activation:
        found.append(
            (
                "activation",
                f"this cell has neither {USUAL_ACTIVATION}(...) nor {ACTIVATION_NAME}(...), which activation would"
                " stand for; 'gradcli cells NAME' shows its equations"
                if replaces_usual
                else f"the equations do not use {ACTIVATION_NAME}(...), which activation would stand for; in equations"
                " of your own write the function itself",
            )
        )
    return found


def _unused_arrays(lowering: Lowering, arrays: Collection[str]) -> list[tuple[str, str]]:
    used = {n.data for n in reachable(lowering.values.values()) if n.op == "parameter"}
    parameters = sorted(used - set(arrays))
    return [
        (f"constants.{name}", f"the equations do not use {name}{did_you_mean(name, parameters)}")
        for name in arrays
        if name not in used and name not in lowering.values
    ]


def _fixed_problems(lowering: Lowering, fixed: Collection[str]) -> list[tuple[str, str]]:
    known = sorted({n.data for n in reachable(lowering.values.values()) if n.op == "parameter"})
    return [
        (f"fixed.{name}", f"no parameter is called {name!r}{did_you_mean(name, known)}")
        for name in fixed
        if name not in known
    ]


def _shape_problems(
    lowering: Lowering, shapes: Mapping[str, Sequence[Dimension]], listed: Collection[str]
) -> list[tuple[str, str]]:
    """Return what is wrong with shapes; those of `listed` are of constants, which have the place of the mistake."""
    found = []
    scalars = {
        n.data for n in reachable(lowering.values.values()) if n.op == "parameter" and n.data in lowering.scalars
    }
    known = [
        *lowering.states,
        *sorted(lowering.matrices.keys() | lowering.vectors.keys() | lowering.by_entries.keys() | scalars),
    ]
    for name, dims in shapes.items():
        if name in listed and name in lowering.values:
            found.append((f"constants.{name}", f"{name} is given as a constant and by an equation; rename one of them"))
            continue
        if name not in known:
            what = "an intermediate, whose size follows from its equation" if name in lowering.values else ""
            hint = did_you_mean(name, known)
            found.append(
                (f"shapes.{name}", f"{name} is {what}" if what else f"no state or parameter is called {name!r}{hint}")
            )
            continue
        for index, dimension in enumerate(dims):
            try:
                size_at(dimension, None)
            except ValueError as error:
                found.append((f"shapes.{name}[{index}]", str(error)))
        if name in lowering.states:
            if len(dims) > 2:
                what = f"a state is a number, [], a vector, [size], or a matrix, [rows, columns]; got {len(dims)} sizes"
                found.append((f"shapes.{name}", what))
            continue
        if name in lowering.matrices or (name in lowering.by_entries and name not in lowering.vectors):
            counts, what = [2], "a matrix, with two sizes: [rows, columns]"
        else:
            counts, what = [0, 1], "a vector, with one size: [size], or [] for a single number"
        if len(dims) not in counts and name in listed:
            wanted = "a matrix, a list of lists" if counts == [2] else "a vector, a list of numbers"
            given = "a list of numbers" if len(dims) == 1 else "a list of lists"
            found.append((f"constants.{name}", f"the equations use {name} as {wanted}; got {given}"))
        elif len(dims) not in counts:
            found.append((f"shapes.{name}", f"{name} is {what}; got {len(dims)}"))
    return found
