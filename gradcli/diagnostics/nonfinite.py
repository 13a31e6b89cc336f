"""Why a number stopped being finite, in words: the operation, what it was given, and what would keep it finite."""

from __future__ import annotations

import numpy as np

from gradcli.frozen import frozen
from gradcli.language.parser import Equation
from gradcli.numbers import significant

_FLOAT64 = "dtype float64 reaches to 1.8e308"
_SMALLER = "smaller weights, inputs or a bounded nonlinearity would keep it finite"


@frozen
class Blame:
    """An operation, as `gradcli.language.graph` calls it, and what it was given where its result is not finite.

    equation: the one it stands in. operation: "exp", "div", ...: the function's name where it is a call; "given" where
        a number that comes from outside is not finite in the precision of the run; "" where no single one is to blame.
    arguments: one entry of each, the first that is bad; none of a product with a matrix.
    name: of that matrix, or of what was given.
    """

    equation: Equation
    operation: str = ""
    arguments: tuple[float, ...] = ()
    name: str = ""


@frozen
class Cause:
    """overflows: whether a number became too large. operation: what was done to what, as a clause; "" if not known.
    advice: what would keep it finite.
    """

    overflows: bool = True
    operation: str = ""
    advice: str = _SMALLER


def forward_cause(blame: Blame, dtype: np.dtype[np.floating]) -> Cause:
    """Return why an operation gave a number that is not finite."""
    largest = f"beyond the largest {dtype.name} ({significant(float(np.finfo(dtype).max), digits=2)})"
    match blame.operation, blame.arguments:
        case "log", (a,) if a <= 0:
            what = "a negative number has no logarithm" if a < 0 else "zero has no logarithm"
            return Cause(False, f"log takes {_text(a)}", f"{what}: log(abs(a) + 1e-6) or softplus takes any number")
        case "sqrt", (a,) if a < 0:
            return Cause(
                False, f"sqrt takes {_text(a)}", "a negative number has no square root: sqrt(a ** 2 + 1e-6) has one"
            )
        case "div", (a, b) if b == 0:
            return Cause(
                False,
                f"{_text(a)} is divided by 0",
                "a divisor that cannot become zero keeps it finite, such as b ** 2 + 1e-6 or 1 + exp(b)",
            )
        case "pow", (a, b) if a == 0 or (a < 0 and not float(b).is_integer()):
            return Cause(
                False,
                f"{_text(a)} is raised to the power {_text(b)}",
                "a base that stays above zero keeps it finite, such as abs(a) + 1e-6",
            )
        case "number", (a,):
            return Cause(True, f"{_text(a)} is {largest}", _FLOAT64)
        case "given", _:
            return Cause(True, f"{blame.name} is {largest}", _FLOAT64)
        case "matmul", _:
            return Cause(True, f"the product with {blame.name or 'a matrix'} is {largest}")
        case "mul", (a, b):
            return Cause(True, f"{_text(a)} is multiplied by {_text(b)}")
        case "div", (a, b):
            return Cause(
                True,
                f"{_text(a)} is divided by {_text(b)}",
                "a divisor that stays away from zero keeps it finite, such as b ** 2 + 1e-6",
            )
        case "pow", (a, b):
            return Cause(True, f"{_text(a)} is raised to the power {_text(b)}")
        case (("sum" | "total"), _):
            return Cause(True, f"a sum is {largest}")
        case "", _:
            return Cause()
        case name, (a,):
            return Cause(True, f"{name} takes {_text(a)}")
    return Cause()


def derivative_cause(blame: Blame) -> Cause:
    """Return which derivative is not finite: that of `operation`, such as "sqrt at 0"."""
    match blame.operation, blame.arguments:
        case "sqrt" | "log" as name, (a,):
            return Cause(False, f"{name} at {_text(a)}", f"{name}(a + 1e-6) has a slope at zero")
        case "div", (_, b) if b == 0:
            advice = "a divisor that cannot become zero keeps it finite, such as b ** 2 + 1e-6"
            return Cause(False, "a quotient whose divisor is 0", advice)
        case "div", (a, b):
            return Cause(True, f"{_text(a)} / {_text(b)}", "a divisor that stays away from zero keeps it finite")
        case "pow", (a, b):
            advice = "a base that stays above zero keeps it finite, such as abs(a) + 1e-6"
            return Cause(False, f"{_text(a)} ** {_text(b)}", advice)
        case ("mul" | "sum" | "", _):
            return Cause(advice="")
        case name, (a,):
            return Cause(True, f"{name} at {_text(a)}")
    return Cause(advice="")


def _text(value: float) -> str:
    return significant(value, digits=4)
