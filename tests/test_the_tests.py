"""How the tests are kept: PyTorch is asked for in one way, and what is left out is left out on purpose."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
# Scripts that are run by hand, where PyTorch is installed.
BY_HAND = {TESTS / "checkpoints", TESTS / "fuzz"}
MODULES = sorted(path for path in TESTS.rglob("*.py") if path.parent not in BY_HAND)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(TESTS)))
def test_torch_is_asked_for_by_a_marker_and_imported_late(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    skips = re.findall(r"""importorskip\(\s*["'](torch|redone|late_torch|reference)\b""", text)
    assert skips == [], "mark the test with pytest.mark.torch, and take torch from late_torch"
    at_the_top = re.findall(r"(?m)^(?:import torch|from (?:torch|safetensors\.torch))\b.*", text)
    assert at_the_top == [], "from late_torch import torch"


NEEDING_TORCH = """
import pytest
from late_torch import torch


@pytest.mark.torch
def test_compared(): assert torch.ones(1).sum() == 1


def test_alone(): pass
"""


def _pytest(folder: Path, *arguments: str, torch: bool) -> subprocess.CompletedProcess[str]:
    """Run the tests of a folder under this one's conftest.py, with or without PyTorch."""
    (folder / "conftest.py").write_text((TESTS / "conftest.py").read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "test_it.py").write_text(NEEDING_TORCH, encoding="utf-8")
    (folder / "late_torch.py").write_text((TESTS / "late_torch.py").read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = torch\npythonpath = .\n", encoding="utf-8")
    hidden = "sys.modules['torch'] = None; importlib.util.find_spec = lambda name: None"
    shown = "sys.modules['torch'] = types.SimpleNamespace(ones=lambda n: types.SimpleNamespace(sum=lambda: n))"
    start = f"""
import importlib.util, sys, types
import pytest
{shown if torch else hidden}
if {torch}: importlib.util.find_spec = lambda name: object()
sys.exit(pytest.main({[*arguments, "-p", "no:cacheprovider", "-p", "no:xdist"]!r}))
"""
    return subprocess.run([sys.executable, "-c", start], cwd=folder, capture_output=True, encoding="utf-8", check=False)


def test_without_torch_its_tests_are_skipped_and_that_can_be_a_failure(tmp_path: Path) -> None:
    done = _pytest(tmp_path, torch=False)
    assert "1 passed, 1 skipped" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0
    strict = _pytest(tmp_path, "-m", "torch", "--no-skips", torch=False)
    assert "1 skipped" in strict.stdout
    assert "--no-skips, and 1 were skipped, such as test_it.py::test_compared" in strict.stdout
    assert strict.returncode == 1


def test_with_torch_none_is_skipped(tmp_path: Path) -> None:
    done = _pytest(tmp_path, "--no-skips", torch=True)
    assert "2 passed" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0
