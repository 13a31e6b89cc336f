"""How numbers are written for people: in sentences, tables and pictures alike, one way for each kind of number.

A power of ten stands where a number is below 1e-3 or not below 1e4, without padding: 1.8e-5, 2.5e6. What no float
holds is a power with its exponent: 10^-39487.0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

#: From this exponent on, powers of ten have no mantissa.
_LARGE_EXPONENT = 100


#: Digits of a number that somebody has chosen, to be known again.
CHOSEN = 6


def significant(value: float, digits: int) -> str:
    """Write a number to some digits, or to all of its whole ones.

    >>> significant(0.12345, 2), significant(1234.5, 2), significant(0.00012345, 2), significant(12345678.0, 4)
    ('0.12', '1234', '1.2e-4', '1.235e7')
    >>> significant(99.7, 2), significant(99.4, 2)
    ('100', '99')
    """
    if value != 0 and math.isfinite(value) and not 1e-3 <= abs(value) < 1e4:
        return _scientific(value, digits)
    # From 99.5 on two digits would be written 1e+02.
    return f"{value:.0f}" if abs(value) >= 10**digits - 0.5 else f"{value:.{digits}g}"


def _scientific(value: float, digits: int) -> str:
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}e{int(exponent)}"


def power_of_ten(log10: float) -> str:
    """Write 10**log10, however large or small, to two digits: a norm, or a ratio of two.

    >>> power_of_ten(math.log10(0.15)), power_of_ten(math.log10(128)), power_of_ten(-16.1), power_of_ten(-39487.0)
    ('0.15', '128', '7.9e-17', '10^-39487.0')
    >>> power_of_ten(-math.inf), power_of_ten(math.nan)
    ('0', 'not finite')
    """
    if log10 == -math.inf:
        return "0"
    if not math.isfinite(log10):
        return "not finite"
    return f"10^{log10:.1f}" if abs(log10) >= _LARGE_EXPONENT else significant(10.0**log10, digits=2)


def at_most(log10: float) -> str:
    """Write a bound 10**log10 from above, to two digits that are not below it; see `power_of_ten`.

    >>> at_most(math.log10(3.51)), at_most(math.log10(3.5)), at_most(math.log10(0.0999)), at_most(1000.01)
    ('3.6', '3.5', '0.1', '10^1000.1')
    """
    if not math.isfinite(log10):
        return power_of_ten(log10)
    if abs(log10) >= _LARGE_EXPONENT:
        return power_of_ten(math.ceil(10.0 * log10 - 1e-9) / 10.0)
    whole = math.floor(log10)
    return power_of_ten(whole + math.log10(math.ceil(10.0 ** (log10 - whole + 1.0) - 1e-9) / 10.0))


def log10_text(value: float) -> str:
    """Write a log10 norm as it is: the logarithm.

    >>> log10_text(-30102.9996), log10_text(-0.4213), log10_text(-math.inf)
    ('-30103.0', '-0.42', '0 exactly')
    """
    if math.isinf(value):
        return "0 exactly"
    text = f"{value:.2f}" if abs(value) < 9.995 else f"{value:.1f}"
    return text.removeprefix("-") if float(text) == 0 else text


def factor(log10_rate: float) -> str:
    """Write a factor a step, from its log10, so that its difference from 1 has two digits.

    >>> [factor(math.log10(rate)) for rate in (0.69, 0.9981, 1.1, 2.0, 0.0012)]
    ['0.69', '0.9981', '1.1', '2', '0.0012']
    """
    if not -2 <= log10_rate < 4:
        return power_of_ten(log10_rate)
    rate = 10.0**log10_rate
    gap = abs(1 - rate)
    if gap < 1e-9:
        return "1"
    digits = f"{rate:.{max(0, 1 - math.floor(math.log10(gap)))}f}" if rate >= 0.1 else f"{rate:.2g}"
    return digits.rstrip("0").rstrip(".") if "." in digits else digits


def decimals(value: float) -> str:
    """Write a number that counts beside 1, as an activation or nats do: three decimals, so that columns line up.

    >>> decimals(0.5), decimals(-1e-9), decimals(12.3456), decimals(123456.0)
    ('0.500', '0.000', '12.35', '1.235e5')
    """
    text = f"{value:.3f}" if abs(value) < 10 else significant(value, digits=4)
    return "0.000" if text == "-0.000" else text


def fraction(value: float) -> str:
    """Write a share, a projection or a cosine: three decimals, more near 1 and -1, two digits near 0.

    >>> [fraction(share) for share in (0.5, 0.94759, -8.054e-05, 0.99941, -0.99999, 0.9999999, 0.0)]
    ['0.500', '0.948', '-8.1e-5', '0.9994', '-0.99999', '1', '0']
    """
    gap = abs(1.0 - abs(value))
    if gap < 1e-2:
        return f"{value:.0f}" if gap < 5e-6 else f"{value:.{4 if gap > 1e-4 else 5}f}"
    return decimals(value) if abs(value) >= 1e-2 else significant(value, digits=2)


def percent(share: float) -> str:
    """Write a share in percent; what is not quite nothing or all does not round to it.

    >>> percent(0.113), percent(0.004), percent(0.999), percent(1.0)
    ('11 %', '< 1 %', '> 99 %', '100 %')
    """
    if 0 < share < 0.01:
        return "< 1 %"
    return "> 99 %" if 0.99 < share < 1 else f"{100 * share:.0f} %"


def threshold(value: float) -> str:
    """Write a threshold on relative norms as people do: 1e-3, 0.05, 1e3."""
    return f"{value:.4g}" if 0.01 <= value < 1000 else _scientific(value, 4)


def grouped(count: int) -> str:
    """Write a whole number, with commas from 10,000 on."""
    return f"{count:,}" if abs(count) >= 10_000 else str(count)


def steps_text(count: int) -> str:
    """Write a number of steps.

    >>> steps_text(1), steps_text(12000)
    ('1 step', '12,000 steps')
    """
    return f"{grouped(count)} step{'' if count == 1 else 's'}"


def duration(steps: float) -> str:
    """Write a time in steps, which need not be whole: 0.69, 1.9, 36, 12,345."""
    return grouped(round(steps)) if steps >= 1e4 else significant(steps, digits=2)


def shape_text(shape: Sequence[int | str]) -> str:
    """Write the shape of an array: 64 x 32, 64, scalar."""
    return " x ".join(map(str, shape)) or "scalar"
