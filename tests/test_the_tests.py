"""How the tests are kept: PyTorch is asked for in one way, and what is left out is left out on purpose."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from chosen import CHOSEN

TESTS = Path(__file__).parent
ROOT = TESTS.parent
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
    for name in ("late_torch.py", "chosen.py"):
        (folder / name).write_text((TESTS / name).read_text(encoding="utf-8"), encoding="utf-8")
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


def _readme_commands(text: str) -> list[str]:
    spec = importlib.util.spec_from_file_location("readme_commands", ROOT / ".ci" / "readme_commands.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: list[str] = module.commands(text)
    return found


def test_ci_finds_the_commands_of_the_readme_as_they_stand() -> None:
    page = (
        "# x\n\n```console\n$ pip install . && gradcli simulate a.yaml \\\n    -T 100\nVANISHING\n```\npip install no\n"
    )
    page += "\n```sh\npip install '.[dev]' && pytest\npip install '.[dev]' && pytest\n```\n"
    assert _readme_commands(page) == [
        "pip install . && gradcli simulate a.yaml -T 100",
        "pip install '.[dev]' && pytest",
    ]


def test_the_readme_installs_and_tries_in_one_line_and_tests_in_another() -> None:
    found = _readme_commands((ROOT / "README.md").read_text(encoding="utf-8"))
    assert found == [
        "pip install . && gradcli simulate examples/configs/lstm.yaml -T 100",
        "pip install '.[dev]' && pytest",
    ]


def test_ci_runs_what_the_readme_says_before_there_is_torch() -> None:
    text = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    steps = ("python .ci/readme_commands.py", "pip install --quiet torch==", "pytest -m torch --no-skips", "ruff check")
    places = [text.index(step) for step in steps]
    assert places == sorted(places)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
@pytest.mark.parametrize("name", ["run", "quick", "sanitized"])
def test_shellcheck_finds_nothing_in_the_scripts_of_ci(name: str) -> None:
    done = subprocess.run(["shellcheck", str(ROOT / ".ci" / name)], capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("marker", CHOSEN)
def test_what_a_marker_chooses_is_there(marker: str) -> None:
    assert [name for name in CHOSEN[marker] if not (TESTS / name).exists()] == []
