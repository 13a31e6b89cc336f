"""What training in float32 would see, for people."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from gradcli.diagnostics.float32 import Float32
from gradcli.numbers import steps_text
from gradcli.results.model import Block, Line


def float32_lines(seen: Float32 | None) -> list[Block]:
    """Return what float32 shows that is not what the exact numbers show; nothing where all of it fits."""
    parts = [] if seen is None else [*_distances(seen), *_numbers(seen)]
    return [Line("; ".join(parts), "in float32", "warn")] if parts else []


def _distances(seen: Float32) -> list[str]:
    parts = []
    if seen.nonfinite_from is not None:
        parts.append(f"as training would see it the gradient is Inf or NaN from {steps_text(seen.nonfinite_from)} back")
    if seen.zero_from is not None:
        parts.append(f"as training would see it the gradient is exactly 0 from about {steps_text(seen.zero_from)} back")
    return parts


def _numbers(seen: Float32) -> list[str]:
    parts = ["the loss is not finite"] if seen.loss == "nonfinite" else []
    if seen.gradient == "nonfinite":
        of = _some([name for name, what in seen.parameters.items() if what == "nonfinite"], len(seen.parameters))
        return [*parts, f"so is the gradient of {of}, and with it the norm that clipping scales by"]
    zero = [name for name, what in seen.parameters.items() if what == "zero"]
    if zero:
        parts.append(f"the gradient of {_some(zero, len(seen.parameters))} is exactly 0")
    if seen.norm == "nonfinite":
        parts.append("the sum of squares overflows: the norm that clipping scales by is Inf, and nothing is left")
    elif seen.norm == "zero" and seen.gradient == "finite":
        parts.append("the squares vanish: the norm that clipping scales by is 0")
    return parts


def _some(names: Sequence[str], of: int) -> str:
    """Name some of the parameters; the layer only where it is not the first, as in a stack."""
    if len(names) == of:
        return "every parameter"
    names = [name.removeprefix("layer0.") for name in names]
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def float32_clipping(seen: Float32 | None, methods: Collection[str]) -> str:
    """Say what clipping would do to gradients that float32 cannot hold; "" where it holds them.

    Args:
        methods: those that are shown. The ones inside BPTT keep the gradient from growing so large.
    """
    if seen is None or not {"norm", "value"} & set(methods):
        return ""
    if seen.gradient == "nonfinite":
        return (
            "In float32 the gradients are Inf or NaN before they are clipped: clipping makes NaN of them, and so of the"
            " parameters and the loss. What is shown is what exact gradients would give."
        )
    if seen.norm == "nonfinite" and "norm" in methods:
        return (
            "In float32 the sum of squares overflows: clipping by a norm of Inf makes every gradient 0, and the step"
            " changes nothing. What is shown is what exact gradients would give."
        )
    return ""
