"""What people write who come from papers and frameworks, and how it is written in equations."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

_PRODUCT = "a product with a matrix is written W @ h[t-1], and one elementwise a * b"
_CONCATENATION = "a concatenation is a list in brackets: [h[t-1], x[t]]"
_CLIP = "clip(a, -1, 1) is hard_tanh(a), and other bounds are min(max(a, low), high)"
_OUTER = "a matrix of two vectors is outer(a, b), and a sum of products dot(a, b)"
_SMOOTH = "it has no gradient to follow"
_SPIKE = 'a step with the slope of a surrogate is spike(a, "atan", 2.0)'
_REMAINDER = "there are no remainders, which jump; sin(a) and cos(a) come round smoothly"
#: By the name of a function that there is not, in small letters: what stands in its place.
_INSTEAD = {
    **dict.fromkeys(("maximum", "fmax", "amax"), "it is called max here: max(a, b), or max(a) over the entries"),
    **dict.fromkeys(("minimum", "fmin", "amin"), "it is called min here: min(a, b), or min(a) over the entries"),
    **dict.fromkeys(("clip", "clamp", "hardtanh"), _CLIP),
    **dict.fromkeys(("matmul", "mm", "mv", "linear", "dense", "mul", "multiply"), _PRODUCT),
    **dict.fromkeys(("cat", "concat", "concatenate", "hstack", "vstack", "stack"), _CONCATENATION),
    **dict.fromkeys(("einsum", "inner", "vdot", "kron", "ger"), _OUTER),
    **dict.fromkeys(
        ("std", "var"), "layer_norm takes a mean off and divides by a standard deviation; mean(a) is a mean"
    ),
    **dict.fromkeys(("logsigmoid",), "it is called log_sigmoid here"),
    **dict.fromkeys(("l2_norm", "l2norm", "normalize", "normalise"), "a vector of length 1 is a / norm(a)"),
    **dict.fromkeys(("rms_norm", "rmsnorm"), "it is written a / sqrt(mean(a * a) + 1e-5)"),
    **dict.fromkeys(("detach", "stop_gradient", "no_grad"), "a gradient is stopped by stop(a)"),
    **dict.fromkeys(("eye", "identity_matrix"), "the identity matrix is written I"),
    "rsqrt": "it is written 1 / sqrt(a)",
    "log1p": "it is written log(1 + a)",
    "expm1": "it is written exp(a) - 1",
    "cosh": "it is written (exp(a) + exp(-a)) / 2",
    "sinh": "it is written (exp(a) - exp(-a)) / 2",
    "tan": "it is written sin(a) / cos(a)",
    **dict.fromkeys(("sign", "sgn"), "it has no gradient to follow; its value is where(a > 0, 1, -1)"),
    **dict.fromkeys(("inv", "inverse", "solve", "det", "svd", "eig"), "there is no such function of whole matrices"),
    **dict.fromkeys(("topk", "sort", "argmax", "argmin"), "max(a), min(a) and where(a > b, p, q) choose entries"),
    **dict.fromkeys(("cumax",), "it is written cumsum(softmax(a))"),
    **dict.fromkeys(("round", "floor", "ceil"), _SMOOTH),
    **dict.fromkeys(("heaviside", "step", "surrogate", "surrogates", "atan", "arctan"), _SPIKE),
    **dict.fromkeys(("mod", "fmod", "remainder"), _REMAINDER),
    **dict.fromkeys(("pow", "power", "square"), "a power is written a ** 2"),
    **dict.fromkeys(("logistic", "expit", "sigm", "sig"), "it is called sigmoid here"),
    **dict.fromkeys(("swish", "silu"), "it is called silu here"),
    "dropout": "gradients are measured without dropout; leave it out",
}
_CALL_OF_TIME = r"([A-Za-z_]\w*)\(\s*(t(?:\s*-\s*\d+)?)\s*\)"
#: A word in quotation marks, as a surrogate has them, or what an apostrophe stands behind.
_APOSTROPHE = r"'\w*'|([A-Za-z_]\w*(?:\[[^\[\]]*\])?|\))'"
_SEMICOLON = r"\[[^\]\[]*(?:\[[^\]]*\][^\]\[]*)*;"
#: Endings with which a name may mean a state, and what of it they mean.
_LAST = ("_prev", "_previous", "_old", "_last", "_tm1", "_t_1", "_t1")
_NOW = "_t"


def instead_of(function: str) -> str | None:
    """Return what stands in the place of a function that there is not; None where nothing is known of it."""
    return _INSTEAD.get(function.lower())


def index_of_time(text: str) -> tuple[int, str] | None:
    """Return where an index is written as a call, h(t), and how it is written here."""
    found = re.search(_CALL_OF_TIME, text)
    if found is None:
        return None
    return found.start(), f"{found[0]} is written {found[1]}[{found[2].replace(' ', '')}]"


def choice(text: str, word: str, position: int) -> str | None:
    """Return what to write for an `if` or `else` that stands behind a value; None where it would be a name."""
    before = text[:position].partition("=")[2].rstrip()
    if word not in ("if", "else") or not re.search(r"[\w)\]]\Z", before):
        return None
    told = "a choice between two values is where(a > b, p, q); there is no 'if'"
    if re.search(r"(?<![\w\[])t(?![\w\]])\s*[<>=!%]", text[position:]):
        told += ", and t has no value: count steps by a state of your own, n[t] = n[t-1] + 1"
    return told


def semicolon(text: str) -> tuple[int, str] | None:
    """Return where a concatenation is written with a semicolon, as papers do."""
    found = re.search(_SEMICOLON, text)
    return None if found is None else (found.end() - 1, "the parts of a concatenation are set apart by commas, not ';'")


def apostrophe_or_bar(text: str) -> tuple[int, str] | None:
    """Return where a transpose is written with an apostrophe, as MATLAB has it, or a norm between bars."""
    bar = text.find("|")
    if bar >= 0:
        return bar, "'|' is no operator; a norm is norm(a), a number, and what is taken entry by entry abs(a)"
    found = next((match for match in re.finditer(_APOSTROPHE, text) if match[1]), None)
    if found is None:
        return None
    what = "(...)" if found[1] == ")" else found[1]
    return found.start(1), f"the transpose is written with a point: {what}.T"


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
