"""A cell's equations and the formulas of its one-step Jacobian, set as mathematics."""

from __future__ import annotations

from collections.abc import Iterator

from gradcli.language.cell import SizedCell
from gradcli.language.equation import EquationWriter
from gradcli.language.formula import JacobianBlock, step_jacobian
from gradcli.language.mathml import MathML
from gradcli.language.notation import Text
from gradcli.language.routes import PathGraph
from gradcli.numbers import grouped
from gradcli.results.page import Formula, Formulas, Mathematics

#: What the blocks of the Jacobian are, by whether they are total derivatives.
JACOBIAN_TITLES = {
    False: "One step, derived from the equations (earlier states independent)",
    True: "The same in all (earlier states as functions of each other)",
}


def equation_formulas(cell: SizedCell) -> Formulas:
    """Return the equations of a cell as they were written."""
    text, mathml = EquationWriter(cell, Text()), EquationWriter(cell, MathML())
    rows = []
    for equation in cell.equations:
        (left, right), (left_markup, right_markup) = text.sides(equation), mathml.sides(equation)
        rows.append(Formula(Mathematics(left_markup, left), Mathematics(right_markup, right)))
    return Formulas("The cell", rows)


def jacobian_formulas(graph: PathGraph) -> Iterator[Formulas]:
    """Yield the blocks of the Jacobian of one step, the partial derivatives and the total ones each together."""
    text, mathml = step_jacobian(graph, Text()), step_jacobian(graph, MathML())
    pairs = list(zip(text.blocks, mathml.blocks, strict=True))
    for is_total, title in JACOBIAN_TITLES.items():
        chosen = [pair for pair in pairs if pair[0].is_total == is_total]
        if chosen:
            yield Formulas(title, [row for pair in chosen for row in _terms(*pair)])
    if text.definitions:
        symbols = [
            Formula(Mathematics(markup[0], plain[0]), Mathematics(markup[1], plain[1]))
            for plain, markup in zip(text.definitions, mathml.definitions, strict=True)
        ]
        yield Formulas("where", symbols)


def _terms(text: JacobianBlock, mathml: JacobianBlock) -> Iterator[Formula]:
    """Yield the terms of a block, each under the one before."""
    left = Mathematics(mathml.name, text.name)
    if not text.terms:
        words = f"a sum over {grouped(text.count)} routes"
        yield Formula(left, Mathematics(f"<mtext>{words}</mtext>", words))
    for index, (plain, markup) in enumerate(zip(text.terms, mathml.terms, strict=True)):
        sign = "-" if plain.sign < 0 else "+" if index else ""
        right = Mathematics(MathML().term(markup.text, sign), f"{sign} {plain.text}".strip())
        yield Formula(None if index else left, right, plain.route)
