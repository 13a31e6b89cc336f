"""A cell's equations as they were written, in any notation: what `formula` is for routes, for the text itself."""

from __future__ import annotations

import ast

from gradcli.language.cell import SizedCell
from gradcli.language.graph import Dependence
from gradcli.language.notation import Text
from gradcli.language.parser import Equation, lag_of

# How tightly an expression binds: what binds less than its place asks for stands in brackets.
_SUM, _QUOTIENT, _PRODUCT, _POWER, _ATOM = range(5)


class EquationWriter:
    """Writes the equations of a cell; what is assigned on the way bears its step, as states do."""

    def __init__(self, cell: SizedCell, notation: Text) -> None:
        self._cell = cell
        self._notation = notation

    def sides(self, equation: Equation) -> tuple[str, str]:
        """Return the left and the right side of an equation."""
        left = self._named(equation.name)
        return left, self._written(equation.expression)[0]

    def _named(self, name: str) -> str:
        node = self._cell.values.get(name)
        if name in self._cell.states:
            return self._notation.variable(name, 0, is_state=True)
        if node is None or node.dependence is Dependence.PARAMETERS:
            return self._notation.parameter(name)
        return self._notation.variable(name, 0, is_state=False)

    def _is_number(self, tree: ast.expr) -> bool:
        """Tell whether an expression is one number: written so, a constant, or a parameter of one entry."""
        parameters = self._cell.shapes.parameters
        match tree:
            case ast.Name(id=name):
                return name not in self._cell.values and parameters.get(name, ()) == ()
            case _:
                return isinstance(tree, ast.Constant)

    def _bracketed(self, tree: ast.expr, needed: int) -> str:
        text, level = self._written(tree)
        return text if level >= needed else self._notation.bracketed(text)

    def _written(self, tree: ast.expr) -> tuple[str, int]:
        """Return an expression and how tightly it binds. What the parser took in is one of these."""
        n = self._notation
        match tree:
            case ast.Constant(value=int() | float() as value):
                return n.number(value), _ATOM
            case ast.Name(id=name):
                return self._named(name), _ATOM
            case ast.Subscript(value=vector, slice=ast.Slice(lower=lower, upper=upper)):
                ends = ["" if end is None else self._written(end)[0] for end in (lower, upper)]
                return n.entries(self._bracketed(vector, _ATOM), *ends), _ATOM
            case ast.Subscript(value=ast.Name(id=name), slice=subscript):
                return n.variable(name, lag_of(subscript) or 0, is_state=True), _ATOM
            case ast.Attribute(value=matrix, attr="T"):
                return n.transposed.format(self._bracketed(matrix, _ATOM)), _ATOM
            case ast.BinOp(op=ast.Add() | ast.Sub()) | ast.UnaryOp():
                return n.signed_sum(self._terms(tree, 1)), _SUM
            case ast.BinOp(left=left, op=ast.MatMult(), right=right):
                return n.times.join([self._bracketed(left, _QUOTIENT), self._bracketed(right, _ATOM)]), _QUOTIENT
            case ast.BinOp(left=left, op=ast.Mult(), right=right):
                sign = n.times if self._is_number(left) else n.times_elementwise
                return sign.join([self._bracketed(left, _QUOTIENT), self._bracketed(right, _PRODUCT)]), _QUOTIENT
            case ast.BinOp(left=left, op=ast.Div(), right=right):
                needed = (_QUOTIENT, _POWER) if n.quotient_in_line else (_SUM, _SUM)
                above, below = (self._bracketed(side, level) for side, level in zip((left, right), needed, strict=True))
                return n.quotient(above, below), _QUOTIENT
            case ast.BinOp(left=base, op=ast.Pow(), right=exponent):
                return n.power(self._bracketed(base, _ATOM), self._bracketed(exponent, _SUM)), _POWER
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                sign = {ast.Gt: ">", ast.GtE: ">=", ast.Lt: "<", ast.LtE: "<="}[type(op)]
                return n.compared(self._written(left)[0], sign, self._written(right)[0]), _SUM
            case ast.Call(func=ast.Name(id="outer"), args=[a, b]):
                return n.outer(self._bracketed(a, _ATOM), self._bracketed(b, _ATOM)), _QUOTIENT
            case ast.Call(func=ast.Name(id="dot"), args=[a, b]):
                return n.dot(self._bracketed(a, _ATOM), self._bracketed(b, _ATOM)), _QUOTIENT
            case ast.Call(func=ast.Name(id="spike"), args=[argument, *_]):
                # Its slope is told where gradients are; forward it is a step.
                return n.call("spike", self._written(argument)[0]), _ATOM
            case ast.Call(func=ast.Name(id=name), args=args):
                arguments = n.listed([self._written(arg)[0] for arg in args])
                return n.call(self._cell.calls.get(name, name), arguments), _ATOM
            case ast.List(elts=parts):
                return n.concatenated([self._written(part)[0] for part in parts]), _ATOM
            case _:
                raise AssertionError(f"no way to write {ast.dump(tree)}")

    def _terms(self, tree: ast.expr, sign: int) -> list[tuple[int, str]]:
        """Return the signed terms of a sum; one that stands in brackets on the right of a sign keeps them."""
        match tree:
            case ast.BinOp(left=left, op=ast.Add() | ast.Sub() as op, right=right):
                last = (1 if isinstance(op, ast.Add) else -1, self._bracketed(right, _QUOTIENT))
                return [*self._terms(left, sign), last]
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return [(-sign, self._bracketed(operand, _QUOTIENT))]
            case ast.UnaryOp(op=ast.UAdd(), operand=operand):
                return [(sign, self._bracketed(operand, _QUOTIENT))]
            case _:
                return [(sign, self._written(tree)[0])]
