"""Checkpoints for tests: how one is opened, how one is refused, and what it costs."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from gradcli.errors import ExitCode, GradcliError
from gradcli.weights.checkpoint import Array, Checkpoint
from gradcli.weights.formats import open_checkpoint

#: What a small file may take to be opened or refused.
SMALL = 4 << 20


def opened(path: Path) -> Checkpoint:
    return open_checkpoint(path, path.name)


def everything(path: Path) -> dict[str, Array]:
    """All tensors of a file."""
    with opened(path) as checkpoint:
        return {name: checkpoint.read(name) for name in checkpoint.tensors}


def ignored(path: Path) -> dict[str, str]:
    with opened(path) as checkpoint:
        return {each.name: each.reason for each in checkpoint.ignored}


def refusal(path: Path, code: ExitCode = ExitCode.INPUT_FILE, memory: int = SMALL) -> str:
    """Return the message that refuses a file, to be opened or read: one printable line, in little memory."""
    tracemalloc.start()
    try:
        everything(path)
    except GradcliError as error:
        refused = error
    else:
        raise AssertionError(f"{path.name} was accepted")
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < memory, f"{peak:,} bytes"
    text = str(refused)
    assert refused.exit_code == code, text
    assert text.startswith(f"{path.name}: ")
    assert text.isprintable()
    return text


def assert_same(found: Array, expected: Array) -> None:
    """The same numbers in the same shape, bit by bit."""
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def zipped(path: Path, entries: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


def resident(code: str, folder: Path) -> int:
    """Return the most memory in bytes that a process of its own has held while it ran `code`."""
    report = (
        "\nimport re, pathlib\n"
        "print(re.search(r'VmHWM:\\s+(\\d+) kB', pathlib.Path('/proc/self/status').read_text())[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code + report], cwd=folder, capture_output=True, text=True, check=True, timeout=60
    )
    return int(done.stdout.split()[-1]) * 1024
