"""The pictures of `gradcli jacobian`: singular values against distance, and the Lyapunov spectrum."""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from gradcli.diagnostics.curve import quantiles
from gradcli.diagnostics.layer_jacobian import JacobianFindings
from gradcli.numbers import log10_text, significant, steps_text
from gradcli.results.jacobian import full_state_of, log10_bounds, middle
from gradcli.results.pictures import Array, Axis, Gallery, Level, LineChart, Series
from gradcli.results.pictures_of_run import (
    DISTANCE,
    distances_of,
    lowest_of,
    run_words,
    threshold_levels,
    verdict_title,
)

_QUANTILES = (0.1, 0.9)


def pictures_of_jacobian(found: JacobianFindings) -> Gallery:
    """Return the pictures of `jacobian`."""
    return {"curve": partial(singular_values_picture, found), "lyapunov": partial(lyapunov_picture, found)}


def singular_values_picture(found: JacobianFindings) -> LineChart:
    """Return the largest, middle and smallest singular value against distance, and what the weights prove of them."""
    spectra, x = found.spectra, np.array(found.spectra.distances)
    largest = middle(spectra.largest)
    low, high = quantiles(spectra.largest.T, _QUANTILES) if len(spectra.largest) > 1 else (None, None)
    series = [
        Series("largest", x, largest, "mean", low, high, "largest, 10-90 % of the trials"),
        Series("median", x, middle(spectra.median)),
        Series("smallest", x, middle(spectra.smallest)),
        Series("Frobenius norm", distances_of(found.curve), found.curve, "reference"),
    ]
    bounds = log10_bounds(found)
    if np.isfinite(bounds).any():
        series.append(Series("proven bound of the largest", x, np.where(np.isposinf(bounds), np.nan, bounds), "bound"))
    last = len(found.curve) - 1
    levels = threshold_levels(found.network.spec.thresholds, 0.0, lowest_of(*(s.y for s in series)))
    return LineChart(
        "curve",
        _title(found),
        DISTANCE,
        Axis(f"singular values of {full_state_of(found)[1]}", log10=True),
        series,
        levels,
        (),
        f"{run_words(found.network)}; singular values below rounding are not drawn",
        f"The largest singular value has log10 {log10_text(float(largest[0]))} at distance 0 and"
        f" {log10_text(float(largest[-1]))} at distance {last}. {found.verdict.reason}",
    )


def _title(found: JacobianFindings) -> str:
    return verdict_title(found.network.loaded.label, found.verdict, len(found.curve) - 1)


def lyapunov_picture(found: JacobianFindings) -> LineChart:
    """Return the Lyapunov exponents, in their order, as points."""
    exponents: Array = found.lyapunov.typical
    count, leading = len(exponents), float(exponents[0])
    growing = int((exponents > 0).sum())
    words = "minus infinity" if math.isinf(leading) else f"{significant(leading, digits=4)} nats a step"
    if found.lyapunov.is_of_these_steps:
        words += f" over these {steps_text(found.lyapunov.steps)} only"
    return LineChart(
        "lyapunov",
        _title(found),
        Axis("exponent", "in descending order"),
        Axis("Lyapunov exponent", "nats a step"),
        [Series("median over trials", np.arange(1, count + 1), exponents, "points")],
        [Level(0.0, "neither grows nor falls")],
        (),
        f"{run_words(found.network)}; {count} of {found.lyapunov.size} exponents"
        + ("" if found.lyapunov.of_dynamics else " of the gradient, not of the dynamics"),
        f"The leading Lyapunov exponent is {words}; {growing} of {count} exponents are positive.",
    )
