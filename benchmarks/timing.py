"""Contestants timed in turn, so that whatever else the machine does meets all alike."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter

import numpy as np


@dataclass(frozen=True)
class Effort:
    """How long to measure: pairs are taken for about `seconds`, but at least `least` and at most `most` of them.

    sample: a contestant is called until so many seconds have passed, and the mean call is one sample.
    short: a call that takes less than so many seconds is made once unmeasured at the beginning of every turn.
    """

    seconds: float = 2.0
    least: int = 5
    most: int = 101
    sample: float = 0.005
    short: float = 0.5


FULL = Effort()
#: For many contestants at once.
MANY = Effort(seconds=5.0)
QUICK = Effort(seconds=0.0, least=3, most=3, sample=0.0, short=0.0)
#: For what takes seconds or more.
FEW = Effort(seconds=0.0, least=3, most=3, sample=0.02)


@dataclass(frozen=True)
class Spread:
    """Median and quartiles."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Return median and quartiles of some values.

    >>> spread([1.0, 2.0, 3.0, 4.0, 5.0])
    Spread(median=3.0, low=2.0, high=4.0)
    """
    low, median, high = (float(q) for q in np.quantile(values, (0.25, 0.5, 0.75)))
    return Spread(median, low, high)


def alternate(contestants: Sequence[Callable[[], object]], effort: Effort) -> list[list[float]]:
    """Return the seconds of one call of each contestant, a list for each, taken in turn: A, B, A, B, ...

    Each is called before, unmeasured: to warm up, and to see how many calls make a sample; twice where a call is short,
    and then every turn begins with an unmeasured one as well, so that none pays for the caches that the other has
    filled.
    """
    plans = [_plan(contestant, effort) for contestant in contestants]
    times: list[list[float]] = [[] for _ in contestants]
    with _no_collection():
        end = perf_counter() + effort.seconds
        while len(times[0]) < effort.least or (len(times[0]) < effort.most and perf_counter() < end):
            for contestant, (count, warm), found in zip(contestants, plans, times, strict=True):
                if warm:
                    contestant()
                found.append(_sample(contestant, count))
    return times


def _plan(contestant: Callable[[], object], effort: Effort) -> tuple[int, bool]:
    """Return how many calls make a sample, and whether a call is so short that it is made once unmeasured before."""
    seconds = _sample(contestant, 1)
    if seconds < effort.short:
        seconds = _sample(contestant, 1)
    return max(1, int(effort.sample / max(seconds, 1e-9))), seconds < effort.short


def _sample(contestant: Callable[[], object], count: int) -> float:
    start = perf_counter()
    for _ in range(count):
        contestant()
    return (perf_counter() - start) / count


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep the garbage collector, which would stop one contestant for the other's litter, out of the samples."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
