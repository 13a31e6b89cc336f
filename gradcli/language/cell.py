"""A cell's equations, understood: from the text to a graph with shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gradcli.errors import did_you_mean
from gradcli.language.functions import ELEMENTWISE
from gradcli.language.graph import Graph, Node, reachable
from gradcli.language.lower import ACTIVATION_NAME, Lowering
from gradcli.language.parser import Equation, EquationProblem, Place, parse_equations
from gradcli.language.shapes import HIDDEN, INPUT, Dimension, Shapes, infer_shapes


class CellError(Exception):
    """A cell that cannot be used: mistakes in its equations, and in the settings beside them.

    problems: mistakes in the equations, each with its line and column.
    settings: (path, message) of mistakes in ``output``, ``constants``, ``shapes`` and ``activation``.
    """

    def __init__(self, problems: Sequence[EquationProblem], settings: Sequence[tuple[str, str]] = ()) -> None:
        self.problems = sorted(set(problems))
        self.settings = list(settings)
        lines = [f"{p.line}:{p.column}: {p.message}" for p in self.problems]
        super().__init__("\n".join(lines + [f"{path}: {message}" for path, message in settings]))


@dataclass(frozen=True)
class SizedCell:
    """A cell at given sizes: what the engine compiles.

    states: for each state, in the order of the equations, the node of its value at t.
    lags: for each state the largest k in ``[t-k]``, at least 1.
    """

    graph: Graph
    states: dict[str, Node]
    lags: dict[str, int]
    output: str
    shapes: Shapes
    equations: tuple[Equation, ...]
    values: dict[str, Node]
    concatenations: dict[tuple[int, ...], list[Node]]

    def equation_of(self, name: str) -> Equation:
        """Return the equation that gives a name."""
        return next(equation for equation in self.equations if equation.name == name)


class ParsedCell:
    """A cell without sizes yet. See `parse_cell`."""

    def __init__(
        self, lowering: Lowering, equations: list[Equation], output: str, shapes: Mapping[str, Sequence[Dimension]]
    ) -> None:
        self._lowering = lowering
        self._shapes = shapes
        self.equations = tuple(equations)
        self.output = output
        nodes = reachable(lowering.states.values())
        self.parameters = tuple(sorted({n.data for n in nodes if n.op == "parameter"}))
        self.states = tuple(lowering.states)
        self.uses_input = any(n.op == "input" for n in nodes)
        self._lags = dict.fromkeys(self.states, 1)
        for node in nodes:
            if node.op == "state":
                name, lag = node.data
                self._lags[name] = max(self._lags[name], lag)

    def at_sizes(self, hidden_size: int, input_size: int) -> SizedCell:
        """Return the cell with all shapes known.

        Raises:
            CellError: sizes that do not fit together, each at its place in the equations.
        """
        shapes, problems = infer_shapes(self._lowering, self._shapes, hidden_size, input_size)
        if problems:
            raise CellError(problems)
        low = self._lowering
        return SizedCell(
            low.graph, low.states, self._lags, self.output, shapes, self.equations, low.values, low.concatenations
        )

    def place_of_parameter(self, name: str) -> Place:
        """Return where a parameter first stands in the equations."""
        return self._lowering.matrices.get(name) or self._lowering.vectors[name]


def parse_cell(
    equations: str,
    *,
    output: str | None = None,
    constants: Mapping[str, float] | None = None,
    shapes: Mapping[str, Sequence[Dimension]] | None = None,
    activation: str | None = None,
) -> ParsedCell:
    """Return the cell that the text of its equations describes.

    Args:
        equations: one ``name = ...`` or ``state[t] = ...`` a line.
        output: the state that feeds the loss and the next layer; ``h`` where there is one, else the first state.
        constants: names that stand for numbers.
        shapes: sizes that inference cannot find, such as ``{"W_hm": ["hidden_size", 4]}``; ``[]`` is a scalar.
        activation: the elementwise function that ``phi`` stands for.

    Raises:
        CellError: every mistake found, in the equations and in the settings.
    """
    constants, shapes = constants or {}, shapes or {}
    parsed, problems = parse_equations(equations)
    scalars = frozenset(name for name, dims in shapes.items() if len(dims) == 0 or list(dims) == [1])
    lowering = Lowering(parsed, constants, activation if activation in ELEMENTWISE else None, scalars)
    unreadable = {problem.line for problem in problems}
    problems += [problem for problem in lowering.problems if problem.line not in unreadable]
    for name in lowering.matrices.keys() & lowering.vectors.keys():
        problems.append(
            lowering.vectors[name].problem(
                f"{name} is a matrix on line {lowering.matrices[name].line}, and a vector here"
            )
        )
    settings = _setting_problems(lowering, parsed, output, constants, shapes, activation) if not problems else []
    if problems or settings:
        raise CellError(problems, settings)
    states = list(lowering.states)
    return ParsedCell(lowering, parsed, output or ("h" if "h" in states else states[0]), shapes)


def _setting_problems(
    lowering: Lowering,
    equations: list[Equation],
    output: str | None,
    constants: Mapping[str, float],
    shapes: Mapping[str, Sequence[Dimension]],
    activation: str | None,
) -> list[tuple[str, str]]:
    found = []
    states = list(lowering.states)
    parameters = sorted(lowering.matrices.keys() | lowering.vectors.keys())
    if output is not None and output not in states:
        found.append(
            ("output", f"no state is called {output!r}; states: {', '.join(states)}{did_you_mean(output, states)}")
        )
    for name in constants:
        if name not in lowering.used_constants:
            found.append((f"constants.{name}", f"the equations do not use {name}{did_you_mean(name, parameters)}"))
    scalars = lowering.scalars & {n.data for n in reachable(lowering.states.values()) if n.op == "parameter"}
    for name, dims in shapes.items():
        if name not in states and name not in parameters and name not in scalars:
            known = [*states, *parameters]
            found.append((f"shapes.{name}", f"no state or parameter is called {name!r}{did_you_mean(name, known)}"))
            continue
        found += [
            (f"shapes.{name}", f"a size is an integer, {HIDDEN} or {INPUT}; got {d!r}")
            for d in dims
            if isinstance(d, str) and d not in (HIDDEN, INPUT)
        ]
        ranks = {"state": (1,), "matrix": (2,)}.get(
            "state" if name in states else "matrix" if name in lowering.matrices else "", (0, 1)
        )
        if len(dims) not in ranks:
            what = (
                "a state has one size"
                if name in states
                else f"{name} is a {'matrix: [rows, columns]' if ranks == (2,) else 'vector: [size], or [] for a scalar'}"
            )
            found.append((f"shapes.{name}", f"{what}; got {len(dims)} sizes"))
    if activation is not None:
        uses = any(ACTIVATION_NAME + "(" in e.statement.text.replace(" ", "") for e in equations)
        if activation not in ELEMENTWISE:
            found.append(
                (
                    "activation",
                    f"no elementwise function is called {activation!r}; functions: {', '.join(ELEMENTWISE)}{did_you_mean(activation, ELEMENTWISE)}",
                )
            )
        elif not uses:
            found.append(("activation", f"the equations do not use {ACTIVATION_NAME}, which activation would bind"))
    return found
