"""Loading a spec: what the target means, where problems point, and that only errors for people are raised."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import complaint_about, is_fit_to_print, mistakes_in, spec_of

import gradcli
from gradcli import cells
from gradcli.errors import ExitCode, GradcliError, InputFileError, Problem, UsageError
from gradcli.spec.models import CellBlock, Spec
from gradcli.spec.reader import load_spec

RICH = """\
cell:
  name: mine
  equations: |

      f    = sigmoid(W_f @ x[t])
      h[t] = f * h[t-1]
  output: h
  constants: {alpha: 0.1}
  shapes: {W_f: [hidden_size, 3]}
  init: {"*": {uniform: 0.2}}
seq_len: 30
dtype: float32
init:
  layer1.W_f: {normal: {std: 0.1, mean: 0.2}}
  "b*": 1
params: {b_f: [1, 2], W_f: 3}
h_0: {normal: 0.5}
c_0: [0.1, 0.2]
input: {kind: sine, period: 7}
loss: {kind: projection, at: [1, 30], vector: [1.0, 2.0]}
clip: [{norm: 1}, {step_value: {threshold: 0.5}}]
thresholds: {vanishing: 1e-4}
"""


# What the target means ----------------------------------------------------------------------------------------------


def test_a_bare_name_is_a_built_in_cell() -> None:
    loaded = load_spec("lstm")
    assert loaded.spec == Spec(cell="lstm")
    assert loaded.cell == cells.load("lstm").cell
    assert (loaded.label, loaded.folder) == ("lstm", Path())


def test_a_file_wins_over_a_cell_only_when_written_as_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("lstm", "lstm.yaml", "lstm.yml"):
        Path(name).write_text("cell: rnn\nseed: 7\n")
    assert load_spec("lstm").spec.cell == "lstm"
    for target in ("./lstm", "lstm.yaml", "lstm.yml", str(tmp_path / "lstm")):
        loaded = load_spec(target)
        assert loaded.spec == Spec(cell="rnn", seed=7)
        assert (loaded.label, loaded.source) == ("lstm", target)
    assert load_spec(str(tmp_path / "lstm")).folder == tmp_path


def test_standard_input() -> None:
    loaded = spec_of(b"cell: rnn\nseed: 3\n")
    assert (loaded.spec, loaded.label, loaded.source) == (Spec(cell="rnn", seed=3), "stdin", "<stdin>")


def test_an_unknown_cell_is_named_with_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        load_spec("lsmt")
    known = "no built-in cell is called 'lsmt'; did you mean 'lstm'? ('gradcli cells' lists them)"
    assert str(caught.value) == known
    Path("lsmt").write_text("cell: lstm\n")
    with pytest.raises(UsageError) as caught:
        load_spec("lsmt")
    assert str(caught.value) == f"{known}; to read the file, write ./lsmt"


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("none.yaml", "none.yaml: there is no such file"),
        ("./none", "./none: there is no such file"),
        ("./", "./: is a folder; expected a spec, a YAML file"),
        ("a\0.yaml", "a\\x00.yaml: is not the name of a file"),
        ("x/\x1b[2J.yaml", "x/\\x1b[2J.yaml: there is no such file"),
    ],
)
def test_a_file_that_cannot_be_read(target: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputFileError) as caught:
        load_spec(target)
    assert str(caught.value) == message
    assert caught.value.exit_code == ExitCode.INPUT_FILE


# What is read -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", [RICH, "cell: lstm\n", "cell: rnn\nh_0: zeros\nloss: {kind: cross_entropy, target: 3}\n"]
)
def test_a_dumped_spec_reads_back_equal(text: str) -> None:
    loaded = spec_of(text)
    assert spec_of(json.dumps(loaded.spec.model_dump())).spec == loaded.spec
    assert spec_of(yaml.safe_dump(loaded.spec.model_dump())).spec == loaded.spec
    assert Spec.model_validate(loaded.spec.model_dump()) == loaded.spec


def test_values_arrive_as_written() -> None:
    loaded = spec_of(RICH)
    assert isinstance(loaded.spec.cell, CellBlock)
    assert loaded.cell is loaded.spec.cell
    assert loaded.spec.thresholds.vanishing == 1e-4
    assert loaded.spec.thresholds.exploding == Spec(cell="rnn").thresholds.exploding
    assert list(loaded.spec.init) == ["layer1.W_f", "b*"]
    assert list(loaded.spec.initial_states) == ["h", "c"]


@pytest.mark.parametrize("name", cells.names())
def test_a_built_in_cell_reads_without_a_mistake(name: str) -> None:
    loaded = cells.load(name)
    assert loaded.cell.name == name
    assert loaded.cell.title
    assert loaded.cell.reference
    assert loaded.cell.init
    assert cells.load(name) is loaded


# Where problems point -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "line", "column"),
    [
        ("cell", 2, 3),
        ("cell.output", 7, 11),
        ("cell.shapes.W_f[1]", 9, 31),
        ("seq_len", 11, 10),
        ("init.layer1.W_f", 14, 15),
        ("init.layer1.W_f.normal.mean", 14, 41),
        ("init.b*", 15, 9),
        ("init.W_nowhere", 14, 3),
        (("params", "b_f", 1), 16, 19),
        (("params", "b_f", 9), 16, 15),
        ("loss.at[1]", 20, 34),
        ("loss.target", 20, 7),
        ("trials", 1, 1),
        (("init", "layer1.W_f", "normal"), 14, 24),
        (("clip", 1, "step_value"), 21, 32),
        ("", 1, 1),
    ],
)
def test_a_problem_points_at_the_value_or_its_nearest_ancestor(
    path: str | tuple[str | int, ...], line: int, column: int
) -> None:
    problem = spec_of(RICH).problem(path, "is wrong")
    assert (problem.source, problem.line, problem.column) == ("<stdin>", line, column)
    if isinstance(path, str):
        assert problem.path == path


def test_a_problem_of_a_built_in_cell_points_into_its_file() -> None:
    loaded = load_spec("lstm")
    problem = loaded.problem("cell.chrono.b_i", "is wrong")
    lines = cells.load("lstm").document.lines
    assert problem.source == "gradcli/cells/lstm.yaml"
    assert lines[problem.line - 1][problem.column - 1 :].startswith("-1}")
    assert loaded.problem("hidden_size", "is wrong") == Problem("built-in cell lstm", 0, 0, "hidden_size", "is wrong")


def test_a_problem_in_equations_points_into_the_file_of_the_spec() -> None:
    loaded = spec_of(RICH)
    assert loaded.cell.equations.split("\n")[2].index("h[t-1]") == 11
    assert loaded.problem_in_equations(3, 12, "m") == Problem("<stdin>", 6, 18, "cell.equations", "m")


def test_a_problem_in_equations_points_into_the_file_of_a_built_in_cell() -> None:
    loaded = load_spec("lstm")
    problem = loaded.problem_in_equations(5, 8, "m")
    assert (problem.source, problem.path) == ("gradcli/cells/lstm.yaml", "cell.equations")
    assert loaded.cell.equations.split("\n")[4][7:] == "f * c[t-1] + i * g"
    assert cells.load("lstm").document.lines[problem.line - 1][problem.column - 1 :] == "f * c[t-1] + i * g"


def test_a_problem_in_equations_from_the_command_line_names_the_option() -> None:
    loaded = spec_of(RICH, overrides=["cell.equations='h[t] = h[t-1] + q'"])
    expected = "--set cell.equations='h[t] = h[t-1] + q': cell.equations: line 1, column 17: m"
    assert str(loaded.problem_in_equations(1, 17, "m")) == expected


# Mistakes -----------------------------------------------------------------------------------------------------------


def test_a_value_that_yaml_refused_is_told_once() -> None:
    assert mistakes_in("cell: lstm\nlearning_rate: .inf\nseed: .nan\n") == [
        "<stdin>:2:16: learning_rate: infinity and NaN are not allowed; got .inf",
        "<stdin>:3:7: seed: infinity and NaN are not allowed; got .nan",
    ]


def test_long_and_hostile_values_are_shown_short_and_escaped() -> None:
    (mistake,) = mistakes_in(f"cell: lstm\ndtype: {'x' * 1000}\n")
    assert mistake.startswith("<stdin>:2:8: dtype: expected 'float64' or 'float32'; got 'xxx")
    assert len(mistake.partition("got ")[2]) == 60
    (mistake,) = mistakes_in('cell: lstm\ndtype: "\u202e\u00ad"\n')
    assert mistake.endswith("got '\\u202e\\xad'")


def test_the_branches_of_a_union_make_one_problem() -> None:
    assert mistakes_in("cell: {equations: h, shapes: {W: [[1]]}}\nloss: {kind: sum, at: {a: 1}}\n") == [
        "<stdin>:1:35: cell.shapes.W[0]: expected a whole number or a name; got [1]",
        "<stdin>:2:23: loss.at: expected 'last' or 'final' or 'every' or a list of whole numbers; got {a: 1}",
    ]


def test_keys_that_look_like_pydantics_own_labels() -> None:
    mistakes = mistakes_in(
        'cell: lstm\n"[key]": 1\ninit: {"[key]": ortho, "list[any]": {torch: 1}}\nparams: {float: x}\n'
    )
    assert [mistake.partition(";")[0] for mistake in mistakes] == [
        "<stdin>:2:1: [key]: unknown key",
        "<stdin>:3:17: init.[key]: no initialiser is called 'ortho'",
        "<stdin>:3:37: init.list[any]: torch takes no arguments",
        "<stdin>:4:17: params.float: expected a number or a list",
    ]


def test_the_names_of_cells_need_no_models() -> None:
    code = "import sys; from gradcli import cells; assert cells.names(); print(*sys.modules)"
    root = Path(gradcli.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert not {"pydantic", "yaml", "numpy"} & set(done.stdout.split())


FIELDS = st.sampled_from(
    [*Spec.model_fields, *CellBlock.model_fields, "h_0", "kind", "at", "target", "normal", "std", "é\n"]
)
WORDS = st.sampled_from(
    ["lstm", "orthogonal", "mse", "cross_entropy", "uniform", "last", "zeros", "normal", "a b", "", "[key]"]
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | WORDS
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS | WORDS, inner, max_size=4),
    max_leaves=10,
)


@settings(deadline=None)
@given(st.dictionaries(FIELDS, VALUES, max_size=5), st.lists(st.tuples(FIELDS, FIELDS | WORDS, VALUES), max_size=2))
def test_no_data_raises_anything_but_errors_for_people(data: dict[str, Any], sets: list[tuple[str, str, Any]]) -> None:
    overrides = [f"{first}.{second}={json.dumps(value)}" for first, second, value in sets]
    assert is_fit_to_print(complaint_about(lambda: spec_of(json.dumps(data), overrides=overrides)))


@settings(deadline=None)
@given(st.text(), st.lists(st.text(), max_size=2))
def test_no_text_raises_anything_but_errors_for_people(text: str, overrides: list[str]) -> None:
    for target in (text, f"cell: lstm\n{text}"):
        with pytest.raises(GradcliError):
            spec_of(f"{target}\nno_such_key: 1\n", overrides=overrides)
