"""Text to equations: Python's own parser over an allow-list. Nothing of the text is ever evaluated."""

from __future__ import annotations

import ast
import keyword
import re
import unicodedata
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

from gradcli.frozen import frozen
from gradcli.language.habits import apostrophe_or_bar, choice, index_of_time, semicolon

MAX_DEPTH = 60
MAX_TREE_DEPTH = 4 * MAX_DEPTH
MAX_LAG = 1000
INPUT_NAME = "x"
TIME_NAME = "t"

_OPEN = {"(": ")", "[": "]", "{": "}"}
_OPERATORS = ("**", "//", "+", "-", "*", "/", "@")
_OPERAND = r"(\b[A-Za-z_]\w*+(?:\[[^\[\]]*+\])?|(?<![\w.])\d[\w.]*+|\))"
_TWO_OPERANDS = _OPERAND + r"[ \t]+([A-Za-z_]\w*+|\d[\w.]*+|\()"
_LEFT_SIDE = r"\s*+([A-Za-z_]\w*+)\s*+(\[\s*t\s*\])?\s*=(?!=)"
# What papers and word processors write, and how it is written in equations.
_WRITTEN_AS = {
    "\u2212": "-",
    "\u2013": "-",
    "\u2014": "-",
    **dict.fromkeys("\u00d7\u00b7\u22c5\u2022", "* entry by entry, W @ a, or dot(a, b) for a sum of products"),
    **dict.fromkeys("\u2218\u2299\u2217\u22c6", "*"),
    "\u2297": "outer(a, b)",
    **dict.fromkeys("\u2016\u2225", "norm(a)"),
    "\u27e8": "dot(a, b)",
    "\u221a": "sqrt(a)",
    **dict.fromkeys("\u03a3\u2211", "sum(a) or W @ a"),
    "\u2264": "<=",
    "\u2265": ">=",
    "\u00f7": "/",
    "\u00b2": "**2",
    "\u00b3": "**3",
    "\u1d40": ".T",
    "\u22a4": ".T",
    "\u03c3": "sigmoid",
    "\u03c6": "phi",
    "\u03d5": "phi",
}


@dataclass(frozen=True, order=True)
class EquationProblem:
    """A mistake at a place inside the equations; line and column count from 1.

    elsewhere: another line that the message speaks of, as `OTHER_LINE`; 0 where it speaks of none. Where the equations
    stand in a file, it is the file's line that people must be told.
    """

    line: int
    column: int
    message: str
    elsewhere: int = 0

    def text(self, line: int) -> str:
        """Return the message, with `line` as the number of the line elsewhere."""
        return self.message.replace(OTHER_LINE, f"line {line}") if self.elsewhere else self.message


#: Stands in a message for the line elsewhere; no equation can hold a NUL.
OTHER_LINE = "\0"


@frozen
class Place:
    """Where something stands in the equations; line and column count from 1."""

    line: int
    column: int

    def problem(self, message: str, elsewhere: int = 0) -> EquationProblem:
        return EquationProblem(self.line, self.column, message, elsewhere)


@frozen
class Equation:
    """One line ``name = ...`` (an intermediate) or ``name[t] = ...`` (a state).

    is_readable: whether its right side was understood; a line of which it was not still gives its name.
    """

    name: str
    is_state: bool
    expression: ast.expr
    statement: Statement
    place: Place
    is_readable: bool = True

    @property
    def left_side(self) -> str:
        return f"{self.name}[t]" if self.is_state else self.name


@frozen
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

    def place_behind(self, node: ast.expr, word: str) -> Place:
        """Return where the first such word stands behind a node; that of the node where there is none."""
        lines = self.text.split("\n")
        row, offset = (node.end_lineno or 1) - 1, node.end_col_offset or 0
        found = re.search(rf"\b{word}\b", "\n".join([lines[row][offset:], *lines[row + 1 :]]))
        if found is None:
            return self.place(node)
        return _place_at(self, len("\n".join([*lines[:row], lines[row][:offset]])) + found.start())


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
    """Cut the text into statements: a line each, joined with the next while a bracket is open.

    The beginning of another equation ends a statement even so: a bracket that is never closed spoils no other line.
    """
    pending: list[str] = []
    start = depth = 0
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.split("#", 1)[0].rstrip()
        if pending and re.match(_LEFT_SIDE, line):
            yield _statement(pending, start)
            pending, depth = [], 0
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
        yield _statement(pending, start)


def _statement(lines: list[str], number: int) -> Statement:
    indent = len(lines[0]) - len(lines[0].lstrip())
    return Statement("\n".join([lines[0][indent:], *lines[1:]]), number, indent + 1)


def _parse_statement(statement: Statement) -> Equation | EquationProblem:
    here = Place(statement.line, statement.column)
    unusual = next(((i, c) for i, c in enumerate(statement.text) if not (c in "\n\t" or " " <= c <= "~")), None)
    if unusual is not None:
        return _place_at(statement, unusual[0]).problem(_unusual_character(*unusual, statement.text))
    if _bracket_depth(statement.text) > MAX_DEPTH:
        return here.problem(
            f"brackets nested more than {MAX_DEPTH} deep; give parts of this equation names of their own"
        )
    try:
        with warnings.catch_warnings(action="ignore"):
            module = ast.parse(statement.text, mode="exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return _syntax_problem(statement, error)
    return _equation(statement, module, here)


def _equation(statement: Statement, module: ast.Module, here: Place) -> Equation | EquationProblem:
    if len(module.body) != 1:
        return statement.place(module.body[1]).problem("one equation a line, without ';'")
    assignment = module.body[0]
    if isinstance(assignment, ast.AugAssign):
        return here.problem("there is no += or *= here; write the whole equation, such as h[t] = h[t-1] + ...")
    if not isinstance(assignment, ast.Assign):
        return here.problem(_no_equation(statement))
    if len(assignment.targets) != 1:
        return statement.place(assignment.targets[1]).problem("one '=' an equation; give this name a line of its own")
    if _tree_depth(assignment.value) > MAX_TREE_DEPTH:
        return here.problem(
            f"this equation is too long: more than {MAX_TREE_DEPTH} operations within each other; "
            "give parts of it names of their own"
        )
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
    left = re.match(_LEFT_SIDE, statement.text)
    if left is None or left.group(1) in (INPUT_NAME, TIME_NAME):
        return []
    place = Place(statement.line, statement.column)
    return [Equation(left.group(1), left.group(2) is not None, ast.Constant(1.0), statement, place, False)]


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


def _unusual_character(position: int, char: str, text: str) -> str:
    name = unicodedata.name(char, "").lower()
    what = f"the character U+{ord(char):04X}" + (f" ({name})" if name else "")
    plain = _WRITTEN_AS.get(char)
    if char == "\u2297" and (sides := _operands(text[:position], text[position + 1 :])):
        plain = f"outer({sides[0]}, {sides[1]})"
    elif plain == "norm(a)" and (inside := re.match(r"[ \w\[\]-]+(?=[\u2016\u2225])", text[position + 1 :])):
        plain = f"norm({inside[0].strip()})"
    written = f"; write {plain}" if plain else ": names and operators are plain ASCII"
    return f"{what} cannot stand in an equation{written}"


def _operands(before: str, after: str) -> tuple[str, str] | None:
    """Return the names or values that end and begin two texts; None where others do."""
    name = r"[A-Za-z_]\w*(?:\[[^\[\]]*\])?"
    left, right = re.search(rf"{name}\Z", before.rstrip()), re.match(name, after.lstrip())
    return (left[0], right[0]) if left and right else None


def _no_equation(statement: Statement) -> str:
    operator = next((o for o in _OPERATORS if statement.text.startswith(o)), None)
    if operator is not None:
        return (
            f"a line cannot start with {operator}; an equation goes over several lines inside brackets only: "
            f"h[t] = (... {operator} ...)"
        )
    if "==" in statement.text:
        return "an equation has one '=', not '=='"
    return "expected an equation such as f = ... or h[t] = ..."


def _syntax_problem(statement: Statement, error: Exception) -> EquationProblem:
    """Return what is most likely wrong with a text that Python's parser refuses."""
    from gradcli.language.pasted_latex import pasted_latex  # of no use to equations that are right

    text = statement.text
    word = next((m for m in re.finditer(r"\b[A-Za-z_]\w*+", text) if keyword.iskeyword(m.group())), None)
    found = (
        pasted_latex(text)
        or index_of_time(text)
        or semicolon(text)
        or apostrophe_or_bar(text)
        or _wrong_bracket(text)
        or (word and (word.start(), _reserved(text, word)))
        or _wrong_sides(text, error)
        or _missing_operator(text)
        or _missing_operand(text)
    )
    if found:
        position, message = found
        return _place_at(statement, position).problem(message)
    message = "this is not a formula; operators are + - * / ** @, and functions are written f(a)"
    lines = text.split("\n")
    if not isinstance(error, SyntaxError) or error.lineno is None:
        return Place(statement.line, statement.column).problem(message)
    row = min(max(error.lineno, 1), len(lines))
    column = min(max(error.offset or 1, 1), len(lines[row - 1]) + 1)
    return Place(statement.line + row - 1, column + (statement.column - 1 if row == 1 else 0)).problem(message)


def _reserved(text: str, word: re.Match[str]) -> str:
    told = choice(text, word.group(), word.start())
    return told or f"{word.group()} is a reserved word; choose another name"


def _wrong_bracket(text: str) -> tuple[int, str] | None:
    opened: list[tuple[int, str]] = []
    for position, c in enumerate(text):
        if c in _OPEN:
            opened.append((position, c))
        elif c in _OPEN.values():
            if not opened:
                return position, f"this '{c}' closes nothing"
            bracket = opened.pop()[1]
            if c != _OPEN[bracket]:
                return position, f"'{_OPEN[bracket]}' is missing before this '{c}': '{bracket}' is still open"
    return (opened[-1][0], f"this '{opened[-1][1]}' is never closed") if opened else None


def _wrong_sides(text: str, error: Exception) -> tuple[int, str] | None:
    left, equals, right = text.partition("=")
    if not equals:
        return 0, "expected an equation such as f = ... or h[t] = ..."
    if not left.strip():
        return 0, "a name is missing before '='"
    if not right.strip():
        return len(text), f"nothing stands behind '='; expected a formula for {left.strip()}"
    if isinstance(error, SyntaxError) and str(error.msg).startswith("cannot assign"):
        return 0, "the left side is a name such as f, or a state such as h[t]"
    return None


def _missing_operator(text: str) -> tuple[int, str] | None:
    pair = re.compile(_TWO_OPERANDS).search(text, text.index("="))
    if pair is None:
        return None
    left, right = pair.groups()
    return pair.start(
        2
    ), f"an operator is missing between {left} and {right}: '@' for a matrix product, '*' elementwise"


def _missing_operand(text: str) -> tuple[int, str] | None:
    end = text.rstrip()
    operator = next((o for o in _OPERATORS if end.endswith(o)), None)
    if operator is None:
        return None
    return len(end) - len(operator), (
        f"nothing stands behind this {operator}; an equation goes over several lines inside brackets only"
    )
