"""Builds the extension gradcli.engine.compiled._interpreter along with the wheel, where there is a C compiler.

Where there is none, or it fails, the wheel has no extension and one line says so: NumPy does its work. Environment:

CC: the compiler; else the one that Python was built with, else cc, gcc or clang.
CFLAGS, ARCHFLAGS: more options.
GRADCLI_REQUIRE_COMPILED=1: that it cannot be built is an error.
GRADCLI_NO_COMPILE=1: it is not built.

The extension is made for Python's stable ABI: one file for all versions from 3.11 on. An editable installation has it
beside its source, which git ignores; a wheel gets it from a folder of its own.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = Path("gradcli") / "engine" / "compiled"
NAME = "_interpreter.abi3.so"
#: No -ffast-math and no -march: infinities and NaN count, and the processor is looked at when the module is loaded.
FLAGS = ("-std=gnu11", "-fPIC", "-DNDEBUG", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast")
#: Nothing is thrown through C, so that tables to unwind its stack would only make the wheel larger.
SMALL_FLAGS = ("-fno-asynchronous-unwind-tables",)
CLANG_FLAGS = ("-O3",)
#: GCC's -O3 makes nothing faster that this does not, and takes half as long again.
GCC_FLAGS = ("-O2", "-ftree-vectorize", "-fvect-cost-model=dynamic")


class NotBuilt(Exception):
    """Why there is no extension, in a few words."""


class CustomBuildHook(BuildHookInterface[Any]):
    """Called by hatchling before it packs a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the extension, or say that there is none."""
        source = Path(self.root) / FOLDER
        editable = version == "editable"
        if editable:
            (source / NAME).unlink(missing_ok=True)  # of other source than this
        self._folder = tempfile.mkdtemp(prefix="gradcli-")
        target = Path(self._folder) / NAME
        try:
            build(source, target)
        except NotBuilt as reason:
            if os.environ.get("GRADCLI_REQUIRE_COMPILED") == "1":
                raise RuntimeError(f"gradcli's compiled interpreter could not be built: {reason}") from None
            self.app.display_warning(f"gradcli without its compiled interpreter: {reason}")
            return
        if editable:
            shutil.copy(target, source / NAME)
            return
        build_data["force_include"][str(target)] = (FOLDER / NAME).as_posix()
        build_data["pure_python"] = False
        build_data["tag"] = f"cp311-abi3-{platform()}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Take the folder of the extension away again."""
        shutil.rmtree(self._folder, ignore_errors=True)


def build(source: Path, target: Path) -> None:
    """Compile the extension from the folder `source` into the file `target`; raises NotBuilt."""
    if os.environ.get("GRADCLI_NO_COMPILE") == "1":
        raise NotBuilt("GRADCLI_NO_COMPILE is set")
    if sys.platform == "win32":
        raise NotBuilt("it is not built on Windows")
    compiler = _compiler()
    if compiler is None:
        raise NotBuilt("no C compiler was found")
    own_flags = shlex.split(os.environ.get("CFLAGS", ""))
    linked = ("-bundle", "-undefined", "dynamic_lookup") if sys.platform == "darwin" else ("-shared",)
    if sys.platform != "darwin" and "-g" not in own_flags:
        linked = (*linked, "-s")  # without the names that only a debugger reads
    command = [
        *compiler,
        *FLAGS,
        *SMALL_FLAGS,
        *(CLANG_FLAGS if _is_clang(compiler) else GCC_FLAGS),
        *own_flags,
        *shlex.split(os.environ.get("ARCHFLAGS", "")),
        *linked,
        f"-I{sysconfig.get_path('include')}",
        str(source / "interpreter.c"),
        "-o",
        str(target),
        "-lm",
    ]
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)
    except OSError as error:
        raise NotBuilt(f"{compiler[0]} cannot be run: {error.strerror}") from None
    if done.returncode:
        first = next((line for line in done.stderr.splitlines() if "error" in line), "")
        raise NotBuilt(f"{compiler[0]} failed. {first}".rstrip())


def _compiler() -> list[str] | None:
    """Return the command of a C compiler that is there."""
    given = os.environ.get("CC")
    wanted = [given] if given else [sysconfig.get_config_var("CC") or "", "cc", "gcc", "clang"]
    for command in map(shlex.split, wanted):
        if command and shutil.which(command[0]):
            return command
    return None


def _is_clang(compiler: list[str]) -> bool:
    """Tell whether a compiler is Clang, under whatever name; what cannot be run is none."""
    try:
        said = subprocess.run(
            [*compiler, "--version"], capture_output=True, encoding="utf-8", errors="replace", check=False
        )
    except OSError:
        return False
    return "clang" in said.stdout


def platform() -> str:
    """Return the platform of a wheel's name, such as linux_x86_64."""
    return sysconfig.get_platform().replace("-", "_").replace(".", "_")
