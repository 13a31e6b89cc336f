"""Where x[1], ..., x[T] come from: drawn here, or read from files."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np

from gradcli.sources.cuts import Extent
from gradcli.sources.input_source import InputSource, SymbolSource
from gradcli.sources.recorded import EmbeddingTables, open_series, open_text, open_tokens
from gradcli.sources.streams import DrawnSteps, stream
from gradcli.spec.inputs import (
    ConstantInput,
    FileInput,
    Input,
    NormalInput,
    OneHotInput,
    SineInput,
    TextInput,
    TokensInput,
    UniformInput,
    ZerosInput,
)


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
    batch_given: bool = True,
    one_more: bool = False,
    embedding: EmbeddingTables | None = None,
) -> InputSource:
    """Return the source of the input that `model` describes.

    Args:
        folder: where relative paths start.
        input_size: as the user gave it, None where not; drawn inputs then have `default_size` features, and those from
            files as many as the file.
        batch_given: whether `batch_size` is the user's; if not, a file with fewer sequences gives all that it has.
        one_more: whether the symbol after the last step is needed too, as a target.
        embedding: gives the table of a checkpoint, (tokens, features), by its name; None where there is no checkpoint.

    Raises:
        InputFileError: a file that is unreadable or too short.
        UsageError: one that disagrees with input_size or batch_size; FieldError with the rest of what the spec says.
    """
    extent = Extent(seq_len, batch_size, trials, batch_given)
    if isinstance(model, FileInput):
        return open_series(model, folder, input_size, extent)
    if isinstance(model, TextInput):
        return open_text(model, folder, input_size, extent)
    if isinstance(model, TokensInput):
        return open_tokens(model, folder, input_size, extent, embedding, one_more=one_more)
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
