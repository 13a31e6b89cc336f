"""How expressions are written: as text in the names of the equations, and as LaTeX. See `formula` for what is written.

A third notation is in `mathml`. All leave the signs of products out. In text a product of a matrix and a vector is
``W_hh h[t-1]`` and an elementwise one ``f (1 - f)``; in the others the latter has its dot. ``[a > 0]`` is 1 where that
holds, else 0 (Iverson's bracket).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

#: The functions that derivatives take beyond those of the equations: as text, and as LaTeX.
HELPERS: dict[str, tuple[str, str]] = {
    "_positive": ("[{} > 0]", "[{} > 0]"),
    "_nonpositive": ("[{} <= 0]", r"[{} \le 0]"),
    "_negative_part": ("min({}, 0)", r"\min({}, 0)"),
    "_sign": ("sign({})", r"\operatorname{{sign}}({})"),
    "_within_1": ("[|{}| < 1]", r"[\lvert {} \rvert < 1]"),
    "_within_3": ("[|{}| < 3]", r"[\lvert {} \rvert < 3]"),
    "_normal_cdf": ("Phi({})", r"\Phi({})"),
    "_normal_density": ("Phi'({})", r"\Phi'({})"),
    "_softplus_slope": ("sigmoid({})", r"\sigma({})"),
    "_root": ("sqrt({})", r"\sqrt{{{}}}"),
}
_LATEX_SIGNS = {">=": r"\ge", "<=": r"\le"}
_LATEX_CALLS = {name: rf"\{name}({{}})" for name in ("tanh", "exp", "log", "sin", "cos")} | {
    "sigmoid": r"\sigma({})",
    "sqrt": r"\sqrt{{{}}}",
    "abs": r"\lvert {} \rvert",
}
GREEK = re.compile(
    "alpha|beta|gamma|delta|epsilon|zeta|eta|theta|iota|kappa|lambda|mu|nu|xi|pi|rho|sigma|tau|phi|chi|psi|omega"
)
LONGEST_ITALIC = 3  # letters of a subscript; a longer one is a word and stands upright


class Text:
    """Plain text, in the names and the form of the equations."""

    identity = "I"
    times = " "
    times_elementwise = " "
    times_entries = " * "  # of matrices, entry by entry
    transposed = "{}.T"
    columns = "{}[:, {}]"
    quotient_in_line = True
    derivative = "d{}/d{}"
    partial = derivative

    def variable(self, name: str, behind: int, *, is_state: bool) -> str:
        """Return a variable at step t - behind; what is assigned bears no step at t, as in the equations."""
        return f"{name}[t-{behind}]" if behind else f"{name}[t]" if is_state else name

    def parameter(self, name: str) -> str:
        return name

    def number(self, value: float) -> str:
        return format(value, ".12g")

    def power(self, base: str, exponent: str) -> str:
        return f"{base}^{exponent}"

    def quotient(self, above: str, below: str) -> str:
        return f"{above} / {below}"

    def call(self, function: str, argument: str) -> str:
        return HELPERS.get(function, (f"{function}({{}})",))[0].format(argument)

    def compared(self, a: str, sign: str, b: str) -> str:
        """Return a comparison; the sign is one of > >= < <= =."""
        return f"{a} {sign} {b}"

    def where(self, a: str, sign: str, b: str) -> str:
        """Return 1 where a comparison holds, else 0."""
        return f"[{self.compared(a, sign, b)}]"

    def outer(self, a: str, b: str) -> str:
        return f"outer({a}, {b})"

    def dot(self, a: str, b: str) -> str:
        return f"dot({a}, {b})"

    def entries(self, vector: str, start: object, stop: object) -> str:
        """Return the entries start .. stop-1 of a vector; an empty end is that of the vector."""
        return f"{vector}[{start}:{stop}]"

    def change(self, variable: str) -> str:
        """Return a small change of a variable."""
        return f"d{variable}"

    def jacobian(self, function: str, argument: str) -> str:
        """Return the Jacobian of a function across entries, at its argument."""
        return f"J_{function}({argument})"

    def diagonal(self, entries: str) -> str:
        return f"diag({entries})"

    def bracketed(self, text: str) -> str:
        return f"({text})"

    def listed(self, texts: Sequence[str]) -> str:
        """Return the arguments of a function of several."""
        return ", ".join(texts)

    def concatenated(self, texts: Sequence[str]) -> str:
        return f"[{', '.join(texts)}]"

    def signed_sum(self, terms: Sequence[tuple[int, str]]) -> str:
        """Return a sum of signed terms: (1, "a"), (-1, "b") -> a - b."""
        return signed_sum(terms)


class Latex(Text):
    """LaTeX, for an align* environment of amsmath."""

    times = r" \, "
    times_elementwise = times_entries = r" \odot "
    transposed = r"{}^{{\top}}"
    columns = "{}^{{({})}}"
    quotient_in_line = False
    derivative = r"\frac{{\mathrm{{d}} {}}}{{\mathrm{{d}} {}}}"
    partial = r"\frac{{\partial {}}}{{\partial {}}}"

    def variable(self, name: str, behind: int, *, is_state: bool) -> str:
        head, tail = split(name)
        step = f"t-{behind}" if behind else "t"
        return f"{_head(head)}_{{{_subscript(tail) + ',' if tail else ''}{step}}}"

    def parameter(self, name: str) -> str:
        head, tail = split(name)
        return f"{_head(head)}_{{{_subscript(tail)}}}" if tail else _head(head)

    def number(self, value: float) -> str:
        mantissa, _, exponent = super().number(value).partition("e")
        return rf"{mantissa} \cdot 10^{{{int(exponent)}}}" if exponent else mantissa

    def power(self, base: str, exponent: str) -> str:
        return f"{{{base}}}^{{{exponent}}}"

    def quotient(self, above: str, below: str) -> str:
        return rf"\frac{{{above}}}{{{below}}}"

    def call(self, function: str, argument: str) -> str:
        if function in HELPERS:
            return HELPERS[function][1].format(argument)
        usual = rf"\operatorname{{{{{_escaped(function)}}}}}({{}})"
        return _LATEX_CALLS.get(function, usual).format(argument)

    def compared(self, a: str, sign: str, b: str) -> str:
        return f"{a} {_LATEX_SIGNS.get(sign, sign)} {b}"

    def outer(self, a: str, b: str) -> str:
        return rf"{_grouped(a)} \, {{{_grouped(b)}}}^{{\top}}"

    def dot(self, a: str, b: str) -> str:
        return rf"{{{_grouped(a)}}}^{{\top}} {_grouped(b)}"

    def entries(self, vector: str, start: object, stop: object) -> str:
        return rf"{{{vector}}}_{{[{start}:{stop}]}}"

    def change(self, variable: str) -> str:
        return rf"\mathrm{{d}}{variable}"

    def jacobian(self, function: str, argument: str) -> str:
        return rf"J_{{\mathrm{{{_escaped(function)}}}}}({argument})"

    def diagonal(self, entries: str) -> str:
        return rf"\mathrm{{diag}}({entries})"


def _grouped(text: str) -> str:
    """Return a formula in brackets, if it is more than one thing: a space in no bracket tells."""
    depth = 0
    for char in text:
        depth += (char in "([{") - (char in ")]}")
        if char == " " and not depth:
            return f"({text})"
    return text


def split(name: str) -> tuple[str, str]:
    """Return the letter or word of a name, and its subscript: W_hf -> W, hf; h1 -> h, 1."""
    head, _, tail = name.partition("_")
    letters = head.rstrip("0123456789")
    if not letters:  # a name such as _1
        return name, ""
    return letters, head[len(letters) :] + tail


def _head(head: str) -> str:
    if GREEK.fullmatch(head):
        return rf"\{head}"
    return head if len(head) == 1 else rf"\mathrm{{{_escaped(head)}}}"


def _subscript(tail: str) -> str:
    if is_greek_subscript(tail):
        return rf"\{tail}"
    return tail if len(tail) <= LONGEST_ITALIC and tail.isalnum() else rf"\mathrm{{{_escaped(tail)}}}"


def is_greek_subscript(tail: str) -> bool:
    """Tell whether a subscript is the name of a Greek letter; two letters are two: W_xi is from x to i."""
    return len(tail) > 2 and GREEK.fullmatch(tail) is not None


def _escaped(name: str) -> str:
    return name.replace("_", r"\_")


def signed_sum(terms: Sequence[tuple[int, str]]) -> str:
    """Return a sum of signed terms as one text: (1, "a"), (-1, "b") -> a - b."""
    first, *rest = terms
    return ("-" if first[0] < 0 else "") + first[1] + "".join(f" {'-' if s < 0 else '+'} {text}" for s, text in rest)
