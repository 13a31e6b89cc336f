"""The JSON Schema accepts what the reader accepts, and refuses what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from gradcli import cells
from gradcli.spec import yaml12
from gradcli.spec.models import CellBlock, Spec
from gradcli.spec.reader import load_spec
from gradcli.spec.schema import CELL_NOTES, DIALECT, SPEC_NOTES, spec_schema
from gradcli.spec.starter import starter_spec

ROOT = Path(__file__).parents[2]
GOOD = [
    "cell: lstm\n",
    "cell: rnn\nactivation: relu\nconstants: {alpha: 0.5}\nhidden_size: 3\nseed: 1\ndtype: float32\n",
    'cell: rnn\ninit: {"*": torch, W_hh: {orthogonal: {gain: 2}}, "W_x*": {normal: 1}, b_h: 1, W_xh: {uniform: {}}}\n',
    "cell: rnn\nparams: {W_hh: [[1, 2], [3, 4]], layer1.b_h: 2.5}\nh_0: {normal: {std: 2}}\nc_0: [1, 2]\nn_0: 3\n",
    "cell: rnn\ninput: {kind: uniform, low: 0}\nloss: {kind: mse, at: [1, 5], target: {values: [1, 2]}}\n",
    "cell: rnn\ninput: {kind: file, path: x.csv}\nloss: {kind: cross_entropy, classes: 3, target: [0, 2]}\n",
    "cell: rnn\ninput: {kind: file, path: x.npz, key: x, columns: [a, 2], scale: 0.5, stride: 3, reverse: true}\n",
    "cell: rnn\ninput: {kind: tokens, path: x, embedding: e, lengths: n}\nloss: {kind: mse, target: {file: y.npy}}\n",
    "cell: rnn\ninput: {kind: text, path: x, alphabet: ab}\n",
    "cell: rnn\ninput: {kind: file, path: x, lengths: [1]}\nloss: {kind: cross_entropy, target: {file: {path: y}}}\n",
    "cell: rnn\nloss: {kind: projection, at: every, vector: [1.0]}\nclip: [{norm: 1}, {step_norm: {threshold: 2}}]\n",
    "cell: rnn\nloss: {kind: mse, at: final, reduction: mean}\n",
    "cell: rnn\nloss: {kind: binary_cross_entropy, outputs: 3, target: [0, 1, 0.5]}\n",
    "cell: rnn\nloss: {kind: binary_cross_entropy, at: every, target: {file: {path: y.npz, key: y}}}\n",
    "cell: rnn\nloss: binary_cross_entropy\n",
    'cell: {equations: "h[t] = W @ h[t-1]", shapes: {W: [hidden, 2]}, chrono: {b: -1}, init: {W: zeros}}\n',
    'cell: rnn\nexpect: {verdict: stable, horizon: 14, peak: "0.9..1.1", finite: true, lyapunov: "<= -.5e-3"}\n',
    "cell: rnn\nexpect: {verdict: [dead, nonfinite], horizon: == 14, peak: < 1e3}\n",
]
BAD = [
    "{}\n",
    "cell: lsmt\n",
    "cell: {name: a}\n",
    "cell: lstm\nhidden_size: 0\n",
    "cell: lstm\nhiden_size: 1\n",
    "cell: lstm\ninitial_states: {h: zeros}\n",
    "cell: lstm\ninit: {b f: 1}\n",
    "cell: lstm\ninit: {b: ortogonal}\n",
    "cell: lstm\ninit: {b: {normal: {sdt: 1}}}\n",
    "cell: lstm\nh_0: {orthogonal: 1}\n",
    "cell: lstm\ninput: {kind: normal, low: 1}\n",
    "cell: lstm\ninput: {kind: file, path: x, columns: []}\n",
    "cell: lstm\ninput: {kind: file, path: x, lengths: [0]}\n",
    "cell: lstm\ninput: {kind: tokens}\n",
    "cell: lstm\nloss: {kind: mse, target: {file: {key: x}}}\n",
    "cell: lstm\nloss: {kind: mse, at: never}\n",
    "cell: lstm\nloss: {kind: mse, reduction: none}\n",
    "cell: lstm\nloss: {kind: sum, reduction: mean}\n",
    "cell: lstm\nloss: {kind: binary_cross_entropy, outputs: 0}\n",
    "cell: lstm\nclip: {norm: 1}\n",
    "cell: lstm\nthresholds: {vanishing: 2}\n",
    "cell: lstm\nexpect: {}\n",
    "cell: lstm\nexpect: {verdict: []}\n",
    "cell: lstm\nexpect: {verdict: fine}\n",
    "cell: lstm\nexpect: {rate_per_step: 0.9}\n",
    "cell: lstm\nexpect: {rate_per_step: == 0.9}\n",
    "cell: lstm\nexpect: {horizon: => 50}\n",
    "cell: lstm\nexpect: {horison: < 50}\n",
]


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    schema = spec_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return schema


def accepts(schema: dict[str, Any], text: str) -> bool:
    return jsonschema.Draft202012Validator(schema).is_valid(yaml12.read(text, "x.yaml").data)


@pytest.mark.parametrize("text", GOOD)
def test_good_specs_are_accepted(text: str, schema: dict[str, Any], tmp_path: Path) -> None:
    assert accepts(schema, text)
    (tmp_path / "x.yaml").write_text(text)
    spec = load_spec(str(tmp_path / "x.yaml")).spec
    assert accepts(schema, json.dumps(spec.model_dump()))


@pytest.mark.parametrize("text", BAD)
def test_bad_specs_are_refused(text: str, schema: dict[str, Any]) -> None:
    assert not accepts(schema, text)


@pytest.mark.parametrize("file", sorted((ROOT / "examples").rglob("*.yaml")), ids=lambda file: file.name)
def test_the_examples_are_accepted(file: Path, schema: dict[str, Any]) -> None:
    assert accepts(schema, file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", cells.names())
def test_starter_specs_are_accepted(name: str, schema: dict[str, Any]) -> None:
    assert accepts(schema, starter_spec(name))


def test_every_field_has_a_line_of_its_own(schema: dict[str, Any]) -> None:
    assert list(SPEC_NOTES) == list(Spec.model_fields)
    assert list(CELL_NOTES) == list(CellBlock.model_fields)
    assert schema["properties"]["hidden_size"]["description"] == SPEC_NOTES["hidden_size"]
    assert schema["properties"]["hidden_size"]["default"] == Spec.model_fields["hidden_size"].default


def test_the_schema_is_stable_plain_and_without_an_id(schema: dict[str, Any]) -> None:
    assert schema["$schema"] == DIALECT
    assert "$id" not in schema
    assert json.loads(json.dumps(schema, allow_nan=False)) == spec_schema()
    assert schema["properties"]["cell"]["anyOf"][0]["enum"] == cells.names()
