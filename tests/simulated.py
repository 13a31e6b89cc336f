"""Runs ``gradcli simulate`` in this process, and reads what it printed and saved."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from in_process import gradcli
from numpy.typing import NDArray

Array = NDArray[np.float64]
SPEC_FILE = "spec.yaml"

ONE_SEQUENCE = {"batch_size": 1, "trials": 1}
"""A run whose quantiles are those of one number: the curve is that sequence's."""


@dataclass(frozen=True)
class Simulated:
    """One run: what the JSON says of it, and what ``--save`` wrote (nothing unless asked for)."""

    report: dict[str, Any]
    arrays: dict[str, NDArray[Any]]

    @property
    def verdict(self) -> dict[str, Any]:
        verdict: dict[str, Any] = self.report["verdict"]
        return verdict

    def curve(self, state: str | None = None) -> Array:
        """Return log10 of the norm by distance, (T+1,): the headline curve, or a state's; -inf is an exact zero."""
        where = self.report["curve"] if state is None else self.report["states"][state]
        return np.array([-np.inf if value is None else value for value in where["log10_norm"]])

    def log10_ratio(self, state: str | None = None) -> Array:
        """Return log10 of the norm relative to distance 0."""
        curve = self.curve(state)
        return np.asarray(curve - curve[0])

    def ratio(self, state: str | None = None) -> Array:
        """Return the norm relative to distance 0."""
        return np.asarray(10.0 ** self.log10_ratio(state))

    def parameter(self, name: str) -> float:
        """Return log10 of the norm of a parameter's gradient."""
        norm = self.report["parameters"][name]["log10_norm"]
        return -np.inf if norm is None else float(norm)


def simulate(spec: Mapping[str, Any], folder: Path, *options: str, save: bool = False) -> Simulated:
    """Write a spec to a file, simulate it, and return the one run that comes out. No remedies are tried."""
    spec_file, saved = folder / SPEC_FILE, folder / "run.npz"
    spec_file.write_text(json.dumps(spec), encoding="utf-8")
    saving = ["--save", saved] if save else []
    finished = gradcli("simulate", spec_file, "--format", "json", *saving, *options, remedies=False)
    assert finished.code == 0, finished.stderr
    report = finished.report()["runs"][0]
    if not save:
        return Simulated(report, {})
    with np.load(saved) as arrays:
        return Simulated(report, dict(arrays))


def table(folder: Path) -> str:
    """Return the table that is printed for the spec simulated last in a folder."""
    finished = gradcli("simulate", folder / SPEC_FILE)
    assert finished.code == 0, finished.stderr
    return finished.stdout
