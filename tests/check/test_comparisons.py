"""What comparisons mean, and how they are refused."""

from __future__ import annotations

import math
import operator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradcli.spec.expectations import Comparison, WholeComparison
from gradcli.spec.value_readers import WrongError

SIGNS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}
NUMBERS = st.floats(-1e6, 1e6) | st.integers(-1000, 1000)
MEASURED = NUMBERS | st.sampled_from([math.inf, -math.inf])


@given(st.sampled_from(sorted(SIGNS)), NUMBERS, MEASURED, st.sampled_from(["", " ", "  "]))
def test_a_sign_compares_as_it_reads(sign: str, bound: float, measured: float, blank: str) -> None:
    read = Comparison.read(f"{sign}{blank}{bound!r}")
    assert read.holds(measured) == SIGNS[sign](measured, bound)
    assert read.holds(bound) == ("=" in sign)


@given(NUMBERS, NUMBERS, MEASURED)
def test_a_range_has_both_its_ends(one: float, other: float, measured: float) -> None:
    low, high = sorted([one, other])
    read = Comparison.read(f"{low!r}..{high!r}")
    assert read.holds(measured) == (low <= measured <= high)
    assert read.holds(low)
    assert read.holds(high)


@given(st.integers(-1000, 1000), st.integers(-1000, 1000))
def test_a_whole_number_equals_itself(asked: int, measured: int) -> None:
    for written in (asked, str(asked), f"== {asked}", f"=={asked}.0"):
        assert WholeComparison.read(written).holds(measured) == (asked == measured)


@given(NUMBERS, MEASURED)
def test_what_is_missed_is_missed_by_the_way_to_the_bound(bound: float, measured: float) -> None:
    read = Comparison.read(f">= {bound!r}")
    assert read.miss(measured) == (0 if read.holds(measured) else bound - measured)


@pytest.mark.parametrize("text", [">= 1e3", "<.5", ">+2.", "== 14", "-1..1", "1...5", "1e-3 .. 2E+3", "0.9..1.1"])
def test_what_is_written_is_kept(text: str) -> None:
    assert WholeComparison.read(text).text == text


@pytest.mark.parametrize(
    "value",
    ["", ">=", "5 >= 3", "=> 5", ">= five", "1..", "..1", "1..2..3", "2..1", ">= inf", ">= nan", ">= 1e999", ">= 0x10",
     ">= 1_000", ">= 1,5", "!= 3", "≥ 3", ">= ٣", "1" * 200, True, None, [1], {"min": 1}, math.nan, math.inf, 10**400],
    ids=str,
)  # fmt: skip
def test_what_is_no_comparison_is_refused(value: object) -> None:
    for kind in (Comparison, WholeComparison):
        with pytest.raises(WrongError):
            kind.read(value)


@pytest.mark.parametrize("value", [0.9, 1, "0.9", "== 1", "== 0.9"])
def test_a_measured_number_is_not_asked_to_equal_another(value: object) -> None:
    with pytest.raises(WrongError, match="give a range"):
        Comparison.read(value)


def test_a_whole_number_is_not_asked_to_equal_a_broken_one() -> None:
    with pytest.raises(WrongError, match="never equals"):
        WholeComparison.read(14.5)
