"""Whether a contestant computes what the engine computes: checked before anything is timed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

RELATIVE_ERROR = 1e-9
#: Below it the squares of plain numbers leave the range of floats, and with them their norm; the engine's do not.
_PLAIN_RANGE = 1e-140


class DisagreementError(Exception):
    """A contestant gives other norms than the engine: its time would mean nothing."""


def require_agreement(name: str, theirs: Mapping[str, Array], ours: Mapping[str, Array]) -> None:
    """Compare norms by state, (T+1, B) each, relatively; below 1e-140 theirs need only be as small.

    Raises:
        DisagreementError: with the state and the step.
    """
    for state, found in theirs.items():
        expected = ours[state]
        comparable = expected > _PLAIN_RANGE
        error = np.where(comparable, np.abs(found - expected), np.where(found > 10 * _PLAIN_RANGE, np.inf, 0.0))
        wrong = ~(error <= RELATIVE_ERROR * expected + np.finfo(np.float64).tiny)
        if found.shape != expected.shape or wrong.any():
            step, sequence = np.argwhere(wrong)[0]
            raise DisagreementError(
                f"{name}: the norm of dL/d{state} at step {step}, sequence {sequence} is {found[step, sequence]};"
                f" the engine has {expected[step, sequence]}"
            )


def largest_difference(first: Mapping[str, Array], second: Mapping[str, Array]) -> float:
    """Return by how much log10 of two engines' norms, given as log2 by state, differ at most; a zero only meets zeros.

    >>> largest_difference({"h": np.array([1.0, -np.inf])}, {"h": np.array([3.0, -np.inf])})
    0.6020599913279624
    >>> largest_difference({"h": np.array([1.0, -np.inf])}, {"h": np.array([1.0, 0.0])})
    inf
    """
    found = 0.0
    for state, ours in first.items():
        theirs = second[state]
        with np.errstate(invalid="ignore"):  # two zeros
            difference = np.where(ours == theirs, 0.0, np.abs(ours - theirs))
        found = max(found, float(difference.max())) if np.isfinite(difference).all() else np.inf
    return float(found * np.log10(2.0))
