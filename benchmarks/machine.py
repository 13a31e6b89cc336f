"""What the figures were measured on: machine, versions, BLAS, and the environment's variables about it."""

from __future__ import annotations

import ctypes
import datetime
import os
import platform
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from benchmarks.engines import TITLES, missing, there
from gradcli import __version__

_VARIABLE_PREFIXES = ("OPENBLAS_", "MKL_", "OMP_", "VECLIB_", "GRADCLI_")


def facts(threads: int) -> list[tuple[str, str]]:
    """Return name and value of everything that a figure depends on."""
    return [
        ("date", datetime.datetime.now(datetime.UTC).date().isoformat()),
        ("processor", f"{_processor()}, {_cores()}"),
        ("memory", _memory()),
        ("system", f"{platform.system()} {platform.release()} ({_distribution()}), {platform.machine()}"),
        ("python", platform.python_version()),
        ("gradcli", __version__),
        ("engines", _engines()),
        *((name, _version(name)) for name in ("numpy", "torch", "jax")),
        ("BLAS of numpy", _blas()),
        ("threads", str(threads)),
        ("variables", _variables()),
    ]


def _engines() -> str:
    reason = missing()
    return ", ".join(TITLES[engine] for engine in there()) + ("" if reason is None else f"; {reason}")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _cores() -> str:
    total = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if sys.platform == "linux" else total
    return f"{total} cores" + (f", {usable} of them usable" if usable != total else "")


def _memory() -> str:
    if not hasattr(os, "sysconf"):
        return "unknown"
    return f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.1f} GiB"


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.version()


def _blas() -> str:
    config = np.show_config(mode="dicts")
    blas = config["Build Dependencies"]["blas"] if config else {}
    return f"{blas.get('name', 'unknown')} {blas.get('version', '')}, kernels {_openblas_kernels() or 'unknown'}"


def _openblas_kernels() -> str | None:
    """Return the kernels that the OpenBLAS of a numpy wheel runs, such as Haswell; None where there is none."""
    folder = Path(np.__file__).parent.with_name("numpy.libs")
    for path in folder.glob("*openblas*"):
        library = ctypes.CDLL(str(path))
        for name in ("scipy_openblas_get_corename64_", "openblas_get_corename64_", "openblas_get_corename"):
            with suppress(AttributeError):
                function = getattr(library, name)
                function.restype = ctypes.c_char_p
                return str(function().decode())
    return None


def _variables() -> str:
    found = {name: value for name, value in sorted(os.environ.items()) if name.startswith(_VARIABLE_PREFIXES)}
    found.setdefault("OPENBLAS_CORETYPE", "(unset)")
    return ", ".join(f"{name}={value}" for name, value in sorted(found.items()))
