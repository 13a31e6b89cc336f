"""What equations may call: which functions there are, what each takes, and what to write where there is none."""

from __future__ import annotations

import ast
from typing import NamedTuple

from gradcli.errors import did_you_mean
from gradcli.language.across import ACROSS
from gradcli.language.functions import ELEMENTWISE
from gradcli.language.habits import instead_of
from gradcli.language.ranks import VECTOR


class Takes(NamedTuple):
    """How many arguments a function takes, in words, and which rank these have; None where any will do."""

    counts: tuple[int, ...]
    what: str
    rank: int | None = None


#: What equations may call beside functions of one value: of several values, of all entries, or of another shape.
TAKES = {
    "outer": Takes((2,), "two vectors: outer(a, b)", VECTOR),
    "diag": Takes((1,), "a vector: diag(a)", VECTOR),
    "dot": Takes((2,), "two vectors: dot(a, b)", VECTOR),
    "sum": Takes((1,), "a vector or a matrix: sum(a)"),
    "mean": Takes((1,), "a vector or a matrix: mean(a)"),
    "norm": Takes((1,), "a vector or a matrix: norm(a)"),
    "max": Takes((1, 2), "two values, entry by entry, max(a, b), or the entries of one, max(a)"),
    "min": Takes((1, 2), "two values, entry by entry, min(a, b), or the entries of one, min(a)"),
    "cumsum": Takes((1,), "a vector: cumsum(a)", VECTOR),
    "where": Takes((), "a comparison and two values: where(a > b, p, q)"),
    "stop": Takes((1,), "one argument: stop(a)"),
    "spike": Takes((3,), 'a value, the name of a surrogate, and how steep it is: spike(a, "atan", 2.0)'),
}


#: Every function that equations may call, in the order in which messages list them.
CALLABLE = (*ELEMENTWISE, *ACROSS, *TAKES)


def no_function(name: str) -> str:
    """Return what to write in the place of a function that there is not."""
    if instead := instead_of(name):
        return f"no function is called {name}; {instead}"
    hint = did_you_mean(name, CALLABLE) or f"; functions: {', '.join(CALLABLE)}"
    return f"no function is called {name}{hint}"


def no_method(called: ast.expr) -> str:
    """Return what to write in the place of torch.tanh(a), a.detach() or surrogate.atan(a=2)(a)."""
    names = []
    while isinstance(called, ast.Attribute | ast.Call | ast.Subscript):
        if isinstance(called, ast.Attribute):
            names.append(called.attr)
        called = called.func if isinstance(called, ast.Call) else called.value
    if isinstance(called, ast.Name):
        names.append(called.id)
    if any(name in ("surrogate", "surrogates") for name in names):
        return no_function("surrogate")
    if not names:
        return "a value is no function; a product is written a * (...) or W @ (...)"
    return f"write {names[0]}(...), with nothing before it" if names[0] in CALLABLE else no_function(names[0])
