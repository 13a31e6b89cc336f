"""Formulas as MathML, which browsers set by themselves: a notation beside those of `notation`.

A formula is a row of elements; where MathML wants one element, as under a fraction bar, the row is put into an `mrow`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape, unescape

from gradcli.language.notation import GREEK, LONGEST_ITALIC, Text, is_greek_subscript, split


def _operator(sign: str) -> str:
    return f"<mo>{escape(sign)}</mo>"


def _fenced(left: str, inside: str, right: str) -> str:
    """Return a row in brackets that grow with it."""
    fences = [
        f'<mo fence="true" form="{form}">{escape(sign)}</mo>' for form, sign in (("prefix", left), ("postfix", right))
    ]
    return f"<mrow>{fences[0]}{inside}{fences[1]}</mrow>"


def _grouped(row: str) -> str:
    """Return a row in brackets, if it is more than one element."""
    depth = 0
    for tag in re.finditer(r"<(/?)[^>]*?(/?)>", row):
        depth += -1 if tag[1] else 0 if tag[2] else 1
        if depth == 0:
            return row if tag.end() == len(row) else _fenced("(", row, ")")
    return row


def _applied(function: str, argument: str = "{}") -> str:
    return f"{function}<mo>&#x2061;</mo>{_fenced('(', argument, ')')}"


def _word(text: str) -> str:
    """Return a name as an identifier: a Greek letter by its name, one letter in italics, a word upright."""
    return f"<mi>{unescape(f'&{text};') if GREEK.fullmatch(text) else escape(text)}</mi>"


def _where(condition: str) -> str:
    """Return 1 where a condition holds, else 0."""
    return _fenced("[", condition, "]")


_ZERO = "<mn>0</mn>"
_MAGNITUDE = _fenced("|", "{}", "|")
#: The functions that are not written as their name in front of brackets; see `notation.HELPERS` for the underscores.
_CALLS = {
    "sigmoid": _applied("<mi>σ</mi>"),
    "sqrt": "<msqrt>{}</msqrt>",
    "abs": _MAGNITUDE,
    "_positive": _where(f"{{}}{_operator('>')}{_ZERO}"),
    "_nonpositive": _where(f"{{}}{_operator('≤')}{_ZERO}"),
    "_negative_part": _applied("<mi>min</mi>", f'{{}}<mo separator="true">,</mo>{_ZERO}'),
    "_sign": _applied("<mi>sign</mi>"),
    "_within_1": _where(f"{_MAGNITUDE}{_operator('<')}<mn>1</mn>"),
    "_within_3": _where(f"{_MAGNITUDE}{_operator('<')}<mn>3</mn>"),
    "_normal_cdf": _applied("<mi>Φ</mi>"),
    "_normal_density": _applied("<msup><mi>Φ</mi><mo>′</mo></msup>"),
    "_softplus_slope": _applied("<mi>σ</mi>"),
    "_root": "<msqrt>{}</msqrt>",
}


class MathML(Text):
    """Presentation MathML, to be put into a `math` element."""

    identity = "<mi>I</mi>"
    times = '<mspace width="0.17em"/>'
    times_elementwise = times_entries = _operator("⊙")
    transposed = "<msup><mrow>{}</mrow><mo>⊤</mo></msup>"
    columns = "<msup><mrow>{}</mrow><mrow><mo>(</mo>{}<mo>)</mo></mrow></msup>"
    quotient_in_line = False
    derivative = (
        '<mfrac><mrow><mi mathvariant="normal">d</mi>{}</mrow><mrow><mi mathvariant="normal">d</mi>{}</mrow></mfrac>'
    )
    partial = "<mfrac><mrow><mo>∂</mo>{}</mrow><mrow><mo>∂</mo>{}</mrow></mfrac>"

    def variable(self, name: str, behind: int, *, is_state: bool) -> str:
        head, tail = split(name)
        step = f"<mi>t</mi><mo>−</mo><mn>{behind}</mn>" if behind else "<mi>t</mi>"
        comma = f'{_subscript(tail)}<mo separator="true">,</mo>' if tail else ""
        return f"<msub>{_word(head)}<mrow>{comma}{step}</mrow></msub>"

    def parameter(self, name: str) -> str:
        head, tail = split(name)
        return f"<msub>{_word(head)}<mrow>{_subscript(tail)}</mrow></msub>" if tail else _word(head)

    def number(self, value: float) -> str:
        mantissa, _, exponent = super().number(value).partition("e")
        written = f"<mo>−</mo><mn>{mantissa[1:]}</mn>" if mantissa.startswith("-") else f"<mn>{mantissa}</mn>"
        return f"{written}<mo>⋅</mo>{_power('<mn>10</mn>', _integer(int(exponent)))}" if exponent else written

    def power(self, base: str, exponent: str) -> str:
        return _power(base, exponent)

    def quotient(self, above: str, below: str) -> str:
        return f"<mfrac><mrow>{above}</mrow><mrow>{below}</mrow></mfrac>"

    def call(self, function: str, argument: str) -> str:
        return _CALLS.get(function, _applied(_word(function))).format(argument)

    def compared(self, a: str, sign: str, b: str) -> str:
        return f"{a}{_operator({'>=': '≥', '<=': '≤'}.get(sign, sign))}{b}"

    def where(self, a: str, sign: str, b: str) -> str:
        return _where(self.compared(a, sign, b))

    def outer(self, a: str, b: str) -> str:
        return f'{_grouped(a)}<mspace width="0.17em"/>{self.transposed.format(_grouped(b))}'

    def dot(self, a: str, b: str) -> str:
        return f"{self.transposed.format(_grouped(a))}{_grouped(b)}"

    def entries(self, vector: str, start: object, stop: object) -> str:
        ends = _operator(":").join(str(end) if str(end).startswith("<") else f"<mn>{end}</mn>" for end in (start, stop))
        return f"<msub><mrow>{vector}</mrow><mrow>{_fenced('[', ends, ']')}</mrow></msub>"

    def change(self, variable: str) -> str:
        return f'<mi mathvariant="normal">d</mi>{variable}'

    def jacobian(self, function: str, argument: str) -> str:
        return _applied(f"<msub><mi>J</mi>{_word(function)}</msub>", argument)

    def diagonal(self, entries: str) -> str:
        return _applied("<mi>diag</mi>", entries)

    def bracketed(self, text: str) -> str:
        return _fenced("(", text, ")")

    def listed(self, texts: Sequence[str]) -> str:
        return '<mo separator="true">,</mo>'.join(texts)

    def concatenated(self, texts: Sequence[str]) -> str:
        return _fenced("[", '<mo separator="true">;</mo>'.join(texts), "]")

    def term(self, text: str, sign: str) -> str:
        """Return a term with the sign in front of it, "+", "-" or none."""
        return f'<mo form="infix">{"−" if sign == "-" else sign}</mo>{text}' if sign else text

    def signed_sum(self, terms: Sequence[tuple[int, str]]) -> str:
        (sign, first), *rest = terms
        start = '<mo form="prefix">−</mo>' if sign < 0 else ""
        return start + first + "".join(f"<mo>{'−' if sign < 0 else '+'}</mo>{text}" for sign, text in rest)


def _power(base: str, exponent: str) -> str:
    return f"<msup><mrow>{base}</mrow><mrow>{exponent}</mrow></msup>"


def _integer(value: int) -> str:
    return f"<mo>−</mo><mn>{-value}</mn>" if value < 0 else f"<mn>{value}</mn>"


def _subscript(tail: str) -> str:
    """Return a subscript: a Greek letter, a few letters each for itself, or a word."""
    if is_greek_subscript(tail):
        return _word(tail)
    if len(tail) > LONGEST_ITALIC or not tail.isalnum():
        return f"<mi>{escape(tail)}</mi>"
    return "".join(f"<mn>{char}</mn>" if char.isdigit() else f"<mi>{escape(char)}</mi>" for char in tail)
