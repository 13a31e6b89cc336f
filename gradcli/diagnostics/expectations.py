"""An expectation held against what was measured: whether it is met, and in words by how far it is missed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from gradcli.diagnostics.figures import Figure, Value, number_text
from gradcli.frozen import frozen
from gradcli.spec.expectations import Comparison, Expect

Status = Literal["passed", "failed", "error"]


@frozen
class CheckOutcome:
    """What became of one check.

    name: `verdict`, `horizon`, ..., or the same of a baseline: `baseline.horizon`. expected: as it was written.
    measured: the figure; None where there is none, or where it has no bound. message: what was measured, and where that
    is not what was expected, by how far.
    """

    name: str
    status: Status
    expected: str
    measured: Value
    message: str


#: What is said of a figure that is to hold, or not to.
_WANTED = {
    ("finite", True): "a finite run",
    ("finite", False): "a run that is not finite",
    ("certificate", True): "a proof that the gradient vanishes",
    ("certificate", False): "no proof",
}


def judge_expectation(name: str, expected: object, figure: Figure) -> CheckOutcome:
    """Hold a figure against one key of an `expect:` block.

    Args:
        name: the key. expected: its value, as `gradcli.spec.expectations.Expect` has it.
    """
    match expected:
        case Comparison():
            met = figure.number is not None and expected.holds(figure.number)
            written, missed = expected.text, _missed(expected, figure.number)
        case bool():
            met, written, missed = figure.value is expected, _WANTED[name, expected], ""
        case str() | list():
            kinds = [expected] if isinstance(expected, str) else expected
            met, written, missed = figure.value in kinds, " or ".join(kinds), ""
        case _:
            raise TypeError(f"no expectation is a {type(expected).__name__}")
    message = figure.sentence if met else f"expected {written}, but {figure.sentence}{missed}"
    return CheckOutcome(name, "passed" if met else "failed", written, plain_value(figure.value), message)


def judge_expectations(expect: Expect, figures: dict[str, Figure]) -> Sequence[CheckOutcome]:
    """Hold all keys of an `expect:` block against the figures of their names."""
    return [judge_expectation(name, getattr(expect, name), figures[name]) for name in expect.names]


def _missed(expected: Comparison, number: float | None) -> str:
    if number is None or math.isinf(number):
        return ""
    miss = expected.miss(number)
    return f" ({number_text(miss)} away)" if miss else " (the bound itself is outside)"


def plain_value(value: Value) -> Value:
    """Return the value of a figure as JSON has it: null for what has no bound."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
