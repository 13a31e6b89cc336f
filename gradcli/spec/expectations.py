"""What a spec expects of its run, its `expect:` block; `gradcli check` holds it against what was measured."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, ClassVar, Self

from gradcli.frozen import frozen
from gradcli.spec.checked import SpecModel
from gradcli.spec.shown import got
from gradcli.spec.value_readers import Field, WrongError
from gradcli.spec.verdict_kinds import VerdictKind

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_COMPARED = rf"(?a)(>=|<=|>|<|==)\s*({_NUMBER})"
_RANGE = rf"(?a)({_NUMBER})\s*\.\.\s*({_NUMBER})"
_LONGEST = 100
_LARGEST = 1e300


@frozen
class Comparison:
    """Bounds on a number, as a text says them: ">= 50", "< 1e3", "0.9..1.1" with both ends, "== 14" or 14.

    text: as it was written. low, high: the bounds; infinite where there is none. open_low, open_high: whether the bound
        itself is outside.

    >>> Comparison.read("0.9..1.1").holds(1.1), Comparison.read("> 20").holds(20.0), Comparison.read(">= 50").miss(14)
    (True, False, 36.0)
    """

    WHOLE: ClassVar[bool] = False
    EXAMPLES: ClassVar[str] = "'>= 0.9', '< 1.1' or '0.9..1.1'"
    EQUALITY: ClassVar[str] = "a measured number is never quite another; give a range, such as '0.9..1.1'"

    text: str
    low: float
    high: float
    open_low: bool = False
    open_high: bool = False

    @classmethod
    def read(cls, value: object) -> Self:
        """Return the comparison that a value of the spec stands for.

        Raises:
            WrongError: it is none, its bounds are the wrong way round, or it asks a measured number to equal
                another.
        """
        if isinstance(value, cls):
            return value
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise WrongError(f"expected a comparison, such as {cls.EXAMPLES}; got {got(value)}")
        if not isinstance(value, str):
            return cls._equal(repr(_bounded(value, value)), value, value)
        text = value.strip()
        if len(text) <= _LONGEST:
            if (found := re.fullmatch(_COMPARED, text)) is not None:
                return cls._compared(text, found[1], _bounded(float(found[2]), value), value)
            if (found := re.fullmatch(_RANGE, text)) is not None:
                low, high = (_bounded(float(end), value) for end in found.groups())
                if low > high:
                    raise WrongError(f"the range ends before it begins; got {got(value)}")
                return cls(text, low, high)
            if re.fullmatch(_NUMBER, text, re.ASCII):
                return cls._equal(text, _bounded(float(text), value), value)
        raise WrongError(f"expected a comparison in quotes, such as {cls.EXAMPLES}; got {got(value)}")

    @classmethod
    def _compared(cls, text: str, sign: str, bound: float, value: object) -> Self:
        match sign:
            case "==":
                return cls._equal(text, bound, value)
            case ">" | ">=":
                return cls(text, bound, math.inf, open_low=sign == ">")
            case _:
                return cls(text, -math.inf, bound, open_high=sign == "<")

    @classmethod
    def _equal(cls, text: str, number: float, value: object) -> Self:
        if not cls.WHOLE:
            raise WrongError(f"{cls.EQUALITY}; got {got(value)}")
        if number != int(number):
            raise WrongError(f"a whole number never equals this one; got {got(value)}")
        return cls(text, float(number), float(number))

    def holds(self, number: float) -> bool:
        """Tell whether a number, infinite where it has no bound, lies within the bounds."""
        above = number > self.low if self.open_low else number >= self.low
        # What is unbounded is not "at most" anything, and it is at least whatever is asked.
        below = number < self.high if self.open_high else number <= self.high
        return above and below

    def miss(self, number: float) -> float:
        """Return how far a number is outside of the bounds; 0 within them, and on a bound that is open."""
        return float(max(self.low - number, number - self.high, 0.0))

    def written(self, *, for_json: bool) -> str:
        """Return it as a spec has it."""
        return self.text

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """Return the JSON Schema of what may be written."""
        number = _NUMBER.replace("(?:", "(")
        forms = [rf"(>=|<=|>|<{'|==' if cls.WHOLE else ''})\s*{number}", rf"{number}\s*\.\.\s*{number}"]
        if cls.WHOLE:
            forms.append(number)
        text = {"type": "string", "pattern": rf"^\s*({'|'.join(forms)})\s*$"}
        return {"anyOf": [text, {"type": "integer"}]} if cls.WHOLE else text


class WholeComparison(Comparison):
    """Bounds on a whole number, which may also be asked to equal one."""

    WHOLE = True
    EXAMPLES = "'>= 50', '< 50', '10..20' or '== 14'"


def _bounded(number: float, value: object) -> float:
    if not abs(number) <= _LARGEST:
        largest = f"{_LARGEST:g}".replace("e+", "e")
        raise WrongError(f"a bound must be a number of at most {largest}; got {got(value)}")
    return number


class Expect(SpecModel):
    """What is expected of a run. Each key is the name of a check; what is not given is not asked, nor computed for it.

    A number that has no bound, such as the horizon of a gradient that reaches the beginning, is above every bound.
    """

    verdict: VerdictKind | Annotated[list[VerdictKind], Field(min_length=1)] | None = None
    horizon: WholeComparison | None = None
    rate_per_step: Comparison | None = None
    half_life: Comparison | None = None
    peak: Comparison | None = None
    finite: bool | None = None
    certificate: bool | None = None
    lyapunov: Comparison | None = None
    clip_fraction: Comparison | None = None

    def check(self) -> None:
        if not self.names:
            raise WrongError(f"expects nothing; give at least one of {', '.join(type(self).model_fields)}")

    @property
    def names(self) -> list[str]:
        """The checks that are asked for, in the order of the model."""
        return [name for name in type(self).model_fields if getattr(self, name) is not None]
