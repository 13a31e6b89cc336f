"""How numbers are written for people, in sentences and in tables alike."""

from __future__ import annotations

import math
from collections.abc import Sequence


def shape_text(shape: Sequence[int | str]) -> str:
    """Write the shape of an array: 64 x 32, 64, scalar."""
    return " x ".join(map(str, shape)) or "scalar"


def significant(value: float, digits: int) -> str:
    """Return a number to some digits, with a power of ten where it is below 1e-3 or not below 1e4.

    >>> significant(0.12345, 2), significant(1234.5, 2), significant(0.00012345, 2), significant(12345678.0, 4)
    ('0.12', '1234', '1.2e-04', '1.235e+07')
    """
    if value != 0 and not 1e-3 <= abs(value) < 1e4:
        return f"{value:.{digits - 1}e}"
    return f"{value:.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"


def power_of_ten(log10: float) -> str:
    """Return 10**log10 as text, however large or small: 0.15, 128, 5.9e-04, 10^-39487.0.

    >>> power_of_ten(math.log10(0.15)), power_of_ten(math.log10(128)), power_of_ten(-39487.0), power_of_ten(-math.inf)
    ('0.15', '128', '10^-39487.0', '0')
    """
    if math.isnan(log10):
        return "not finite"
    if math.isinf(log10):
        return "0"
    return f"10^{log10:.1f}" if abs(log10) >= 100 else significant(10.0**log10, digits=2)


def log10_text(value: float) -> str:
    """Return a log10 norm as text: -0.42, -16.5, -30103.0; "0 exactly" for the logarithm of an exact zero.

    >>> log10_text(-30102.9996), log10_text(-0.4213), log10_text(-math.inf)
    ('-30103.0', '-0.42', '0 exactly')
    """
    if math.isinf(value):
        return "0 exactly"
    text = f"{value:.2f}" if abs(value) < 9.995 else f"{value:.1f}"
    return text.removeprefix("-") if float(text) == 0 else text


def grouped(count: int) -> str:
    """Write a whole number, with commas from 10,000 on."""
    return f"{count:,}" if count >= 10_000 else str(count)


def number(value: float) -> str:
    """Write a number with two significant digits, or all of its whole ones: 0.69, 1.9, 36, 687."""
    if value >= 10:
        return grouped(round(value))
    return f"{value:.2g}" if value >= 0.001 or value == 0 else scientific(value, 1)


def scientific(value: float, digits: int) -> str:
    """Write a number as 1e-3 or 2.5e6, without padding."""
    mantissa, exponent = f"{value:.{digits}e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}e{int(exponent)}"


def threshold(value: float) -> str:
    """Write a threshold as people do: 1e-3, 0.05, 1e3."""
    return f"{value:.4g}" if 0.01 <= value < 1000 else scientific(value, 3)


def ratio(log10_ratio: float) -> str:
    """Write a ratio from its log10: 0.13, 3.9, 10^-16.1, or 0 where it is exactly zero."""
    if log10_ratio == -math.inf:
        return "0"
    return number(10.0**log10_ratio) if -3 <= log10_ratio < 4 else _power_of_ten(log10_ratio)


def _power_of_ten(exponent: float) -> str:
    return f"10^{exponent:.1f}".removesuffix(".0")


def factor(log10_rate: float) -> str:
    """Write a factor a step so that its difference from 1 has two digits: 0.69, 0.9981, 1.1, 2."""
    if not -2 <= log10_rate < 4:
        return _power_of_ten(log10_rate) if abs(log10_rate) >= 300 else scientific(10.0**log10_rate, 1)
    rate = 10.0**log10_rate
    gap = abs(1 - rate)
    if gap < 1e-9:
        return "1"
    digits = f"{rate:.{max(0, 1 - math.floor(math.log10(gap)))}f}" if rate >= 0.1 else f"{rate:.2g}"
    return digits.rstrip("0").rstrip(".") if "." in digits else digits


def percent(fraction: float) -> str:
    """Return a share in percent; what is not quite nothing or all does not round to it."""
    if 0 < fraction < 0.01:
        return "< 1%"
    return "> 99%" if 0.99 < fraction < 1 else f"{fraction:.0%}"
