"""What others read our output with: jq, pandas, a JSON Schema validator."""

from __future__ import annotations

import io
import json
import math
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from doc_snippets import CONFIGS
from in_process import gradcli

from gradcli.spec import examples, yaml12
from gradcli.spec.schema import spec_schema

SMALL = ("-T", "12", "--hidden-size", "3", "--trials", "2", "--batch-size", "2")
#: A run of each command with rows, and one with a gap: exact zeros, which have no logarithm.
COMMANDS = {
    "simulate": ("simulate", "lstm", *SMALL),
    "dead": ("simulate", str(CONFIGS / "nilpotent-shift.yaml")),
    "compare": ("compare", "lstm", "gru", "rnn", *SMALL),
    "jacobian": ("jacobian", "rnn", *SMALL),
    "contributions": ("contributions", "gru", *SMALL),
    "gates": ("gates", "lstm", *SMALL),
    "paths": ("paths", "lstm", *SMALL),
    "cells": ("cells",),
}
WITHOUT_ROWS = {"nonfinite": ("simulate", "rnn", *SMALL, "--set", "activation=exp", "--set", "init.W_hh=100")}


def output(name: str, kind: str) -> str:
    done = gradcli(*(COMMANDS | WITHOUT_ROWS)[name], "--format", kind)
    assert done.code == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_pandas_reads_the_csv(name: str) -> None:
    import pandas

    table = pandas.read_csv(io.StringIO(output(name, "csv")))
    assert len(table) > 1
    assert not any(str(column).startswith("Unnamed") for column in table.columns)
    assert not table.isna().all(axis=1).any()
    for column in table.columns:
        numbers = pandas.to_numeric(table[column], errors="coerce")
        assert numbers.dtype != object
        assert not numbers.isin([math.inf, -math.inf]).any(), column


def test_pandas_has_the_numbers_of_the_json() -> None:
    import pandas

    runs = json.loads(output("compare", "json"))["runs"]
    table = pandas.read_csv(io.StringIO(output("compare", "csv")))
    for run in runs:
        rows = table[table["label"] == run["label"]]
        assert list(rows["distance"]) == run["curve"]["distance"]
        assert list(rows["log10_norm_mean"]) == pytest.approx(run["curve"]["log10_norm_mean"], rel=1e-15)


@pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")
@pytest.mark.parametrize("name", COMMANDS | WITHOUT_ROWS)
def test_jq_reads_the_json(name: str, tmp_path: Path) -> None:
    text = output(name, "json")
    done = subprocess.run(["jq", "--compact-output", "."], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == json.loads(text)
    command = subprocess.run(["jq", "-r", ".command"], input=text, capture_output=True, text=True, check=True).stdout
    assert command.strip() == (COMMANDS | WITHOUT_ROWS)[name][0]


@pytest.fixture(scope="module")
def validator() -> Any:
    return jsonschema.Draft202012Validator(spec_schema())


@pytest.mark.parametrize("name", examples.names())
def test_every_example_is_valid_by_the_schema(name: str, validator: Any) -> None:
    data = yaml12.read((CONFIGS / f"{name}.yaml").read_bytes(), name).data
    assert [error.message for error in validator.iter_errors(data)] == []
    assert not validator.is_valid({**data, "seqlen": 1})
