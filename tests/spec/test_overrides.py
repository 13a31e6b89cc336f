"""Values from the command line in place of the spec's own."""

from __future__ import annotations

from typing import Any

import pytest
from reading import mistakes_in, spec_of

from gradcli.errors import SpecError
from gradcli.spec.models import Spec
from gradcli.spec.overrides import split_path
from gradcli.spec.reader import load_spec

FILE = """\
cell: {name: mine, equations: "h[t] = W @ h[t-1]"}
seq_len: 30
init: {W: {normal: 3}, V: {normal: {std: 1, mean: 2}}, U: zeros}
loss: {kind: mse, target: zeros}
clip: [{norm: 1}, {value: 2}]
"""


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("seq_len", ("seq_len",)),
        ("loss.at", ("loss", "at")),
        ("init.b_f", ("init", "b_f")),
        ("init.layer1.W_hh", ("init", "layer1.W_hh")),
        ("init.W_[xh]h", ("init", "W_[xh]h")),
        ("init.W_hh.spectral_radius", ("init", "W_hh", "spectral_radius")),
        ("init.layer1.W_hh.normal.std", ("init", "layer1.W_hh", "normal", "std")),
        ("init.normal", ("init", "normal")),
        ("cell.init.layer0.W*", ("cell", "init", "layer0.W*")),
        ("cell.init.W.zeros", ("cell", "init", "W", "zeros")),
        ("params.layer1.reverse.W_hh", ("params", "layer1.reverse.W_hh")),
        ("clip[0].norm", ("clip", "0", "norm")),
    ],
)
def test_paths(text: str, path: tuple[str, ...]) -> None:
    assert split_path(text) == path


@pytest.mark.parametrize(
    ("override", "field", "expected"),
    [
        ("init.b_f=1", "init", {"b_f": {"constant": 1.0}}),
        ("init.W_hh={spectral_radius: 0.9}", "init", {"W_hh": {"spectral_radius": 0.9}}),
        ("init.layer1.W_hh=orthogonal", "init", {"layer1.W_hh": {"orthogonal": 1.0}}),
        ("init.*=zeros", "init", {"*": "zeros"}),
        ("init.W_h*.normal.std=2", "init", {"W_h*": {"normal": {"std": 2.0, "mean": 0.0}}}),
        ("params.layer0.W=[[1, 2]]", "params", {"layer0.W": [[1, 2]]}),
        ("loss.at=every", "loss", {"kind": "mse", "at": "every"}),
        ("loss.kind=sum", "loss", {"kind": "sum"}),
        ("loss.target.normal.mean=1", "loss", {"kind": "mse", "target": {"normal": {"std": 1.0, "mean": 1.0}}}),
        ("input.std=1e-3", "input", {"kind": "normal", "std": 1e-3}),
        ("input.kind=one_hot", "input", {"kind": "one_hot"}),
        ("thresholds.exploding=10", "thresholds", {"exploding": 10.0}),
        ("clip=[{norm: 1}]", "clip", [{"norm": 1.0}]),
        ("clip[0].norm=3", "clip", [{"norm": 3.0}]),
        ("clip.0.value=3", "clip", [{"value": 3.0}]),
        ("h_0=zeros", "h_0", "zeros"),
        ("c_0.normal.std=2", "c_0", {"normal": {"std": 2.0, "mean": 0.0}}),
        ("cell=rnn", "cell", "rnn"),
        ("seq_len = 12", "seq_len", 12),
    ],
)
def test_a_field_is_set_over_its_default(override: str, field: str, expected: Any) -> None:
    assert load_spec("lstm", overrides=[override]).spec.model_dump(exclude_unset=True) == {
        "cell": "lstm",
        field: expected,
    }


@pytest.mark.parametrize(
    ("override", "field", "expected"),
    [
        ("init.W.normal.mean=1", "W", {"normal": {"std": 3.0, "mean": 1.0}}),
        ("init.V.normal.std=5", "V", {"normal": {"std": 5.0, "mean": 2.0}}),
        ("init.U.uniform.bound=2", "U", {"uniform": {"bound": 2.0, "mean": 0.0}}),
        ("init.V.uniform=2", "V", {"uniform": {"bound": 2.0, "mean": 0.0}}),
        ("init.V=zeros", "V", "zeros"),
    ],
)
def test_arguments_are_set_beside_those_of_the_file(override: str, field: str, expected: Any) -> None:
    assert spec_of(FILE, overrides=[override]).spec.model_dump()["init"][field] == expected


def test_a_bare_word_can_be_set_further() -> None:
    spec = load_spec("lstm", overrides=["loss=sum", "loss.at=every", "input=uniform", "input.high=2"]).spec
    assert spec.loss.model_dump() == {"kind": "sum", "at": "every", "reduction": "sum"}
    assert spec.input.model_dump() == {"kind": "uniform", "low": -1.0, "high": 2.0}


def test_the_rest_of_the_file_stays() -> None:
    changed = spec_of(FILE, overrides=["clip.1.value=5", "cell.output=h", "cell.name=yours"]).spec.model_dump()
    original = spec_of(FILE).spec.model_dump()
    assert changed["clip"] == [{"norm": 1.0}, {"value": 5.0}]
    assert changed["cell"] == original["cell"] | {"output": "h", "name": "yours"}
    assert {key: value for key, value in changed.items() if key not in ("clip", "cell")} == {
        key: value for key, value in original.items() if key not in ("clip", "cell")
    }


def test_precedence_is_option_then_file_then_default() -> None:
    assert load_spec("lstm").spec.seq_len == Spec.model_fields["seq_len"].default
    assert spec_of(FILE).spec.seq_len == 30
    assert spec_of(FILE, options={"seq_len": 40}).spec.seq_len == 40
    assert spec_of(FILE, overrides=["seq_len=50", "seq_len=60"]).spec.seq_len == 60


def test_an_option_replaces_a_mistake_of_the_file() -> None:
    assert spec_of("cell: lstm\nseq_len: ten\n", options={"seq_len": 10}).spec.seq_len == 10
    assert spec_of("cell: lstm\nloss: {kind: mse, at: never}\n", overrides=["loss.at=last"]).spec.loss.at == "last"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seq_len": 0}, "--seq-len: must be at least 1; got 0"),
        ({"hidden_size": 10**9}, "--hidden-size: must be at most 65,536; got 1000000000"),
        ({"clip": [{"norm": -1.0}]}, "--clip: clip[0].norm: must be greater than 0; got -1.0"),
        ({"clip": [{"norm": float("nan")}]}, "--clip: clip[0].norm: expected a finite number; got nan"),
        ({"seed": -1}, "--seed: must be at least 0; got -1"),
    ],
)
def test_a_mistake_in_an_option_names_the_option(options: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_spec("lstm", options=options)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("init.b_f=[1]", "init.b_f: expected a number; got [1]; exact values belong under `params:`"),
        ("init.W.normal.sdt=1", "init.W.normal.sdt: unknown key; known: std, mean; did you mean 'std'?"),
        ("seq_len=", "seq_len: expected a whole number; got nothing"),
        ("seq_len=.nan", "seq_len: infinity and NaN are not allowed; got .nan"),
        ("clip={a: 1, a: 2}", "clip: the key 'a' is given twice: first on line 1, again on line 1"),
        ("dtype=!!str x", "dtype: a tag (!!str) cannot stand in a spec; if a text is meant, quote it"),
        ("loss.at=[1, 500]", "loss.at[1]: must be a step from 1 to seq_len = 100; got 500"),
        ("hiden_size=3", "hiden_size: unknown key; did you mean 'hidden_size'?"),
        ("tied=no", "tied: expected true or false; got 'no'"),
        ("seq_len.x=1", "seq_len: holds no block, so nothing can be set in it; set seq_len as a whole"),
        ("clip[1].norm=1", "clip: has 1 entry, numbered from 0; none is '1'"),
        ("clip.x=1", "clip: has 1 entry, numbered from 0; none is 'x'"),
        (
            "cell.activation=relu",
            "cell.activation: the cell is the built-in 'lstm'; set `activation` at the top level of the spec instead",
        ),
        (
            "cell.output=c",
            "cell.output: the cell is the built-in 'lstm', which cannot be changed; only `activation` and `constants` "
            "can be set for it, at the top level of the spec",
        ),
    ],
)
def test_a_mistake_names_what_was_set(override: str, message: str) -> None:
    assert mistakes_in("cell: lstm\n", overrides=[override]) == [f"--set {override}: {message}"]


@pytest.mark.parametrize("override", ["", "seq_len", "=1", ".x=1", "a..b=1", "init.=1", "\udcff=1", "a\x1b=1"])
def test_what_is_no_path_and_value(override: str) -> None:
    (mistake,) = mistakes_in("cell: lstm\n", overrides=[override])
    assert mistake.startswith("--set ")
    assert mistake.endswith(": expected PATH=VALUE, such as init.b_f=1")
    assert mistake.isprintable()


def test_a_new_kind_keeps_what_the_file_says_and_reports_it() -> None:
    assert mistakes_in(FILE, overrides=["loss.kind=sum"]) == [
        "<stdin>:4:19: loss.target: unknown key; known: kind, at, reduction",
    ]


def test_mistakes_of_options_and_file_are_told_together() -> None:
    assert mistakes_in("cell: lstm\nseed: x\n", options={"trials": 0}, overrides=["a", "dtype=b"]) == [
        "--set a: expected PATH=VALUE, such as init.b_f=1",
        "--set dtype=b: dtype: expected 'float64' or 'float32'; got 'b'",
        "--trials: must be at least 1; got 0",
        "<stdin>:2:7: seed: expected a whole number; got 'x'",
    ]


def test_a_block_set_as_a_whole_takes_the_place_of_what_was_set_in_it() -> None:
    mistakes = mistakes_in("cell: lstm\n", overrides=["loss.at=never", "loss={kind: sum, at: now}"])
    assert len(mistakes) == 1
    assert mistakes[0].startswith("--set loss={kind: sum, at: now}: loss.at: expected")
