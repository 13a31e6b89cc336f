"""A row of the table: two contestants and the ratio of each pair, or one figure, or what is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from benchmarks.requirements import Requirement
from benchmarks.timing import Spread, spread


class Ratio(Enum):
    """Which way round a ratio is, and how it is written."""

    TIMES_FASTER = "x"  # theirs / ours
    SHARE = "of theirs"  # ours / theirs


@dataclass(frozen=True)
class Compared:
    """Pairs of one run. ours, theirs: the values of each pair, in `unit`."""

    ours: Sequence[float]
    theirs: Sequence[float]
    unit: str
    ratio: Ratio

    @property
    def ratios(self) -> Spread:
        """Median and quartiles over the ratios of the pairs."""
        pairs = zip(self.ours, self.theirs, strict=True)
        return spread([b / a if self.ratio is Ratio.TIMES_FASTER else a / b for a, b in pairs])


def in_milliseconds(times: Sequence[Sequence[float]], ratio: Ratio) -> Compared:
    """Return the comparison of two contestants from their seconds, ours first."""
    ours, theirs = ([1e3 * t for t in found] for found in times)
    return Compared(ours, theirs, "ms", ratio)


@dataclass(frozen=True)
class Figure:
    """One figure that is no ratio, measured several times."""

    values: Sequence[float]
    unit: str


@dataclass(frozen=True)
class Missing:
    """A contestant that is not installed, and how to install it."""

    message: str


@dataclass(frozen=True)
class Row:
    """One row. what: ours, on which case. against: the other contestant, and what it gives.

    reason: why the requirement may not hold, see `benchmarks.reasons`.
    """

    section: str
    what: str
    against: str
    outcome: Compared | Figure | Missing
    requirement: Requirement | None = None
    reason: str = ""

    @property
    def judged(self) -> float | None:
        """The number that the requirement is about: a median."""
        if isinstance(self.outcome, Compared):
            return self.outcome.ratios.median
        return spread(self.outcome.values).median if isinstance(self.outcome, Figure) else None

    @property
    def verdict(self) -> str:
        """Whether the requirement holds."""
        if self.requirement is None:
            return ""
        if self.judged is None:
            return "not measured"
        return "holds" if self.requirement.holds(self.judged) else "does not hold"


@dataclass(frozen=True)
class Preparation:
    """What is done once for a case, before the first run: seconds."""

    what: str
    case: str
    seconds: float


@dataclass(frozen=True)
class Profile:
    """Where the time of one thing goes, in milliseconds.

    kind: what is taken apart; profiles of one kind have the same parts. what: that of the row which it is beside.
    whole: the time without any timers in it. parts: by name; their sum differs from `whole` by what timing disturbs.
    """

    kind: str
    what: str
    whole: float
    parts: Mapping[str, float]

    @property
    def total(self) -> float:
        """The sum of the parts."""
        return sum(self.parts.values())

    def share(self, part: str) -> float:
        """The share of a part in the sum."""
        return self.parts[part] / self.total
