"""How many of the sequences have which kind of verdict, each judged by its own curve.

A mean over sequences may be ruled by a few of them. Sequence i has r_d = |g_d| / |g_1| of its own gradient, and with
the largest and the last of its ratios its kind (see `gradcli.diagnostics.curve_landmarks.kinds_from`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gradcli.diagnostics.curve import LOG10_2, joined
from gradcli.diagnostics.curve_landmarks import KINDS, ROUNDING, Landmarks, kinds_from
from gradcli.spec.verdict_kinds import VerdictKind

Array = np.ndarray[Any, Any]
_PART = 2**16


def shares_of(
    log2_norms: Sequence[Array], landmarks: Landmarks, starts: Array | None = None
) -> dict[VerdictKind, float]:
    """Return the share of the sequences of each kind; all of them add up to 1.

    A transient one that passes the exploding threshold counts as exploding.

    Args:
        log2_norms: for each state that the curve joins (T+1, R, B), by step t. landmarks: of the mean curve, which say
            what all are relative to, and the period of its alternation. starts: the step at which each sequence begins,
            (B,); None where all begin at 0.
    """
    count, trials, sequences = log2_norms[0].shape
    reference = count - 1 - landmarks.reference
    whole = range(reference + 1)
    peak = np.full((trials, sequences), -np.inf)
    steps = max(_PART // (trials * sequences), 1)
    for first in whole[::steps]:
        part = joined(norm[first : min(first + steps, reference + 1)] for norm in log2_norms)
        np.fmax(peak, np.fmax.reduce(part, axis=0), out=peak)
    start = joined(norm[reference] for norm in log2_norms)
    begins = np.zeros(sequences, np.int64) if starts is None else starts
    closing = _closing(log2_norms, begins, landmarks.period)
    dead = np.isneginf(closing)
    # Where a sequence has no gradient at the reference but one further back, it is relative to its largest.
    with np.errstate(invalid="ignore"):
        unit = np.where(np.isneginf(start) | np.isnan(start), peak, start)
        closing, peak = (closing - unit) * LOG10_2, (peak - unit) * LOG10_2
    below = closing < math.log10(landmarks.vanishing) - ROUNDING
    kinds = kinds_from(closing, peak, below, exploding=landmarks.exploding)
    exploded = peak >= math.log10(landmarks.exploding) - ROUNDING
    kinds = np.where((kinds == KINDS.index("transient")) & exploded, KINDS.index("exploding"), kinds)
    found: dict[VerdictKind, float] = {kind: float(np.mean(~dead & (kinds == i))) for i, kind in enumerate(KINDS)}
    return found | {"dead": float(np.mean(dead))}


def _closing(log2_norms: Sequence[Array], begins: Array, period: int) -> Array:
    """Return the largest log2 norm of each sequence over the last `period` distances that it reaches, (R, B)."""
    last = len(log2_norms[0]) - 1
    rows = np.arange(len(begins))
    found = np.full(log2_norms[0].shape[1:], -np.inf)
    for later in range(period):
        step = np.minimum(begins + later, last)
        np.fmax(found, joined(norm[step, :, rows].T for norm in log2_norms), out=found)
    return found


def largest_first(shares: Mapping[VerdictKind, float]) -> list[tuple[VerdictKind, float]]:
    """Return the kinds that there are, the most frequent first."""
    return sorted(((kind, share) for kind, share in shares.items() if share > 0), key=lambda item: -item[1])
