"""Text to equations: Python's own parser over an allow-list. Nothing of the text is ever evaluated."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

MAX_DEPTH = 60
MAX_LAG = 1000
INPUT_NAME = "x"
TIME_NAME = "t"


@dataclass(frozen=True, order=True)
class EquationProblem:
    """A mistake at a place inside the equations; line and column count from 1."""

    line: int
    column: int
    message: str


class EquationError(Exception):
    """Equations that cannot be used: all mistakes that were found, in the order of the text."""

    def __init__(self, problems: list[EquationProblem]) -> None:
        self.problems = sorted(set(problems))
        super().__init__("\n".join(f"{p.line}:{p.column}: {p.message}" for p in self.problems))


@dataclass(frozen=True)
class Place:
    """Where something stands in the equations; line and column count from 1."""

    line: int
    column: int

    def problem(self, message: str) -> EquationProblem:
        return EquationProblem(self.line, self.column, message)


@dataclass(frozen=True)
class Equation:
    """One line ``name = ...`` (an intermediate) or ``name[t] = ...`` (a state)."""

    name: str
    is_state: bool
    expression: ast.expr
    statement: Statement
    place: Place

    @property
    def left_side(self) -> str:
        return f"{self.name}[t]" if self.is_state else self.name


@dataclass(frozen=True)
class Statement:
    """The text of one equation, which may go over several lines, and where it begins."""

    text: str
    line: int
    column: int

    def place(self, node: ast.AST) -> Place:
        """Return where a syntax node of this statement stands in the whole text."""
        row, offset = getattr(node, "lineno", 1), getattr(node, "col_offset", 0)
        line = self.text.split("\n")[row - 1]
        column = len(line.encode()[:offset].decode(errors="ignore")) + 1
        return Place(self.line + row - 1, column + (self.column - 1 if row == 1 else 0))


def parse_equations(text: str) -> tuple[list[Equation], list[EquationProblem]]:
    """Return the equations of `text` in order, and the mistakes of the lines that are none.

    Where there are mistakes, the equations only serve to find more of them.
    """
    equations: list[Equation] = []
    problems: list[EquationProblem] = []
    for statement in _statements(text):
        found = _parse_statement(statement)
        if isinstance(found, Equation):
            equations.append(found)
        else:
            problems.append(found)
            equations += _placeholder(statement)
    if not equations and not problems:
        problems.append(
            EquationProblem(1, 1, "no equations; expected lines such as h[t] = tanh(W_xh @ x[t] + W_hh @ h[t-1])")
        )
    return equations, problems


def _statements(text: str) -> Iterator[Statement]:
    """Cut the text into statements: a line each, joined with the next while a bracket is open."""
    pending: list[str] = []
    start = depth = 0
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.split("#", 1)[0].rstrip()
        if not pending:
            if not line.strip():
                continue
            start = number
        pending.append(line)
        depth += sum(line.count(c) for c in "([") - sum(line.count(c) for c in ")]")
        if depth <= 0:
            yield _statement(pending, start)
            pending, depth = [], 0
    if pending:
        # An open bracket that is never closed would swallow the other lines: give each of them on its own.
        for offset, line in enumerate(pending):
            if line.strip():
                yield _statement([line], start + offset)


def _statement(lines: list[str], number: int) -> Statement:
    indent = len(lines[0]) - len(lines[0].lstrip())
    return Statement("\n".join([lines[0][indent:], *lines[1:]]), number, indent + 1)


def _parse_statement(statement: Statement) -> Equation | EquationProblem:
    here = Place(statement.line, statement.column)
    unusual = next(((i, c) for i, c in enumerate(statement.text) if not (c == "\n" or " " <= c <= "~")), None)
    if unusual is not None:
        return _place_at(statement, unusual[0]).problem(
            f"the character {unusual[1]!a} cannot stand in an equation; names and operators are plain ASCII"
        )
    if _bracket_depth(statement.text) > MAX_DEPTH:
        return here.problem(f"brackets nested more than {MAX_DEPTH} deep")
    try:
        with warnings.catch_warnings(action="ignore"):
            module = ast.parse(statement.text, mode="exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return _syntax_problem(statement, error)
    return _equation(statement, module, here)


def _equation(statement: Statement, module: ast.Module, here: Place) -> Equation | EquationProblem:
    if len(module.body) != 1:
        return here.problem("one equation a line, without ';'")
    assignment = module.body[0]
    if isinstance(assignment, ast.AugAssign | ast.AnnAssign) or not isinstance(assignment, ast.Assign):
        return here.problem("expected an equation such as f = ... or h[t] = ...")
    if len(assignment.targets) != 1:
        return here.problem("one '=' an equation")
    if _tree_depth(assignment.value) > 4 * MAX_DEPTH:
        return here.problem("this equation is nested too deeply; give parts of it names of their own")
    target = assignment.targets[0]
    place = statement.place(target)
    match target:
        case ast.Name(id=name):
            return _checked(Equation(name, False, assignment.value, statement, place))
        case ast.Subscript(value=ast.Name(id=name), slice=ast.Name(id="t")):
            return _checked(Equation(name, True, assignment.value, statement, place))
        case ast.Subscript(value=ast.Name(id=name)):
            return place.problem(f"an equation gives the value at t: write {name}[t] = ...")
        case _:
            return place.problem("the left side is a name such as f, or a state such as h[t]")


def _checked(equation: Equation) -> Equation | EquationProblem:
    if equation.name == INPUT_NAME:
        return equation.place.problem("x is the input, it cannot be given by an equation; choose another name")
    if equation.name == TIME_NAME:
        return equation.place.problem("t is the time step, it cannot be given by an equation; choose another name")
    return equation


def lag_of(subscript: ast.expr) -> int | None:
    """Return k for the subscripts ``t`` (0) and ``t-k``, a negative number for ``t+k``, and None for anything else."""
    match subscript:
        case ast.Name(id="t"):
            return 0
        case ast.BinOp(left=ast.Name(id="t"), op=ast.Sub(), right=ast.Constant(value=int(k))) if type(k) is int:
            return k
        case ast.BinOp(left=ast.Name(id="t"), op=ast.Add(), right=ast.Constant(value=int(k))) if type(k) is int:
            return -k
        case _:
            return None


def _placeholder(statement: Statement) -> list[Equation]:
    """Return an equation that gives the name of an unreadable line, so that other lines are not blamed for using it."""
    left = re.match(r"([A-Za-z_]\w*)\s*(\[\s*t\s*\])?\s*=", statement.text)
    if left is None or left.group(1) in (INPUT_NAME, TIME_NAME):
        return []
    place = Place(statement.line, statement.column)
    return [Equation(left.group(1), left.group(2) is not None, ast.Constant(1.0), statement, place)]


def _bracket_depth(text: str) -> int:
    depth = deepest = 0
    for c in text:
        depth += (c in "([{") - (c in ")]}")
        deepest = max(deepest, depth)
    return deepest


def _tree_depth(tree: ast.AST) -> int:
    deepest, stack = 0, [(tree, 1)]
    while stack:
        node, depth = stack.pop()
        deepest = max(deepest, depth)
        stack.extend((child, depth + 1) for child in ast.iter_child_nodes(node))
    return deepest


def _place_at(statement: Statement, position: int) -> Place:
    before = statement.text[:position]
    row = before.count("\n")
    column = position - (before.rfind("\n") + 1) + 1
    return Place(statement.line + row, column + (statement.column - 1 if row == 0 else 0))


def _syntax_problem(statement: Statement, error: Exception) -> EquationProblem:
    here = Place(statement.line, statement.column)
    text = statement.text
    opened = [c for c in text if c in "([{)]}"]
    if opened.count("(") != opened.count(")"):
        return here.problem("a round bracket is not closed, or closed twice")
    if opened.count("[") != opened.count("]"):
        return here.problem("a square bracket is not closed, or closed twice")
    if "=" not in text:
        return here.problem("expected an equation such as f = ... or h[t] = ...")
    if not isinstance(error, SyntaxError) or error.lineno is None:
        return here.problem("this is not an equation that can be read")
    lines = text.split("\n")
    row = min(max(error.lineno, 1), len(lines))
    column = min(max(error.offset or 1, 1), len(lines[row - 1]) + 1)
    place = Place(statement.line + row - 1, column + (statement.column - 1 if row == 1 else 0))
    product = re.search(r"([A-Za-z_]\w*(?:\[[^\]]*\])?|\))\s+([A-Za-z_]\w*)", text.split("=", 1)[1])
    if product:
        left, right = product.group(1), product.group(2)
        return place.problem(
            f"an operator is missing between {left} and {right}: '@' for a matrix product, '*' elementwise"
        )
    return place.problem("this is not a formula; operators are + - * / ** @, and functions are written f(a)")
