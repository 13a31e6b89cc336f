"""A new command is one file and one line, and a number of it is two places: where it is declared, where it is made.

Both are written into a copy of the package, and the command is then there for the command line, in every format, in the
help, and for Python.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gradcli

PACKAGE = Path(gradcli.__file__).parent

COMMAND = '''\
"""`gradcli widest`: the largest state of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from gradcli.commands.command import command
from gradcli.commands.options import RunOptions, Target
from gradcli.frozen import frozen
from gradcli.numbers import significant
from gradcli.results.declared import key, records_of, table_of
from gradcli.results.model import Report
from gradcli.results.result import Result


@frozen(kw_only=True)
class WidestState:
    """The largest state of one run."""

    label: str = key("its short name", title="run", text=True, keep=9)
    norm: float = key("the norm", title="largest norm", written=lambda norm: significant(norm, digits=4), keep=9)


@frozen(kw_only=True, repr=False)
class Widest(Result):
    """What `widest` found."""

    command = "widest"

    runs: Sequence[WidestState] = key("the run")


@command("gradcli widest lstm -T 100")
def widest(spec: Target, **options: Unpack[RunOptions]) -> Widest:
    """The largest norm that a state has, over all steps and sequences.

    Args:
        spec, options: as for `gradcli.simulate`.

    Raises:
        GradcliError: as for `gradcli.simulate`.
    """
    import numpy as np

    from gradcli.commands.loading import load
    from gradcli.diagnostics.measure import measure
    from gradcli.prepare.build import build
    from gradcli.prepare.resources import Resources

    may = Resources.of(options)
    loaded = load(spec, options)
    with may.computing_threads():
        run = measure(build(loaded, record=True, max_memory=may.max_memory), record=True).run
    assert run is not None and run.recording is not None  # as it was asked for
    norm = max(float(np.linalg.norm(states, axis=2).max()) for states in run.recording.states.values())
    found = [WidestState(label=loaded.label, norm=norm)]
    shown = Report("widest", [table_of(WidestState, found)], records=records_of(WidestState, found))
    return Widest(runs=found, shown=shown)
'''
LINE = "from gradcli.commands.widest import widest as widest\n"

SPEC = ("lstm", "-T", "8", "--hidden-size", "4", "--trials", "2", "--batch-size", "3")


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clone")
    shutil.copytree(PACKAGE, folder / "gradcli", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "gradcli" / "commands" / "widest.py").write_text(COMMAND, encoding="utf-8")
    with (folder / "gradcli" / "commands" / "__init__.py").open("a", encoding="utf-8") as file:
        file.write(LINE)
    return folder


def run(clone: Path, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=clone,
        env=os.environ | {"PYTHONPATH": str(clone), "NO_COLOR": "1", "COLUMNS": "100"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert (done.returncode, done.stderr.removeprefix("wrote arrays.npz\n")) == (0, "")
    return done.stdout


@pytest.fixture(scope="module")
def norm(clone: Path) -> float:
    """The largest norm, from the arrays that `simulate` saves."""
    run(clone, "-m", "gradcli", "simulate", *SPEC, "--save", "arrays.npz")
    with np.load(clone / "arrays.npz") as arrays:
        states = [arrays[name] for name in arrays.files if name.startswith("state.")]
    return max(float(np.sqrt(np.square(state).sum(axis=-1)).max()) for state in states)


def test_the_command_line_has_it_in_every_format(clone: Path, norm: float) -> None:
    lines = run(clone, "-m", "gradcli", "widest", *SPEC).splitlines()
    assert [line.split() for line in lines] == [["run", "largest", "norm"], ["lstm", f"{norm:.4g}"]]
    document = json.loads(run(clone, "-m", "gradcli", "widest", *SPEC, "--format", "json"))
    assert document["command"] == "widest"
    assert document["runs"] == [{"label": "lstm", "norm": pytest.approx(norm, rel=1e-12)}]
    (row,) = csv.DictReader(io.StringIO(run(clone, "-m", "gradcli", "widest", *SPEC, "--format", "csv")))
    assert (row["label"], float(row["norm"])) == ("lstm", document["runs"][0]["norm"])


def test_the_help_has_it(clone: Path) -> None:
    assert "widest" in run(clone, "-m", "gradcli", "--help")
    text = run(clone, "-m", "gradcli", "widest", "--help")
    for words in ("The largest norm that a state has", "--seq-len", "--set", "--format", "gradcli widest lstm -T 100"):
        assert words in text


def test_python_has_it(clone: Path, norm: float) -> None:
    program = (
        "import gradcli; print(gradcli.widest('lstm', seq_len=8, hidden_size=4, trials=2, batch_size=3).runs[0].norm)"
    )
    assert float(run(clone, "-c", program)) == pytest.approx(norm, rel=1e-12)
