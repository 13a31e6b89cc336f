"""What people write who come from papers and frameworks, and how it is written in equations."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

_PRODUCT = "a product with a matrix is written W @ h[t-1], and one elementwise a * b"
_CONCATENATION = "a concatenation stands right after '@': W @ [h[t-1], x[t]]"
_CLIP = "clip(a, -1, 1) is hard_tanh(a), and max(a, 0) is relu(a)"
_FEATURES = "sums and means over features are taken by layer_norm, batch_norm and softmax only"
_SMOOTH = "it has no gradient to follow"
#: By the name of a function that there is not, in small letters: what stands in its place.
_INSTEAD = {
    **dict.fromkeys(("max", "maximum", "fmax"), "max(a, 0) is relu(a), and max(a, b) is b + relu(a - b)"),
    **dict.fromkeys(("min", "minimum", "fmin"), "min(a, b) is b - relu(b - a)"),
    **dict.fromkeys(("clip", "clamp", "hardtanh"), _CLIP),
    **dict.fromkeys(("dot", "matmul", "mm", "mv", "einsum", "linear", "dense", "mul", "multiply"), _PRODUCT),
    **dict.fromkeys(("cat", "concat", "concatenate", "hstack", "vstack", "stack"), _CONCATENATION),
    **dict.fromkeys(("sum", "mean", "std", "var", "norm"), _FEATURES),
    **dict.fromkeys(("sign", "round", "floor", "ceil", "heaviside"), _SMOOTH),
    **dict.fromkeys(("pow", "power", "square"), "a power is written a ** 2"),
    **dict.fromkeys(("logistic", "expit", "sigm", "sig"), "it is called sigmoid here"),
    **dict.fromkeys(("swish", "silu"), "it is called silu here"),
    "transpose": "the transpose of W stands left of '@': W.T @ h[t-1]",
    "dropout": "gradients are measured without dropout; leave it out",
}
_BRACES = r"([A-Za-z]\w*?)_?\{\s*(t(?:\s*[-+]\s*\d+)?)\s*\}"
_CALL_OF_TIME = r"([A-Za-z_]\w*)\(\s*(t(?:\s*-\s*\d+)?)\s*\)"
_SEMICOLON = r"\[[^\]\[]*(?:\[[^\]]*\][^\]\[]*)*;"
#: Endings with which a name may mean a state, and what of it they mean.
_LAST = ("_prev", "_previous", "_old", "_last", "_tm1", "_t_1", "_t1")
_NOW = "_t"


def instead_of(function: str) -> str | None:
    """Return what stands in the place of a function that there is not; None where nothing is known of it."""
    return _INSTEAD.get(function.lower())


def index_of_time(text: str) -> tuple[int, str] | None:
    """Return where an index is written as in LaTeX or as a call, h_{t-1} or h(t), and how it is written here."""
    found = re.search(_BRACES, text) or re.search(_CALL_OF_TIME, text)
    if found is None:
        return None
    return found.start(), f"{found[0]} is written {found[1]}[{found[2].replace(' ', '')}]"


def semicolon(text: str) -> tuple[int, str] | None:
    """Return where a concatenation is written with a semicolon, as papers do."""
    found = re.search(_SEMICOLON, text)
    return None if found is None else (found.end() - 1, "the parts of a concatenation are set apart by commas, not ';'")


def state_meant(name: str, states: Collection[str], input_name: str) -> str | None:
    """Return how a value is written that a name without equation seems to mean: h[t-1] for h_prev, x[t] for x_t."""
    for ending in (*_LAST, _NOW):
        base = name.removesuffix(ending)
        if base != name and (base in states or (base == input_name and ending == _NOW)):
            return f"{base}[t]" if ending == _NOW else f"{base}[t-1]"
    return None


def no_state(names: Sequence[str]) -> tuple[str, str]:
    """Return which of the names that equations give is to become a state, where none is, and what to say there."""
    name = next((name for name in names if name.endswith(_NOW) and name != _NOW), None)
    if name is None:
        return names[-1], "no state: one line must give a value at t, such as h[t] = ..."
    base = name.removesuffix(_NOW)
    return name, f"{name} is a name like any other: write {base}[t] = ..., and {base}[t-1] for its last value"
