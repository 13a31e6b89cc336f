"""A new built-in cell is one file and one script, without PyTorch; the tests over the zoo then take it in."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gradcli import cells

ROOT = Path(__file__).resolve().parents[1]
CELL = """\
name: thrown-away
title: A cell that is added to see what that takes
family: normalised
year: 2024
reference: Nobody 2024
notes: Two gates, a product with a gated state, and a normalisation.
equations: |
  z    = sigmoid(W_xz @ x[t] + W_hz @ h[t-1] + b_z)
  r    = hard_sigmoid(layer_norm(W_xr @ x[t] + W_cr @ c[t-1]) + b_r)
  c[t] = z * c[t-1] + (1 - z) * tanh(W_xc @ x[t] + W_hc @ (r * h[t-1]) + b_c)
  h[t] = r * softsign(c[t])
chrono: {b_z: 1}
init:
  "*": torch
"""


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clone")
    unused = shutil.ignore_patterns("__pycache__", "checkpoints", "bad_specs", "fuzz", "*.whl")
    for name in ("gradcli", "tests", "docs"):
        shutil.copytree(ROOT / name, folder / name, ignore=unused)
    for name in ("README.md", "CHANGELOG.md", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def in_clone(clone: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # Where PyTorch is installed it is hidden: the script is to do without.
    (clone / "hidden").mkdir(exist_ok=True)
    (clone / "hidden" / "torch.py").write_text("raise ImportError('hidden')\n", encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": f"{clone}{os.pathsep}{clone / 'hidden'}"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=clone, env=environment, capture_output=True, encoding="utf-8", check=False
    )


def test_one_file_and_one_script_are_all_it_takes(clone: Path) -> None:
    (clone / "gradcli" / "cells" / "thrown-away.yaml").write_text(CELL, encoding="utf-8")
    done = in_clone(clone, "tests/new_cell.py", "thrown-away")
    assert (done.returncode, done.stderr) == (0, "")
    assert "thrown-away: the engine agrees with complex steps to " in done.stdout
    assert (clone / "tests" / "fixtures" / "zoo-thrown-away.npz").is_file()
    page = (clone / "docs" / "cells.md").read_text(encoding="utf-8")
    of_family = page.partition("\n### normalised\n")[2].partition("\n### ")[0]
    assert "\n| `thrown-away` | A cell that is added to see what that takes | c[t] = z * c[t-1]" in of_family
    for page in ("README.md", "CHANGELOG.md"):
        text = " ".join((clone / page).read_text(encoding="utf-8").split())
        assert f"{len(cells.names()) + 1} built-in cells" in text
    files = ["tests/test_zoo.py", "tests/test_stored_runs.py", "tests/reference/test_complex_step.py"]
    tests = in_clone(clone, "-m", "pytest", *files, "-k", "thrown-away", "-m", "not torch", "-p", "no:cacheprovider")
    assert tests.returncode == 0, tests.stdout
    again = in_clone(clone, "tests/new_cell.py", "thrown-away")
    assert "a row was added" not in again.stdout


def test_what_is_wrong_with_the_file_is_said_and_nothing_is_stored(clone: Path) -> None:
    wrong = CELL.replace("thrown-away", "broken").replace("W_hz @ h[t-1]", "W_hz @ h[t+1]")
    (clone / "gradcli" / "cells" / "broken.yaml").write_text(wrong, encoding="utf-8")
    done = in_clone(clone, "tests/new_cell.py", "broken")
    (clone / "gradcli" / "cells" / "broken.yaml").unlink()
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("gradcli/cells/broken.yaml:8:"), done.stderr
    assert not (clone / "tests" / "fixtures" / "zoo-broken.npz").exists()


def test_a_cell_belongs_to_a_family(clone: Path) -> None:
    file = clone / "gradcli" / "cells" / "orphan.yaml"
    file.write_text(CELL.replace("thrown-away", "orphan").replace("family: normalised\n", ""), encoding="utf-8")
    done = in_clone(clone, "tests/new_cell.py", "orphan")
    file.unlink()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("gradcli/cells/orphan.yaml: family: say which it belongs to: plain, LSTM, GRU, ")


def test_a_name_without_a_file_is_refused(clone: Path) -> None:
    done = in_clone(clone, "tests/new_cell.py", "nowhere")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no built-in cell is called 'nowhere'" in done.stderr
    assert in_clone(clone, "tests/new_cell.py").returncode == 2
