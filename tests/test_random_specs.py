"""Whatever a spec says, it runs or is refused in words: random equations, random edits of good ones, random YAML.

GRADCLI_FUZZ=5000 in the environment asks for so many examples of each.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from in_process import Finished, gradcli

from gradcli import cells
from gradcli.language.functions import ELEMENTWISE
from gradcli.spec.verdict_kinds import VERDICT_KINDS

EXAMPLES = int(os.environ.get("GRADCLI_FUZZ", "40"))
random_specs = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="GRADCLI_FUZZ" not in os.environ,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)

SIZES = {"hidden_size": 3, "input_size": 2, "seq_len": 6, "batch_size": 2, "trials": 2}


def check(spec: object) -> Finished:
    """Run a spec as JSON, which is YAML too: refused in words, or done with a whole report."""
    return check_text(json.dumps(spec))


def check_text(text: str) -> Finished:
    done = gradcli("simulate", "-", "--format", "json", "--quiet", stdin=text.encode("utf-8", "surrogatepass"))
    if done.code == 0:
        assert done.report()["runs"][0]["verdict"]["kind"] in VERDICT_KINDS
    else:
        assert done.refused(), done
    return done


# Equations whose names and sizes fit: most of them run.

NUMBERS = st.sampled_from(["0", "1", "2", "0.5", "1e-3", "3.7", "1e200", "1e-200"])
MATRICES = st.sampled_from(["W_hh", "U", "U.T", "(U - U.T)", "(a * U)", "-W_hh", "(U * V)", "sin(V)"])


def _larger(inner: SearchStrategy[str]) -> SearchStrategy[str]:
    return st.one_of(
        st.builds("({} {} {})".format, inner, st.sampled_from("+-*/"), inner),
        st.builds("({} ** {})".format, inner, st.sampled_from(["2", "3", "0.5", "-1", "-2.5", "b", "h[t-1]"])),
        st.builds("{}({})".format, st.sampled_from([*ELEMENTWISE, "phi"]), inner),
        st.builds("({} @ {})".format, MATRICES, inner),
        st.builds("(W_2 @ [{}, x[t]])".format, inner),
        st.builds("-{}".format, inner),
    )


LEAVES = ["h[t-1]", "h[t-1]", "c[t-1]", "h[t-2]", "(W_xh @ x[t])", "b", "b_2", "a", "g", "f"]
VECTORS = st.recursive(st.sampled_from(LEAVES) | NUMBERS, _larger, max_leaves=8)
FITTING = st.builds("g = tanh(b)\nf = {}\nc[t] = {}\nh[t] = {}\n".format, VECTORS, VECTORS, VECTORS)


@random_specs
@given(
    FITTING,
    st.sampled_from(["float64", "float32"]),
    st.integers(1, 2),
    st.booleans(),
    st.sampled_from(["last", "every", [2, 5]]),
)
def test_equations_whose_sizes_fit_run(equations: str, dtype: str, layers: int, both: bool, at: object) -> None:
    cell = {"equations": equations, "shapes": {"a": []}, "activation": "tanh"}
    layout = {"num_layers": layers, "bidirectional": both}
    spec = SIZES | layout | {"cell": cell, "dtype": dtype, "loss": {"kind": "mse", "at": at}}
    done = check(spec | {"input_size": 3})
    if "called 'a'" in done.stderr or "do not use phi" in done.stderr:
        del cell["shapes"], cell["activation"]
        check(spec)


# Equations of any words, and edits of good ones.

TOKENS = (
    "h c x t W W_hh b f phi tanh lambda h[t] h[t-1] c[t-1] x[t] x[t-1] = == + - * / ** @ ( ) [ ] , .T . : ; # ' { }"
    " 0 1 1e999 0.5 if else import \\ \N{LATIN SMALL LETTER E WITH ACUTE} \N{GREEK SMALL LETTER SIGMA} \N{MINUS SIGN}"
)
WORDS = st.sampled_from([*TOKENS.split(" "), "\n", "\n", "\n", " ", "\t", "9" * 50])
GOOD = st.sampled_from([cells.load(name).cell.equations for name in cells.names()])


@st.composite
def edited(draw: st.DrawFn, texts: SearchStrategy[str], words: SearchStrategy[str]) -> str:
    """Return a text after some deletions, insertions and repetitions."""
    text = draw(texts)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        stop = min(len(text), start + draw(st.integers(0, 12)))
        text = text[:start] + draw(st.just("") | words | st.just(text[start:stop] * 2)) + text[stop:]
    return text


@random_specs
@given(st.lists(WORDS, max_size=40).map(" ".join) | st.lists(WORDS, max_size=40).map("".join))
def test_equations_of_any_words(equations: str) -> None:
    check(SIZES | {"cell": {"equations": equations}})


@random_specs
@given(edited(GOOD, WORDS))
def test_edited_equations(equations: str) -> None:
    check(SIZES | {"cell": {"equations": equations}})


# Specs of any values.

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 5),
    st.sampled_from([10**6, 2**63, -(10**30), 0.0, 0.5, -1.5, 1e-300, 1e300, 1e308]),
    st.sampled_from(
        ["", "zeros", "orthogonal", "chrono", "normal", "next", "drawn", "every", "last", "h", "W_hh", "*", "["]
    ),
    st.text(max_size=6),
)
NAMES = st.sampled_from(
    ["W_hh", "W_*", "*", "b_h", "layer0.*", "layer1.W_hh", "[", "[!", "b_[h-a]", "readout.*", "?", ""]
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["norm", "std", "values", "uniform", "kind", "at", "gain"]), inner, max_size=2
        )
    ),
    max_leaves=6,
)
LAWS = st.sampled_from(
    ["zeros", "orthogonal", "identity", "chrono", "torch", "keras", "flax", "he_normal", "lecun_normal", 0, 1.5, -2]
) | st.sampled_from(
    [{"spectral_radius": 0.9}, {"spectral_radius": 0}, {"normal": 1e300}, {"uniform": {"bound": 1e-300}}, {"chrono": 3}]
)
EXACT = st.sampled_from([0, 1.5, [0, 1, 2], [[1, 0, 0], [0, 1, 0], [0, 0, 1]], [[1, 2, 3], [4, 5, 6]], [[[1]]]])
CLIPS = st.sampled_from([{"norm": 1e-300}, {"value": 1e300}, {"step_value": 1}, {"step_norm": 1e-9}])
THRESHOLDS = [{"vanishing": 1e-300}, {"exploding": 1e300}, {"vanishing": 0.999}, {"vanishing": 2}]
LOSSES = st.fixed_dictionaries(
    {"kind": st.sampled_from(["mse", "cross_entropy", "projection", "sum"])},
    optional={
        "at": st.sampled_from(["last", "every", [1], [6, 2], [7], []]),
        "target": st.sampled_from(["zeros", "normal", "next", "drawn", 0, 3, [0, 1], [1.0, 2.0, 3.0], 1e300]) | VALUES,
        "classes": st.integers(0, 5),
        "vector": st.sampled_from([[1, 2, 3], [0, 0, 0], [1e300] * 3, [1]]),
    },
)
INPUTS = st.fixed_dictionaries(
    {"kind": st.sampled_from(["zeros", "constant", "normal", "uniform", "sine", "one_hot", "file", "text"])},
    optional={
        "std": st.sampled_from([1, 1e-300, 1e300]),
        "value": st.sampled_from([0, 1e308, -1]),
        "low": st.sampled_from([-1e300, 0, 2]),
        "period": st.sampled_from([1, 1e-300, 1e300]),
        "path": st.sampled_from(["missing.csv", "missing.npy", "", "/dev/null", "..", "a\0b.csv", "x" * 5000]),
    },
)
FIELDS = {
    "init": st.dictionaries(NAMES, LAWS, max_size=3),
    "params": st.dictionaries(NAMES, EXACT | VALUES, max_size=2),
    "h_0": LAWS | EXACT,
    "input": INPUTS,
    "loss": LOSSES,
    "clip": st.lists(CLIPS, max_size=3),
    "thresholds": st.sampled_from(THRESHOLDS),
    "learning_rate": st.sampled_from([1e300, 1e-300, 0]),
    "num_layers": st.integers(0, 3),
    "bidirectional": st.booleans(),
    "activation": st.sampled_from(["relu", "exp", "identity", "nothing"]),
    "dtype": st.sampled_from(["float32", "float64", "float16"]),
    "seed": st.sampled_from([0, 2**63 - 1, -1]),
    "input_size": st.integers(0, 3),
    "seq_len": st.integers(0, 7),
}


@random_specs
@given(st.sampled_from(cells.names()), st.fixed_dictionaries({}, optional=FIELDS))
def test_specs_of_fitting_fields(cell: str, fields: dict[str, object]) -> None:
    check(SIZES | {"cell": cell} | fields)


@random_specs
@given(st.fixed_dictionaries({}, optional=dict.fromkeys(["cell", "shapes", *FIELDS], VALUES)))
def test_specs_of_any_values(fields: dict[str, object]) -> None:
    check(SIZES | {"cell": "rnn"} | fields)


RICH = (Path(__file__).parent / "bad_specs" / "several-everywhere.yaml").read_text(encoding="utf-8")
CHARACTERS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=3)


@pytest.mark.parametrize("name", ["lstm", "rnn"])
@random_specs
@given(data=st.data())
def test_edited_files(name: str, data: st.DataObject) -> None:
    cell = (Path(cells.__file__).parent / f"{name}.yaml").read_text(encoding="utf-8")
    block = "cell:\n" + "".join(f"  {line}\n" for line in cell.splitlines())
    good = block + "".join(f"{key}: {value}\n" for key, value in SIZES.items()) + "loss: {kind: sum}\nb_0: [1, 2]\n"
    check_text(data.draw(edited(st.sampled_from([good, RICH]), WORDS | CHARACTERS)))
