"""A row of the table: both engines, what they are held against, and the ratios; or figures; or what is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from benchmarks.engines import COMPILED
from benchmarks.requirements import Requirement
from benchmarks.timing import Spread, spread

Values = Sequence[float]


class Ratio(Enum):
    """Which way round a ratio is, and how it is written."""

    TIMES_FASTER = "x"  # theirs / ours
    SHARE = "of theirs"  # ours / theirs


@dataclass(frozen=True)
class Compared:
    """Pairs of one run. pairs: by engine ours and theirs, each with a value of every round, in `unit`."""

    pairs: Mapping[str, tuple[Values, Values]]
    unit: str
    ratio: Ratio

    def ratios(self, engine: str) -> Spread:
        """Return median and quartiles over the ratios of an engine's pairs."""
        pairs = zip(*self.pairs[engine], strict=True)
        return spread([b / a if self.ratio is Ratio.TIMES_FASTER else a / b for a, b in pairs])


def in_milliseconds(pairs: Mapping[str, tuple[Values, Values]], ratio: Ratio) -> Compared:
    """Return the comparison of the engines with contestants from seconds: by engine ours and theirs."""
    scaled = {engine: ([1e3 * t for t in a], [1e3 * t for t in b]) for engine, (a, b) in pairs.items()}
    return Compared(scaled, "ms", ratio)


@dataclass(frozen=True)
class Figure:
    """A figure that is no ratio, by engine, measured several times."""

    values: Mapping[str, Values]
    unit: str


@dataclass(frozen=True)
class Missing:
    """A contestant that is not installed, and how to install it."""

    message: str


@dataclass(frozen=True)
class Row:
    """One row. what: ours, on which case. against: the other contestant, and what it gives.

    reason: why the requirement may not hold, see `benchmarks.reasons`. engine: the one that the requirement is about.
    """

    section: str
    what: str
    against: str
    outcome: Compared | Figure | Missing
    requirement: Requirement | None = None
    reason: str = ""
    engine: str = COMPILED

    @property
    def judged(self) -> float | None:
        """The number that the requirement is about: a median; None where its engine was not measured."""
        outcome = self.outcome
        if isinstance(outcome, Compared):
            return outcome.ratios(self.engine).median if self.engine in outcome.pairs else None
        if isinstance(outcome, Figure):
            return spread(outcome.values[self.engine]).median if self.engine in outcome.values else None
        return None

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
    engine: the one that ran. whole: the time without any timers in it. parts: by name; their sum differs from `whole`
    by what timing disturbs.
    """

    kind: str
    what: str
    engine: str
    whole: float
    parts: Mapping[str, float]

    @property
    def total(self) -> float:
        """The sum of the parts."""
        return sum(self.parts.values())

    def share(self, part: str) -> float:
        """The share of a part in the sum."""
        return self.parts[part] / self.total

    def is_beside(self, row: Row) -> bool:
        """Tell whether this is what the requirement of a row is about."""
        return (self.what, self.engine) == (row.what, row.engine)
