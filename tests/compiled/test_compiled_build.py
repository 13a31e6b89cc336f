"""The hook that builds the extension, and what becomes of the wheel where it can and where it cannot be built."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from gradcli.engine.compiled import table

ROOT = Path(__file__).resolve().parents[2]
HAS_COMPILER = any(map(shutil.which, ("cc", "gcc", "clang")))
TINY = """
#define Py_LIMITED_API 0x030B0000
#include <Python.h>
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, .m_name = "_interpreter", .m_doc = "built"};
PyMODINIT_FUNC PyInit__interpreter(void) { return PyModule_Create(&module); }
"""


def hook_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    for name in ("CC", "CFLAGS", "ARCHFLAGS", "GRADCLI_NO_COMPILE", "GRADCLI_REQUIRE_COMPILED"):
        monkeypatch.delenv(name, raising=False)
    return hook_module()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A project with a C source that is quickly compiled."""
    folder = tmp_path / "project" / "gradcli" / "engine" / "compiled"
    folder.mkdir(parents=True)
    (folder / "interpreter.c").write_text(TINY, encoding="utf-8")
    return folder


def run_hook(hook: ModuleType, source: Path, version: str) -> tuple[dict[str, Any], list[str], Any]:
    warnings: list[str] = []
    made = hook.CustomBuildHook.__new__(hook.CustomBuildHook)
    # What hatchling gives it, as far as it is used.
    made._BuildHookInterface__root = str(source.parents[2])
    made._BuildHookInterface__app = SimpleNamespace(display_warning=warnings.append)
    data: dict[str, Any] = {"force_include": {}, "pure_python": True, "tag": None}
    made.initialize(version, data)
    return data, warnings, made


def test_where_ci_demands_the_extension_it_is_there() -> None:
    if os.environ.get("GRADCLI_REQUIRE_COMPILED") == "1":
        assert table.WHY_NOT is None
    assert table.AVAILABLE == (table.WHY_NOT is None) == bool(table.OPERATIONS) == bool(table.LEVELS)


@pytest.mark.skipif(not HAS_COMPILER, reason="there is no C compiler")
def test_a_wheel_has_the_extension_and_says_for_what_it_is(hook: ModuleType, source: Path) -> None:
    data, warnings, made = run_hook(hook, source, "standard")
    ((built, place),) = data["force_include"].items()
    assert place == "gradcli/engine/compiled/_interpreter.abi3.so"
    assert data["tag"] == f"cp311-abi3-{hook.platform()}"
    assert data["pure_python"] is False
    assert warnings == []
    spec = importlib.util.spec_from_file_location("_interpreter", built)
    assert spec is not None
    assert importlib.util.module_from_spec(spec).__doc__ == "built"
    assert [path.name for path in source.iterdir()] == ["interpreter.c"]
    made.finalize("standard", data, "x.whl")
    assert not Path(built).exists()


@pytest.mark.skipif(not HAS_COMPILER, reason="there is no C compiler")
def test_an_editable_installation_has_it_beside_its_source(hook: ModuleType, source: Path) -> None:
    data, _, _ = run_hook(hook, source, "editable")
    assert (source / "_interpreter.abi3.so").exists()
    assert data == {"force_include": {}, "pure_python": True, "tag": None}


@pytest.mark.parametrize(
    ("setting", "word"),
    [
        ({"CC": "no-such-compiler"}, "no C compiler was found"),
        ({"GRADCLI_NO_COMPILE": "1"}, "GRADCLI_NO_COMPILE is set"),
        ({"CC": "false"}, "false failed."),
    ],
)
def test_without_it_a_wheel_is_for_every_platform_and_one_line_says_so(
    hook: ModuleType, source: Path, monkeypatch: pytest.MonkeyPatch, setting: dict[str, str], word: str
) -> None:
    for name, value in setting.items():
        monkeypatch.setenv(name, value)
    (source / "_interpreter.abi3.so").write_bytes(b"of an older source")
    data, warnings, _ = run_hook(hook, source, "editable")
    assert warnings == [f"gradcli without its compiled interpreter: {word}"]
    assert data == {"force_include": {}, "pure_python": True, "tag": None}
    assert not (source / "_interpreter.abi3.so").exists()
    monkeypatch.setenv("GRADCLI_REQUIRE_COMPILED", "1")
    with pytest.raises(RuntimeError, match=f"could not be built: {word}"):
        run_hook(hook, source, "standard")


@pytest.mark.skipif(not HAS_COMPILER, reason="there is no C compiler")
def test_a_compiler_that_fails_is_named_with_its_first_error(hook: ModuleType, source: Path) -> None:
    (source / "interpreter.c").write_text("#error of the test\n", encoding="utf-8")
    _, (warning,), _ = run_hook(hook, source, "standard")
    assert "failed. " in warning
    assert "#error of the test" in warning
    assert "\n" not in warning


def test_without_the_extension_programs_are_refused_and_nothing_else_fails(tmp_path: Path) -> None:
    script = """
import sys
sys.modules["gradcli.engine.compiled._interpreter"] = None
from gradcli.engine.compiled import table
assert not table.AVAILABLE
assert table.OPERATIONS == frozenset()
try:
    table.Program("d", [])
except ValueError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, encoding="utf-8", cwd=tmp_path, check=True
    )
    assert done.stdout.startswith("the compiled interpreter is not there: it was not built")
