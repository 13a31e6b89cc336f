"""What Python's functions return is typed: a user's file passes mypy --strict, and a wrong attribute does not."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import gradcli
from gradcli.commands.command import COMMANDS

ROOT = Path(__file__).parent.parent
USER = Path(__file__).parent / "python_user.py"

#: As in a user's project: gradcli's own files are followed, not judged.
SETTINGS = f"""
[mypy]
strict = True
mypy_path = {ROOT}
cache_dir = cache
[mypy-gradcli.*]
follow_imports = silent
"""

WRONG = """
import gradcli

run = gradcli.simulate("lstm")
run.verdict.king
run.curve.log10_norms
run.curve.zero_from + 1
gradcli.gates("lstm").runs[0].activation
gradcli.gates("lstm").rates.rates
gradcli.jacobian("lstm").singular_values.largest
gradcli.paths("lstm").routes[0].shares[0].projection + 1
gradcli.contributions("lstm").joint.terms.bias
gradcli.compare(["lstm", "gru"]).ranking[0].reach
gradcli.inspect("model.pt").layers[0].hidden
gradcli.inspect("model.pt", spec="rnn").layers
gradcli.check(["a.yaml"]).files[0].check
gradcli.simulate("lstm", seq_length=3)
"""


def test_the_user_looks_at_every_function() -> None:
    tree = ast.parse(USER.read_text(encoding="utf-8"))
    called = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "gradcli"
    }
    assert called == {name for name, command in COMMANDS.items() if command.is_function} | {"GradcliError"}


def test_mypy_passes_the_user_and_finds_every_wrong_line(tmp_path: Path) -> None:
    (tmp_path / "settings.ini").write_text(SETTINGS, encoding="utf-8")
    (tmp_path / "user.py").write_text(USER.read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "wrong.py").write_text(WRONG, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", "settings.ini", "--no-pretty", "user.py", "wrong.py"],
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    found = [line for line in done.stdout.splitlines() if ": error: " in line]
    assert done.stderr == ""
    assert [line for line in found if not line.startswith("wrong.py:")] == []
    lines = WRONG.split("\n")
    wrong = {int(line.split(":")[1]) for line in found}
    assert wrong == {number for number, line in enumerate(lines, 1) if line.startswith(("run.", "gradcli."))}, (
        "\n".join(found)
    )


def test_the_user_runs(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(USER), str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(Path(gradcli.__file__).parent.parent)},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
