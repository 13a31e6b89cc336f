"""gradcli as a process of its own: exit code, standard output and standard error apart."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from processes import Run, command, environment


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a function that runs gradcli in an empty directory and returns the finished process."""

    def run_it(
        *arguments: object, fake: str | None = None, env: dict[str, str] | None = None, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        if "stdout" not in options:
            options |= {"stdout": subprocess.PIPE}
        return subprocess.run(
            command(*arguments, fake=fake),
            env=environment(**(env or {})),
            cwd=options.pop("cwd", tmp_path),
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            encoding="utf-8",
            timeout=60,
            check=False,
            **options,
        )

    return run_it
