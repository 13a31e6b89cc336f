"""What can be measured, and how much of it is wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from benchmarks.requirements import Requirement
from benchmarks.rows import Preparation, Profile, Row
from benchmarks.timing import FEW, FULL, MANY, QUICK, Effort


@dataclass(frozen=True)
class Settings:
    """What the command line asks for."""

    threads: int = 1
    quick: bool = False
    long: bool = False

    @property
    def effort(self) -> Effort:
        return QUICK if self.quick else FULL

    def effort_of_many(self, required: bool) -> Effort:
        """Return the effort for many contestants at once; required: whether something is asked of them."""
        return QUICK if self.quick else MANY if required else replace(FEW, seconds=MANY.seconds, most=MANY.most)

    @property
    def effort_of_profiles(self) -> Effort:
        """The effort for where the time goes, of which shares are shown and nothing is asked."""
        return QUICK if self.quick else replace(FEW, seconds=1.0, most=FULL.most)

    @property
    def process_pairs(self) -> int:
        """How many times whole processes are run."""
        return 1 if self.quick else 7

    def required(self, requirement: Requirement | None) -> Requirement | None:
        """Return a requirement where it applies: to the full sizes, and to one thread."""
        return requirement if self.threads == 1 and not self.quick else None


@dataclass(frozen=True)
class Measurement:
    """One thing to measure. label: what `--only` looks at."""

    label: str
    measure: Callable[[], Iterable[Row | Preparation | Profile]]

    def matches(self, selections: list[str]) -> bool:
        """Tell whether one of the selections has all its words in the label; without any, everything is meant."""
        words = _words(self.label)
        return not selections or any(_words(selection) <= words for selection in selections)


def _words(text: str) -> set[str]:
    """Return the words of a label: what is between spaces, without a comma at its end.

    >>> sorted(_words("lstm 1,32,100 torch cell loop, retain_grad"))
    ['1,32,100', 'cell', 'loop', 'lstm', 'retain_grad', 'torch']
    """
    return {word.rstrip(",") for word in text.split()}
