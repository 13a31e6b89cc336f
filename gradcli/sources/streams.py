"""Random numbers by name: every quantity of a run has a stream of its own.

A stream is keyed by the seed and a name, never by the order of the calls. Another parameter, layer or trial, or a
longer sequence, therefore changes no number that was there before.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from hashlib import blake2b
from typing import Any, cast

import numpy as np
from numpy.random.bit_generator import ISeedSequence

CHUNK = 64
"""Steps that are drawn from one stream. A part of every drawn number's definition: changing it changes all runs."""


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """Return the generator of the quantity called `names`.

    key = BLAKE2b-128(seed, names), generator = Philox(key): counter-based, so that streams under different keys are
    independent and none costs more to reach than another. A string never equals an integer, nor ("ab",) ("a", "b").

    Source: J. K. Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (2011).

    >>> stream(0, "input", 1).random() == stream(0, "input", 1).random()
    True
    >>> stream(0, "input", 1).random() == stream(0, "input", "1").random()
    False
    """
    parts = [b"%d" % operator.index(seed)]
    for name in names:
        if isinstance(name, str):
            text = name.encode()
            parts.append(b"s%d:%b" % (len(text), text))
        else:
            parts.append(b"i%d" % operator.index(name))
    digest = blake2b(b",".join(parts), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(cast(Any, _Key(digest))))


class _Key(ISeedSequence):
    """A key as Philox asks for it. Philox(key=key) is the same, but first gathers entropy that it never uses."""

    def __init__(self, digest: bytes) -> None:
        self._words = np.frombuffer(digest, dtype="<u8")

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> np.ndarray:
        return self._words


class DrawnSteps:
    """A sequence of draws, one for every step and trial, of which any part can be had without the rest.

    Steps are drawn in chunks of `CHUNK`, each trial's chunk from the stream (seed, *names, trial, chunk). The last
    chunk is kept, so that a pass in segments of any length draws every chunk once.

    draw: (generator, steps) -> array (steps, ...), whose first rows must not depend on `steps`.
    length: the number of steps that are ever asked for; it changes no value.
    """

    def __init__(
        self,
        draw: Callable[[np.random.Generator, int], np.ndarray],
        *,
        seed: int,
        names: tuple[str | int, ...],
        trials: int,
        length: int,
    ) -> None:
        self._draw = draw
        self._seed = seed
        self._names = names
        self._trials = trials
        self._length = length
        self._kept: tuple[int, np.ndarray] | None = None

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return the draws of the steps [start, stop), counted from 0: (steps, trials, ...)."""
        if not 0 <= start < stop <= self._length:
            raise ValueError(f"steps [{start}, {stop}) are not within [0, {self._length})")
        chunk = self._chunk(start // CHUNK)
        values = np.empty((stop - start, *chunk.shape[1:]), dtype=chunk.dtype)
        position = start
        while position < stop:
            chunk = self._chunk(position // CHUNK)
            first = position % CHUNK
            count = min(CHUNK - first, stop - position)
            values[position - start : position - start + count] = chunk[first : first + count]
            position += count
        return values

    def _chunk(self, index: int) -> np.ndarray:
        if self._kept is not None and self._kept[0] == index:
            return self._kept[1]
        steps = min(CHUNK, self._length - index * CHUNK)
        drawn = [self._draw(stream(self._seed, *self._names, trial, index), steps) for trial in range(self._trials)]
        chunk = np.stack(drawn, axis=1) if len(drawn) > 1 else drawn[0][:, None]
        self._kept = (index, chunk)
        return chunk
