"""Which law does the tail of a gradient curve follow: exponential, polynomial, level, or none of these?

All curves are log10 of a ratio, so that a law is a straight line over the right abscissa:

    exponential   log10 r = a + b d                  a constant factor 10**b a step
    polynomial    log10 r = a + p log10(d + d0)      a power of the distance, counted from the last step
                  log10 r = a - p log10(t + t0)      a power of the time t = T - d, counted from the beginning
    stretched     log10 r = a + b sqrt(d)            between the two; where it fits best, neither is claimed

The second polynomial is what a cell does while its state still settles: with h_t = tanh(h_(t-1)) the derivative
dh_t/dh_0 falls as t**(-3/2), hence dh_T/dh_t as (T/t)**(-3/2): slowly near the end, steeply near the beginning.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

from gradcli.frozen import frozen

Pattern = Literal["exponential", "polynomial", "flat", "mixed"]
Origin = Literal["end", "beginning"]
Floats = npt.NDArray[np.float64]
Distances = npt.NDArray[np.intp]

HEAD = 0.25
"""The share of the curve that is left out of the fit: its start is a transient of the loss and of the other states."""
MAX_POINTS = 400
"""More points do not move a line; fewer keep T = 1,000,000 as quick as T = 100."""
FLAT_CHANGE = math.log10(1.05)
"""A tail whose fitted line moves less than this is level, ..."""
FLAT_SCATTER = math.log10(1.5)
"""... as is one whose scatter about the line is below this and hides the line's own change."""
MAX_DRIFT = 1.5
"""How much the slope of the later half of a tail may differ (as a factor) from the earlier half's in an exponential."""
MIN_R2 = 0.95
"""The share of the variance that a law must explain to be named."""
MIN_R2_POWER = 0.985
"""The same for a power, which its free offset lets follow the bends of mere noise."""
MIN_R2_STEADY = 0.8
"""The same for a line with a steady slope, about which the curve oscillates."""
CLEARLY_BETTER = 0.5
"""Another law replaces the exponential when its residual is below this times the exponential's."""
CURVED_BETTER = 0.65
"""The same when the slope also drifts, so that the exponential is in doubt anyway."""
MIN_POINTS_LAW = 3
"""Two points lie on every line."""
MIN_POINTS_POLYNOMIAL = 6
"""Fewer points lie near every power with a free offset."""
STEEPEST_POWER = 4.0
"""A larger exponent, with its free offset, is an exponential that bends: nobody would call it a power."""
OFFSETS = 9
"""How many values of d0 and t0 to try, from 1 to a quarter of the span: beyond, a power looks like an exponential."""


@frozen
class TailFit:
    """The law of a curve's tail.

    log10_rate: slope of the least-squares line through the tail, in log10 per step, whatever the pattern.
    log10_end: the value at the last distance of the tail, of that line, or of the polynomial.
    exponent: p of the polynomial laws above, negative where the gradient falls; None for other patterns.
    origin: where the polynomial counts from: "end" (distance d) or "beginning" (time t); None for other patterns.
    offset: d0 or t0 of the polynomial, in steps. counted_from: the distance that d counts from.
    start, stop: first and last distance of the tail; points: how many of its distances were used.
    drift: slope of the later half over that of the earlier half; 1 for an exact exponential.
    has_trend: whether the line moves by more than the curve scatters about it.
    """

    pattern: Pattern
    log10_rate: float
    log10_end: float
    exponent: float | None
    origin: Origin | None
    offset: float
    counted_from: int
    start: int
    stop: int
    points: int
    drift: float
    has_trend: bool

    def law(self, distance: Distances, last: int) -> Floats:
        """Return log10 of the ratio by the law, at some distances of a curve that ends at `last`."""
        if self.exponent is None:
            return np.asarray(self.log10_end + self.log10_rate * (distance - self.stop))
        if self.origin == "end":
            count, at_end = distance - self.counted_from, self.stop - self.counted_from
        else:
            count, at_end = last - distance, last - self.stop
        slope = self.exponent if self.origin == "end" else -self.exponent
        return np.asarray(self.log10_end + slope * np.log10((count + self.offset) / (at_end + self.offset)))


def fit_tail(
    log10_ratio: Floats, *, first: int, settled: int | None = None, counted_from: int | None = None
) -> TailFit | None:
    """Fit the laws above to the tail of a curve and name the one that holds.

    log10_ratio: shape (T+1,), index = distance; -inf (an exact zero) is left out of the fit.
    first: the distance that the curve starts at. settled: fit from here on (after a hump), else from a quarter on.
    counted_from: the distance that polynomials are counted from; `first` unless given.
    Returns None where fewer than two distances are left.
    """
    distance = _tail_points(log10_ratio, first, settled)
    if distance.size < 2:
        return None
    y = log10_ratio[distance]
    line = _fit_line(distance.astype(np.float64), y)
    drift = _drift(distance, y)
    origin = first if counted_from is None else counted_from
    law = _name_law(distance - origin, log10_ratio.size - 1 - distance, y, line, drift)
    return TailFit(
        pattern=law.pattern,
        log10_rate=line.slope,
        log10_end=line.last if law.end is None else law.end,
        exponent=law.exponent,
        origin=law.origin,
        offset=law.offset,
        counted_from=origin,
        start=int(distance[0]),
        stop=int(distance[-1]),
        points=int(distance.size),
        drift=drift,
        has_trend=abs(line.change) > line.rms,
    )


@frozen
class _Line:
    """A least-squares line: its slope, its change over the points, its value at the last one, its residual's rms."""

    slope: float
    change: float
    last: float
    rms: float
    r2: float


@frozen
class _Power:
    """A line over the logarithm of a count of steps and an offset, from the end or from the beginning."""

    line: _Line
    origin: Origin
    offset: float

    @property
    def exponent(self) -> float:
        """Return p of the polynomial laws: negative where the gradient falls with distance."""
        return self.line.slope if self.origin == "end" else -self.line.slope


@frozen
class _Law:
    """The name of a law, and what a polynomial adds to it."""

    pattern: Pattern
    exponent: float | None = None
    origin: Origin | None = None
    offset: float = 0.0
    end: float | None = None


def _tail_points(log10_ratio: Floats, first: int, settled: int | None) -> Distances:
    """Return at most MAX_POINTS distances of the tail, evenly spread over those that are not exactly zero."""
    nonzero = np.flatnonzero(np.isfinite(log10_ratio[first:]))
    nonzero += first
    start = settled if settled is not None else first + int(HEAD * (nonzero[-1] - first))
    tail = nonzero[np.searchsorted(nonzero, start) :]
    if tail.size <= MAX_POINTS:
        return tail
    return tail[np.linspace(0, tail.size - 1, MAX_POINTS).round().astype(np.intp)]


def _fit_line(x: Floats, y: Floats) -> _Line:
    """Fit y = a + b x by least squares; both shape (points,), x with at least two distinct values."""
    u, v = x - x.mean(), y - y.mean()
    slope = float(u @ v) / float(u @ u)
    rms = float(np.sqrt(np.mean((v - slope * u) ** 2)))
    variance = float(np.mean(v**2))
    return _Line(
        slope=slope,
        change=slope * float(x[-1] - x[0]),
        last=float(y.mean() + slope * u[-1]),
        rms=rms,
        r2=1.0 - rms**2 / variance if variance > 0 else 1.0,
    )


def _drift(distance: Distances, y: Floats) -> float:
    """Return the slope of the later half of the points over that of the earlier half."""
    if distance.size < MIN_POINTS_LAW:
        return 1.0
    middle = distance.size // 2
    x = distance.astype(np.float64)
    early, late = _fit_line(x[: middle + 1], y[: middle + 1]).slope, _fit_line(x[middle:], y[middle:]).slope
    return late / early if abs(early) > abs(late) * 1e-9 else math.copysign(1e9, late)


def _name_law(steps: Distances, time: Distances, y: Floats, line: _Line, drift: float) -> _Law:
    """Name the law that y (shape (points,)) follows over the steps back or over the time since the beginning."""
    if line.rms <= FLAT_SCATTER and abs(line.change) <= max(FLAT_CHANGE, line.rms):
        return _Law("flat")
    steady = 1 / MAX_DRIFT <= drift <= MAX_DRIFT
    if steps.size < MIN_POINTS_LAW:
        return _Law("mixed")
    if steps.size < MIN_POINTS_POLYNOMIAL:
        return _Law("exponential" if steady and line.r2 >= MIN_R2_STEADY else "mixed")
    power = min(_fit_power(steps, y, "end"), _fit_power(time, y, "beginning"), key=lambda fit: fit.line.rms)
    stretched = _fit_line(np.sqrt(steps), y)
    if stretched.rms < CLEARLY_BETTER * min(line.rms, power.line.rms):
        return _Law("mixed")
    is_power = power.line.r2 >= MIN_R2_POWER and abs(power.exponent) <= STEEPEST_POWER
    if is_power and power.line.rms < (CLEARLY_BETTER if steady else CURVED_BETTER) * line.rms:
        return _Law("polynomial", power.exponent, power.origin, power.offset, power.line.last)
    return _Law("exponential" if line.r2 >= (MIN_R2_STEADY if steady else MIN_R2) else "mixed")


def _fit_power(count: Distances, y: Floats, origin: Origin) -> _Power:
    """Fit y = a + p log10(count + offset), with the offset that leaves the smallest residual."""
    span = int(count.max() - count.min())
    offsets = np.geomspace(1.0, max(1.0, span / 4), OFFSETS)
    fits = (_Power(_fit_line(np.log10(count + offset), y), origin, float(offset)) for offset in offsets)
    return min(fits, key=lambda fit: fit.line.rms)
