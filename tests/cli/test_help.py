"""Help texts: the defaults that hold, flags without a type, examples on one line, and where the documentation is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from processes import Run

from gradcli.cli import COMMANDS
from gradcli.cli.help import EXAMPLE_WIDTH
from gradcli.spec.models import Spec

NAMES = list(COMMANDS)
OF_SPEC = {
    "--seq-len": "seq_len",
    "--hidden-size": "hidden_size",
    "--input-size": "input_size",
    "--batch-size": "batch_size",
    "--trials": "trials",
    "--seed": "seed",
}


@pytest.mark.parametrize("name", ["simulate", "compare", "jacobian", "paths", "contributions", "gates"])
def test_options_of_the_spec_show_the_defaults_of_the_spec(run: Run, name: str) -> None:
    text = run(name, "--help", env={"COLUMNS": "160"}).stdout
    for option, field in OF_SPEC.items():
        row = next(line for line in text.splitlines() if f" {option} " in line)
        assert f"[default: {Spec.model_fields[field].default}]" in row
    if "--clip" in text:
        (clip,) = Spec(cell="rnn").clip
        assert f"[default: norm={clip.threshold:g}]" in text
    assert "In place of the spec's values, which come before these defaults" in text


@pytest.mark.parametrize("name", [None, *NAMES])
def test_flags_have_no_type_and_the_documentation_is_named(run: Run, name: str | None) -> None:
    text = run(*([] if name is None else [name]), "--help").stdout
    assert "bool" not in text.lower()
    assert "(the spec's)" not in text
    root = Path(__file__).parents[2]
    named = re.findall(r"README\.md|docs/\w*(?:\.md)?", text.split("Documentation")[1])
    assert {"README.md", "docs/spec.md"} <= set(named)
    assert all((root / each).exists() for each in named)


@pytest.mark.parametrize("name", NAMES)
def test_examples_stand_on_one_line_of_a_terminal(run: Run, name: str) -> None:
    text = run(name, "--help", env={"COLUMNS": "80"}).stdout
    for example in COMMANDS[name].examples:
        assert len(example) <= EXAMPLE_WIDTH
        assert example in [line.strip() for line in text.splitlines()]
