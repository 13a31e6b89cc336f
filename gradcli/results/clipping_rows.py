"""What one clipping method does, as Python, the JSON and the table of `simulate` have it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradcli.frozen import frozen
from gradcli.numbers import CHOSEN, fraction, percent, power_of_ten, significant
from gradcli.results.declared import key
from gradcli.results.norm_curve import Curve, curve_fields

if TYPE_CHECKING:
    from gradcli.diagnostics.clipping import Clipped

_LOSS_DIGITS = 4


def method_text(clipped: Clipped | Clipping) -> str:
    """Return a method as it is asked for: norm 1."""
    return f"{clipped.method} {significant(clipped.threshold, CHOSEN)}"


def loss_text(loss: float | None) -> str:
    """Return a loss, or that it is not finite."""
    return "not finite" if loss is None else significant(loss, _LOSS_DIGITS)


def _scale(clipped: Clipped | Clipping) -> str:
    if clipped.scale is None:
        return "-"
    if clipped.scale == 0:  # it may be too small for a float
        return power_of_ten(clipped.log10_norm_after - clipped.log10_norm_before)
    return significant(clipped.scale, digits=3)


@frozen(kw_only=True)
class Clipping:
    """What one clipping method does; medians over trials."""

    method: str = key(
        "`norm`, `value`, `step_norm` or `step_value`",
        title="clipping",
        of_row=method_text,
        text=True,
        keep=9,
    )
    threshold: float = key("its threshold")
    log10_norm_before: float = key(
        "log10 of the norm of all parameter gradients", title="norm before", written=power_of_ten, keep=8
    )
    log10_norm_after: float = key("the same, clipped", title="after", written=power_of_ten, keep=8)
    scale: float | None = key("norm after / norm before", title="scale", of_row=_scale)
    cosine: float | None = key(
        "of the angle between the two gradients",
        title="cosine",
        written=fraction,
        missing="-",
    )
    fraction_clipped: float = key(
        "of the trials (`norm`), entries (`value`) or states (inside BPTT)", title="clipped", written=percent, keep=4
    )
    loss_before: float | None = key("the batch loss; null: not finite")
    loss_after_unclipped: float | None = key(
        "after one step of gradient descent",
        title="loss unclipped",
        written=loss_text,
        missing="not finite",
        keep=6,
    )
    loss_after_clipped: float | None = key(
        "after one step along the clipped gradient",
        title="loss clipped",
        written=loss_text,
        missing="not finite",
        keep=7,
    )
    curve: Curve | None = key("the curve as clipped, where the method changes it", csv=False, optional=True)


def clipping_row(found: Clipped) -> Clipping:
    """Return what a method does, as the JSON and Python have it."""
    return Clipping(
        method=found.method,
        threshold=found.threshold,
        log10_norm_before=found.log10_norm_before,
        log10_norm_after=found.log10_norm_after,
        scale=found.scale,
        cosine=found.cosine,
        fraction_clipped=found.fraction_clipped,
        loss_before=found.loss_before,
        loss_after_unclipped=found.loss_after_unclipped,
        loss_after_clipped=found.loss_after_clipped,
        curve=None if found.curve is None else Curve(**curve_fields(found.curve)),
    )
