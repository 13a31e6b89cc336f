"""Where x[1], ..., x[T] come from, one segment of steps at a time.

Arrays are feature-major with the batch last, (steps, trials, size, batch), because a step computes W @ x with the
sequences as columns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from gradcli.errors import InputFileError, UsageError
from gradcli.sources.series import Text, read_series, read_text, require_finite
from gradcli.sources.streams import DrawnSteps, stream
from gradcli.spec.inputs import (
    ConstantInput,
    FileInput,
    Input,
    NormalInput,
    OneHotInput,
    SineInput,
    TextInput,
    UniformInput,
    ZerosInput,
)


@dataclass(frozen=True)
class Extent:
    """How much input a run needs: T steps of `batch_size` sequences in each of `trials` trials."""

    seq_len: int
    batch_size: int
    trials: int


class InputSource(ABC):
    """The input of a run.

    size: the number of features of x[t].
    lengths: how many steps each sequence has, (batch,), all of which end at step T; None where all have T.
    """

    lengths: np.ndarray | None = None

    def __init__(self, size: int, extent: Extent) -> None:
        self.size = size
        self.extent = extent

    @abstractmethod
    def fill(self, start: int, stop: int) -> np.ndarray:
        """Return x[start+1], ..., x[stop]: a new C-contiguous float64 array (steps, trials, size, batch).

        Neither T nor the bounds of the segments change a value.
        """

    def _new(self, steps: int) -> np.ndarray:
        return np.empty((steps, self.extent.trials, self.size, self.extent.batch_size))


class FirstStepAlone(InputSource):
    """The input of a network in depth: x[1] is that of `source`, and x[2], ..., x[T] are zero."""

    def __init__(self, source: InputSource) -> None:
        super().__init__(source.size, source.extent)
        self._source = source

    def fill(self, start: int, stop: int) -> np.ndarray:
        x = self._new(stop - start)
        x.fill(0.0)
        if start == 0:
            x[:1] = self._source.fill(0, 1)
        return x


class SymbolSource(InputSource):
    """An input of one-hot vectors, that is of symbols in [0, size)."""

    @abstractmethod
    def symbols(self, start: int, stop: int) -> np.ndarray:
        """Return the symbols of the steps start+1, ..., stop <= T+1: integers (steps, trials, batch).

        Step T+1 is no input; it is the last target of a loss that asks for the next symbol.
        """

    def fill(self, start: int, stop: int) -> np.ndarray:
        x = self._new(stop - start)
        x.fill(0.0)
        np.put_along_axis(x, self.symbols(start, stop)[:, :, np.newaxis, :], 1.0, axis=2)
        return x


def open_input(
    model: Input,
    *,
    folder: Path,
    input_size: int | None,
    default_size: int,
    seq_len: int,
    batch_size: int,
    trials: int,
    seed: int,
) -> InputSource:
    """Return the source of the input that `model` describes.

    folder: where relative paths start. input_size: as the user gave it, None where not; drawn inputs then have
    `default_size` features, and those from files as many as the file.

    Raises InputFileError where a file is unreadable or too short, UsageError where it disagrees with input_size or
    batch_size.
    """
    extent = Extent(seq_len, batch_size, trials)
    if isinstance(model, FileInput):
        return _open_series(model, folder, input_size, extent)
    if isinstance(model, TextInput):
        text = read_text(folder / model.path, model.path)
        _require_steps(len(text), seq_len + 1, seq_len, model.path, "characters", "T and the one that follows")
        _require_size(input_size, len(text.alphabet), model.path, "different characters")
        return TextSource(text, extent)
    size = default_size if input_size is None else input_size
    if isinstance(model, ZerosInput):
        return ConstantSource(0.0, size, extent)
    if isinstance(model, ConstantInput):
        return ConstantSource(model.value, size, extent)
    if isinstance(model, SineInput):
        return SineSource(model, size, extent, seed)
    if isinstance(model, OneHotInput):
        return DrawnSymbolSource(size, extent, seed)
    return DrawnSource(model, size, extent, seed)


class ConstantSource(InputSource):
    """The same number in every feature at every step."""

    def __init__(self, value: float, size: int, extent: Extent) -> None:
        super().__init__(size, extent)
        self.value = value

    def fill(self, start: int, stop: int) -> np.ndarray:
        x = self._new(stop - start)
        x.fill(self.value)
        return x


class DrawnSource(InputSource):
    """Independent draws for every step, trial, feature and sequence."""

    def __init__(self, model: NormalInput | UniformInput, size: int, extent: Extent, seed: int) -> None:
        super().__init__(size, extent)
        shape = (size, extent.batch_size)

        def draw(rng: np.random.Generator, steps: int) -> np.ndarray:
            if isinstance(model, NormalInput):
                return rng.normal(model.mean, model.std, (steps, *shape))
            return rng.uniform(model.low, model.high, (steps, *shape))

        self._drawn = DrawnSteps(draw, seed=seed, names=("input",), trials=extent.trials, length=extent.seq_len)

    def fill(self, start: int, stop: int) -> np.ndarray:
        return self._drawn.read(start, stop)


class DrawnSymbolSource(SymbolSource):
    """One of `size` symbols at each step, drawn uniformly."""

    def __init__(self, size: int, extent: Extent, seed: int) -> None:
        super().__init__(size, extent)

        def draw(rng: np.random.Generator, steps: int) -> np.ndarray:
            return rng.integers(size, size=(steps, extent.batch_size))

        self._drawn = DrawnSteps(draw, seed=seed, names=("input",), trials=extent.trials, length=extent.seq_len + 1)

    def symbols(self, start: int, stop: int) -> np.ndarray:
        return self._drawn.read(start, stop)


class SineSource(InputSource):
    """x[t] = amplitude sin(2 pi t / period + phase), the phase drawn from U[0, 2 pi)."""

    def __init__(self, model: SineInput, size: int, extent: Extent, seed: int) -> None:
        super().__init__(size, extent)
        self.model = model
        self._seed = seed

    @cached_property
    def _phase(self) -> np.ndarray:
        # Drawn at the first step, and not before the run is known to fit into memory.
        return np.stack(
            [
                stream(self._seed, "input", trial, "phase").uniform(
                    0.0, 2.0 * np.pi, (self.size, self.extent.batch_size)
                )
                for trial in range(self.extent.trials)
            ]
        )

    def fill(self, start: int, stop: int) -> np.ndarray:
        # fmod is exact, so that the angle is as good at step 1,000,000 as at step 1.
        steps = np.fmod(np.arange(start + 1, stop + 1, dtype=np.float64), self.model.period)
        angle = steps * (2.0 * np.pi / self.model.period)
        x = self._new(stop - start)
        np.add(angle[:, np.newaxis, np.newaxis, np.newaxis], self._phase, out=x)
        np.sin(x, out=x)
        x *= self.model.amplitude
        return x


class TextSource(SymbolSource):
    """Windows of T+1 characters of a text, spread evenly over it; the same for every trial."""

    def __init__(self, text: Text, extent: Extent) -> None:
        super().__init__(len(text.alphabet), extent)
        self.text = text
        self._starts = window_starts(len(text), extent.seq_len + 1, extent.batch_size)

    def symbols(self, start: int, stop: int) -> np.ndarray:
        symbols = self.text.symbols(np.arange(start, stop)[:, np.newaxis] + self._starts)
        return np.repeat(symbols[:, np.newaxis], self.extent.trials, axis=1)


class SeriesSource(InputSource):
    """Windows of T steps of one series, or one recording for every sequence; the same for every trial."""

    def __init__(self, series: np.ndarray, extent: Extent) -> None:
        super().__init__(series.shape[-1], extent)
        self._series = series
        self._starts = window_starts(series.shape[-2], extent.seq_len, extent.batch_size)

    def fill(self, start: int, stop: int) -> np.ndarray:
        if self._series.ndim == 3:
            sequences = self._series[:, start:stop].transpose(1, 2, 0)
        else:
            sequences = self._series[np.arange(start, stop)[:, np.newaxis] + self._starts].transpose(0, 2, 1)
        x = self._new(stop - start)
        x[...] = sequences[:, np.newaxis]
        return x


def window_starts(length: int, window: int, batch_size: int) -> np.ndarray:
    """Return where each sequence of the batch starts: floor(b (length - window) / max(batch_size - 1, 1)).

    Evenly spread: the first window starts at 0, the last one ends at `length`.

    >>> window_starts(10, 4, 3)
    array([0, 3, 6])
    """
    return np.arange(batch_size) * (length - window) // max(batch_size - 1, 1)


def _open_series(model: FileInput, folder: Path, input_size: int | None, extent: Extent) -> SeriesSource:
    series = read_series(folder / model.path, model.path)
    _require_size(input_size, series.shape[-1], model.path, "features a step")
    if series.ndim == 3 and len(series) != extent.batch_size:
        raise UsageError(
            f"{model.path} holds {len(series)} sequences, but batch_size is {extent.batch_size}; "
            f"set batch_size to {len(series)}, or give an array (steps, features) to cut windows from"
        )
    _require_steps(series.shape[-2], extent.seq_len, extent.seq_len, model.path, "rows", "one a step")
    require_finite(series, model.path, rows=extent.seq_len if series.ndim == 3 else len(series))
    return SeriesSource(series, extent)


def _require_size(input_size: int | None, found: int, name: str, what: str) -> None:
    if input_size is not None and input_size != found:
        raise UsageError(
            f"{name} has {found} {what}, but input_size is {input_size}; leave input_size out, or set it to {found}"
        )


def _require_steps(found: int, needed: int, seq_len: int, name: str, what: str, why: str) -> None:
    if found < needed:
        longest = seq_len - (needed - found)
        remedy = f"set seq_len to at most {longest}, or give a longer file" if longest > 0 else "give a longer file"
        raise InputFileError(f"{name}: {found} {what} found, but seq_len = {seq_len} needs {needed} ({why}); {remedy}")
