"""How far a gradient, kept as mantissa and binary exponent, is from a reference in plain float64: relatively only."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Below this norm a plain float64 gradient has lost components to underflow: only the norms are compared.
PLAIN_EXACT = 1e-290
# Below this one the norm itself is no longer worth comparing.
PLAIN_NORM = 1e-300
# An exact zero of a plain gradient may stand for a true one of a log2 norm below this.
PLAIN_ZERO_LOG2 = -1000


def vector_error(mantissa: NDArray[Any], log2_scale: int, reference: NDArray[Any]) -> float | None:
    """Return ||g - g_ref|| / ||g_ref|| of g = mantissa * 2**log2_scale; None where float64 cannot hold the reference.

    Both are scaled to the mantissa's own exponent, so that nothing over- or underflows that is right.
    An exact zero is met by an exact zero only; a value that is not finite is infinitely wrong.
    """
    mantissa, reference = np.ravel(mantissa).astype(np.float64), np.ravel(reference).astype(np.float64)
    if not (np.all(np.isfinite(mantissa)) and np.all(np.isfinite(reference))):
        return np.inf
    norm = _norm(reference)
    if norm == 0.0:
        if not np.any(mantissa):
            return 0.0
        return None if np.log2(_norm(mantissa)) + log2_scale < PLAIN_ZERO_LOG2 else np.inf
    if not np.any(mantissa):
        return np.inf
    log2_ratio = np.log2(_norm(mantissa)) + log2_scale - np.log2(norm)
    if norm < PLAIN_EXACT:
        return None if norm < PLAIN_NORM else float(abs(np.expm1(np.clip(log2_ratio, -1e3, 1e3) * np.log(2.0))))
    if abs(log2_ratio) > 1:
        return float(abs(np.expm1(np.clip(log2_ratio, -1e3, 1e3) * np.log(2.0))))
    scaled = np.ldexp(reference, -log2_scale)
    return _norm(mantissa - scaled) / _norm(scaled)


def _norm(vector: Array) -> float:
    """Return the Euclidean norm, scaled before squaring."""
    largest = float(np.max(np.abs(vector), initial=0.0))
    if largest == 0.0:
        return 0.0
    exponent = int(np.frexp(largest)[1])
    return float(np.ldexp(np.linalg.norm(np.ldexp(vector, -exponent)), exponent))
