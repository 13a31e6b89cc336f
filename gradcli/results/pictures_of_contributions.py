"""The pictures of `gradcli contributions`: the terms of the gradient against distance, and truncated BPTT."""

from __future__ import annotations

from functools import partial

import numpy as np

from gradcli.diagnostics.contributions import TOLERANCES, Contributions, Terms
from gradcli.numbers import percent
from gradcli.results.contributions import truncation_words
from gradcli.results.pictures import Axis, Gallery, Level, LineChart, Mark, Series
from gradcli.results.pictures_of_run import DISTANCE, distances_of, run_words, without_curve

#: Of more parameters, those with the largest gradients are drawn.
_MOST_PARAMETERS = 4
_SHARE = Axis("share of the gradient")


def pictures_of_contributions(found: Contributions) -> Gallery:
    """Return the pictures of `contributions`."""
    return {
        "curve": partial(contributions_picture, found),
        "shares": partial(shares_picture, found),
        "truncation": partial(truncation_picture, found),
    }


def contributions_picture(found: Contributions) -> LineChart:
    """Return the norm of each step's term of the gradient, of all parameters and of each, beside the state curve."""
    terms = found.joint
    if terms is None or found.state_curve is None:
        return _nothing("curve", found)
    x = distances_of(terms.log10_norm)
    series = [Series("all parameters", x, terms.log10_norm, "mean")]
    parameters = found.parameters or {}
    largest = sorted(parameters, key=lambda name: -parameters[name].log10_total)[:_MOST_PARAMETERS]
    if len(parameters) > 1:
        series += [Series(name, x, parameters[name].log10_norm) for name in largest]
    state = found.state_curve.mean[:-1]
    series.append(Series("state curve, mean of |dL/ds|", distances_of(state), state, "reference"))
    left_out = len(parameters) - len(largest)
    more = f"; {left_out} parameters with smaller gradients are not drawn" if left_out else ""
    return LineChart(
        "curve",
        _title(found, terms),
        DISTANCE,
        Axis("norm of the term", log10=True),
        series,
        (),
        _windows(terms, shift=1),
        f"{run_words(found.network)}{more}",
        f"Norms of the terms that the parameters' gradient is the sum of, against distance. {_sentence(found, terms)}",
    )


def shares_picture(found: Contributions) -> LineChart:
    """Return what share of the gradient each distance brings, and all up to it."""
    terms = found.joint
    if terms is None:
        return _nothing("shares", found)
    x = distances_of(terms.share)
    series = [
        Series("all up to this distance", x, terms.kept, "mean"),
        Series("this distance", x, terms.share, "median"),
    ]
    return LineChart(
        "shares",
        _title(found, terms),
        DISTANCE,
        _SHARE,
        series,
        [Level(1.0, "all of it"), Level(0.0, "nothing")],
        _windows(terms, shift=1),
        run_words(found.network),
        f"Projections of the terms on the whole gradient, which add up to 1. {_sentence(found, terms)}",
    )


def truncation_picture(found: Contributions) -> LineChart:
    """Return what truncated BPTT would miss, against its window."""
    terms = found.joint
    if terms is None:
        return _nothing("truncation", found)
    windows = 1 + distances_of(terms.bias)
    # What is left of rounding is no bias.
    with np.errstate(divide="ignore", invalid="ignore"):
        bias = np.log10(np.where(terms.bias < terms.rounding, np.nan, terms.bias))
        angle = np.log10(np.where(1.0 - terms.cosine < terms.rounding, np.nan, 1.0 - terms.cosine))
    series = [
        Series("relative bias |G_K - G| / |G|", windows, bias, "mean"),
        Series("1 - cosine of G_K and G", windows, angle, "other"),
    ]
    levels = [Level(float(np.log10(e)), percent(e)) for e in TOLERANCES]
    return LineChart(
        "truncation",
        _title(found, terms),
        Axis("window K of truncated BPTT", "steps"),
        Axis("error", log10=True),
        series,
        levels,
        _windows(terms, shift=0),
        f"{run_words(found.network)}; errors below rounding are not drawn",
        f"Error of the gradient by truncated BPTT against its window. {_sentence(found, terms)}",
    )


def _nothing(name: str, found: Contributions) -> LineChart:
    label = found.network.loaded.label
    if found.verdict is not None:
        return without_curve(name, f"{label}: nonfinite", found.network, found.verdict)
    return LineChart(
        name,
        f"{label}: no parameters",
        DISTANCE,
        _SHARE,
        [],
        subtitle=run_words(found.network),
        description="The layer has no parameters to train: there is no gradient to take apart.",
    )


def _title(found: Contributions, terms: Terms) -> str:
    words = truncation_words(found, terms) if terms.exists else "there is no gradient"
    return f"{found.network.loaded.label}: {words}"


def _sentence(found: Contributions, terms: Terms) -> str:
    if not terms.exists:
        return "Every term is exactly zero, or they cancel exactly: there is no gradient."
    return f"Truncated BPTT {truncation_words(found, terms)}."


def _windows(terms: Terms, shift: int) -> list[Mark]:
    """Return where the windows that keep the gradient end; at distance K - 1, where `shift` is 1."""
    windows = {e: terms.window(e) for e in TOLERANCES}
    return [Mark(window - shift, f"within {percent(e)}") for e, window in windows.items() if window is not None]
