"""`gradcli check` in this process, on specs written for a test."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from in_process import Finished, gradcli

#: A run of a few milliseconds.
SMALL: Mapping[str, Any] = {"hidden_size": 4, "input_size": 2, "seq_len": 12, "batch_size": 2, "trials": 2}
#: A recurrence h = a h of one unit, whose every figure is known: r_d = a^(d-1).
LINE: Mapping[str, Any] = {
    "cell": {"name": "line", "equations": "h[t] = a * h[t-1] + 0 * (W @ x[t])"},
    "init": {"a": 0.5},
    "hidden_size": 1,
    "input_size": 1,
    "seq_len": 20,
    "batch_size": 1,
    "trials": 1,
    "loss": {"kind": "sum"},
}


def write(path: Path, expect: object = None, **spec: Any) -> Path:
    """Write a spec as JSON, which is YAML too; the name of its folder is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = {**SMALL, "cell": "rnn", **spec} | ({} if expect is None else {"expect": expect})
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def line(path: Path, factor: float, expect: object = None, **spec: Any) -> Path:
    """Write the spec of h = factor h."""
    return write(path, expect, **{**LINE, "init": {"a": factor}, **spec})


def check(*arguments: object) -> Finished:
    """Run the check in this process, one file after the other."""
    return gradcli("check", *arguments, "--jobs", "1")


def outcomes(*arguments: object) -> dict[str, dict[str, Any]]:
    """Return the checks of all files by their names."""
    report = check(*arguments, "--format", "json").report()
    return {one["name"]: one for file in report["files"] for one in file["checks"]}
