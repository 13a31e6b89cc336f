"""Sequences of different lengths: where each begins, and what does not go together with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gradcli.engine.step.plan import LayerPlan
from gradcli.errors import SpecError
from gradcli.spec.inputs import FileInput, TokensInput
from gradcli.spec.reader import LoadedSpec

Array = np.ndarray[Any, Any]


def require_lengths_fit(loaded: LoadedSpec) -> None:
    """Check, before anything is read, that nothing speaks against sequences of different lengths.

    Raises:
        SpecError: lengths beside something with which step t is not the same for all sequences but for when they begin.
    """
    spec = loaded.spec
    if not isinstance(spec.input, FileInput | TokensInput) or spec.input.lengths is None:
        return
    needed = None
    if not loaded.tied:
        needed = "the same weights at every step; leave out tied: false"
    elif loaded.input_at == "first":
        needed = "an input at every step; leave out input_at: first"
    if needed:
        message = f"sequences of different lengths begin at different steps, and need {needed}, or the lengths"
        raise SpecError([loaded.problem("input.lengths", message)])


def sequence_starts(loaded: LoadedSpec, lengths: Array | None, plans: Sequence[LayerPlan]) -> Array | None:
    """Return the step s_b = T - n_b after which each sequence begins, (B,); None where all begin after step 0.

    Args:
        loaded: the spec. lengths: n_b, (B,), or None where all have T steps. plans: of its layers.

    Raises:
        SpecError: lengths that do not go with the length of the run, its loss or its cell.
    """
    spec = loaded.spec
    if lengths is None or (lengths == spec.seq_len).all():
        return None
    longest, shortest = int(lengths.max()), int(lengths.min())
    starts = np.asarray(spec.seq_len - lengths, dtype=np.int64)
    last = spec.seq_len if isinstance(spec.loss.at, str) else max(spec.loss.at)
    found = []
    if longest != spec.seq_len:
        found.append(("seq_len", f"the longest sequence has {longest} steps; set seq_len to {longest}"))
    if any(plan.couples_sequences for plan in plans):
        message = "batch_norm takes its statistics over the sequences of a batch, which must then have one length"
        found.append(("cell", message))
    if last <= starts.max():
        message = f"step {last} is the last that counts, when a sequence of {shortest} steps has not begun"
        found.append(("loss.at", message))
    if found:
        raise SpecError([loaded.problem(path, message) for path, message in found])
    return starts
