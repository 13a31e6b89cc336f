"""Equations pasted from a paper: which pieces of a line are LaTeX, and how each is written here."""

from __future__ import annotations

import re

#: By a command: what is written in its place; of any other it is its name, as of Greek letters and functions.
_COMMANDS = {
    **dict.fromkeys(("odot", "circ", "ast", "star"), "*"),
    **dict.fromkeys(("cdot", "times"), "* or @"),
    **dict.fromkeys(("top", "intercal"), ".T"),
    **dict.fromkeys(("frac", "dfrac", "tfrac"), "(a) / (b)"),
    **dict.fromkeys(("geq", "ge"), ">="),
    **dict.fromkeys(("leq", "le"), "<="),
    "sigma": "sigmoid",
    "otimes": "outer(a, b)",
    "ln": "log",
    "sqrt": "sqrt(a)",
    "sum": "sum(a) or W @ a",
    "gt": ">",
    "lt": "<",
}
#: Commands that only say how a formula looks.
_LOOKS = ("left", "right", "big", "Big", "bigl", "bigr", "Bigl", "Bigr", "quad", "qquad", "displaystyle")
_FONTS = "mathbf|mathrm|mathit|mathsf|mathcal|mathbb|boldsymbol|bm|textbf|textrm|textit|text|operatorname|vec"
_ACCENTS = "widetilde|tilde|widehat|hat|bar|overline|ddot|dot"
#: In this order: a name in a font or under an accent; a fraction; a transpose; any other command; a name with braces.
_PIECE = re.compile(
    rf"\\(?P<font>{_FONTS}|{_ACCENTS})\s*\{{(?P<name>\w+)\}}(?:\s*_\s*(?:\{{(?P<braced>[^{{}}]*)\}}|(?P<bare>\w)))?"
    r"|\\[dt]?frac\s*\{(?P<over>[^{}]*)\}\s*\{(?P<under>[^{}]*)\}"
    r"|(?P<transpose>\^\s*(?:\{\s*)?(?:\\top\b|\\intercal\b|\\mathsf\s*\{T\}|T(?=\s*\}))(?:\s*\})?)"
    r"|\\(?P<command>[A-Za-z]+|.|$)"
    r"|\b(?P<base>[A-Za-z]\w*?)_?\{(?P<index>[^{}]*)\}",
    re.MULTILINE,
)
_OF_TIME = r"\s*t\s*([-+]\s*\d+\s*)?"
_MOST_PIECES = 6


def pasted_latex(text: str) -> tuple[int, str] | None:
    """Return where an equation begins to be LaTeX, and how each piece of it is written; None where none is."""
    found = [(piece, plain) for piece in _PIECE.finditer(text) if (plain := _plain(piece)) is not None]
    if not found:
        return None
    position = found[0][0].start()
    pieces = {piece[0]: plain for piece, plain in found}
    if set(pieces) == {"\\"}:
        return position, "an equation goes over several lines inside brackets only, without '\\'"
    if len(pieces) == 1:
        ((piece, plain),) = pieces.items()
        return position, f"{piece} is written {plain}" if plain else f"leave {piece} out; an equation is no LaTeX"
    told = [f"{plain} for {piece}" for piece, plain in pieces.items() if plain][:_MOST_PIECES]
    left_out = [piece for piece, plain in pieces.items() if not plain][:_MOST_PIECES]
    advice = ["write " + ", ".join(told)] if told else []
    advice += ["leave out " + " ".join(left_out)] if left_out else []
    return position, f"an equation is no LaTeX: {'; '.join(advice)}"


def _plain(piece: re.Match[str]) -> str | None:
    """Return how a piece is written here, "" where it is left out; None for braces that hold no index."""
    if piece["base"]:
        return _indexed(piece["base"], piece["index"])
    if piece["name"]:
        is_accent = re.fullmatch(_ACCENTS, piece["font"])
        name = f"{piece['name']}_{piece['font'].removeprefix('wide')}" if is_accent else piece["name"]
        index = piece["braced"] or piece["bare"]
        return _indexed(name, index) if index else name
    if piece["over"] is not None:
        return f"({piece['over'].strip()}) / ({piece['under'].strip()})"
    if piece["transpose"]:
        return ".T"
    command = piece["command"]
    return "" if command in _LOOKS or not command.isalpha() else _COMMANDS.get(command, command)


def _indexed(name: str, index: str) -> str | None:
    """Return a name with an index: h[t-1] for h_{t-1}, W_hh for W_{hh}."""
    before, _, last = index.rpartition(",")
    if not re.fullmatch(_OF_TIME, last):
        before, last = index, ""
    words = re.findall(r"\w+", before)
    if not words and not last:
        return None
    return "_".join([name, *words]) + (f"[{''.join(last.split())}]" if last else "")
