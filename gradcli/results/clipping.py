"""What clipping would do, for people: a table of the methods, and sentences on whether they help."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gradcli.diagnostics.clipping import Clipped
from gradcli.diagnostics.measure import Measured
from gradcli.numbers import CHOSEN, percent, power_of_ten, significant
from gradcli.results.clipping_rows import Clipping, clipping_row, loss_text, method_text
from gradcli.results.declared import table_of
from gradcli.results.float32 import float32_clipping
from gradcli.results.model import Block, Line


def clip_blocks(measured: Measured) -> list[Block]:
    """Return the table of the clipping methods and what to make of it; nothing where none was asked for."""
    if not measured.clipped:
        return []
    rate = measured.network.spec.learning_rate
    note = (
        f"loss: {loss_text(measured.clipped[0].loss_before)} before, shown after one step of gradient descent"
        f" (learning rate {significant(rate, CHOSEN)})"
    )
    return [
        *table_of(Clipping, list(map(clipping_row, measured.clipped)), note=note),
        Line(clipping_sentences(measured)),
    ]


def clip_lines(measured: Measured) -> list[Block]:
    """Return what to make of clipping, in a sentence; nothing where it was not asked for."""
    if not measured.clipped:
        return []
    norms = "; ".join(f"{method_text(c)}: {_reached(c)}" for c in measured.clipped)
    return [Line(f"{norms}. {clipping_sentences(measured)}", "clipping", "dim")]


def _reached(clipped: Clipped) -> str:
    """Return whether a threshold is reached, beside the norm that it is a threshold on; of no number neither holds."""
    if math.isnan(clipped.log10_norm_before):
        return "the norm is not finite"
    share = clipped.fraction_clipped
    reached = "not reached" if share == 0 else "reached" if share == 1 else f"reached in {percent(share)}"
    return f"{reached} (norm {power_of_ten(clipped.log10_norm_before)})"


def clipping_sentences(measured: Measured) -> str:
    """Say what clipping can and cannot do here: about the curve, then about the step of gradient descent."""
    clipped = measured.clipped
    if all(math.isinf(c.log10_norm_before) for c in clipped):
        if not measured.parameters:
            return "The cell has no parameters to train: there is nothing to clip after BPTT."
        return "All parameter gradients are exactly zero: there is nothing to clip."
    if any(math.isnan(c.log10_norm_before) for c in clipped):
        return "The gradient of a parameter is not finite: clipping does not mend that."
    if in_float32 := float32_clipping(measured.float32, [c.method for c in clipped]):
        return in_float32
    changed = [c for c in clipped if c.fraction_clipped > 0]
    falls = measured.verdict.horizon_threshold is not None
    parts = [] if changed else ["No threshold is reached: clipping changes nothing here."]
    if falls:
        again = "" if changed else " in any case"
        smaller = all(c.log10_norm_after <= c.log10_norm_before for c in clipped)
        why = ": it only makes gradients smaller" if smaller else ""  # inside BPTT, terms may cancel less than before
        parts.append(f"Clipping cannot bring back what has vanished{again}{why}.")
    if changed:
        parts += [*([] if falls else [_about_the_curve(changed)]), _about_the_step(changed)]
    return " ".join(part for part in parts if part)


def _about_the_curve(changed: Sequence[Clipped]) -> str:
    inside = any(c.curve is not None for c in changed)
    after = any(c.curve is None for c in changed)
    if inside and after:
        return "After BPTT clipping leaves the curve as it is; inside it (step_norm, step_value) it caps each step."
    if inside:
        return "Clipping inside BPTT caps the gradient at each step, and so changes the curve."
    return "Clipping after BPTT leaves the curve as it is: it limits the step, not how the gradient flows."


def _about_the_step(changed: Sequence[Clipped]) -> str:
    """Compare the loss after a clipped step with that after the unclipped one, where either says something.

    An unclipped step overshoots where the loss ends above where it began; clipping helps where it then ends below.
    Losses are compared as they are shown: nothing is said of a difference that cannot be seen.
    """
    before, unclipped = changed[0].loss_before, changed[0].loss_after_unclipped
    if before is None:
        return "The loss itself is not finite."
    if unclipped is not None and not _is_above(unclipped, before):
        return ""
    after, best = min(
        ((c.loss_after_clipped, method_text(c)) for c in changed if c.loss_after_clipped is not None),
        default=(None, ""),
    )
    start = f"The unclipped step overshoots: {_change(before, unclipped)}"
    if after is None:
        return f"{start}, and clipping does not prevent it."
    if unclipped is not None and not _is_above(unclipped, after):
        return f"{start}, and clipping makes it no better."
    if _is_above(before, after):
        return f"{start}. Clipping helps: with {best} it is {loss_text(after)}."
    lasting = "still above where it began" if _is_above(after, before) else "where it began"
    return f"{start}. Clipped it is less bad: with {best} it is {loss_text(after)}, {lasting}."


def _is_above(loss: float, other: float) -> bool:
    """Tell whether a loss is above another one by more than the shown digits hide."""
    return loss > other and loss_text(loss) != loss_text(other)


def _change(before: float, after: float | None) -> str:
    if after is None:
        return f"the loss, {loss_text(before)} before, is not finite after it"
    return f"the loss goes from {loss_text(before)} to {loss_text(after)}"
