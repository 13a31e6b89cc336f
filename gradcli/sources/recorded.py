"""Inputs from files: series of numbers, texts, and tokens that stand for rows of an embedding table.

All trials see the same data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from gradcli.errors import InputFileError, UsageError
from gradcli.sources.arrays import ENDINGS, array_of, read_array, require_finite
from gradcli.sources.axes import how_read, may_be_time_first, sequences_first
from gradcli.sources.cuts import Cut, Extent, cut_recordings, cut_windows, refuse_lengths
from gradcli.sources.files import FieldError
from gradcli.sources.input_source import InputSource, SymbolSource
from gradcli.sources.standardisation import Standardisation, standardisation_of
from gradcli.sources.texts import Text, read_text, read_whole_numbers
from gradcli.spec.inputs import FileInput, TextInput, TokensInput

#: Gives the embedding table of a checkpoint, float64 (tokens, features): the one of this name, or the only one.
EmbeddingTables = Callable[[str | None], np.ndarray]


class SeriesSource(InputSource):
    """Steps of a series as they stand in the file, scaled, or standardised.

    series: (steps, features) or (sequences, steps, features), real numbers of any dtype.
    """

    def __init__(
        self,
        series: np.ndarray,
        cut: Cut,
        extent: Extent,
        *,
        scale: float = 1.0,
        change: Standardisation | None = None,
        name: str,
        notes: tuple[str, ...] = (),
    ) -> None:
        notes = notes if change is None else (*notes, change.note(name))
        super().__init__(series.shape[-1], extent, cut=cut, notes=notes)
        self._series, self._cut, self._scale, self._change = series, cut, scale, change

    def fill(self, start: int, stop: int) -> np.ndarray:
        steps = np.arange(start, stop)
        values = self._cut.take(self._series, steps)
        if self._change is not None:
            values = self._change(values)
            values[self._cut.absent(steps)] = 0.0
        x = self._new(stop - start)
        x[...] = values.transpose(0, 2, 1)[:, np.newaxis]
        if self._scale != 1.0:
            with np.errstate(over="ignore"):  # the engine tells where a number is no longer finite
                x *= self._scale
        return x


class TextSource(SymbolSource):
    """Windows of T+1 characters of a text."""

    def __init__(self, text: Text, cut: Cut, extent: Extent) -> None:
        super().__init__(len(text.alphabet), extent, cut=cut)
        self.text = text
        self._cut = cut

    def symbols(self, start: int, stop: int) -> np.ndarray:
        symbols = self.text.symbols_of(self._cut.take(self.text.codepoints, np.arange(start, stop)))
        return np.repeat(symbols[:, np.newaxis], self.extent.trials, axis=1)


class TokensSource(SymbolSource):
    """x[t] = table[token at t]: rows of an embedding table.

    tokens: (steps,) or (sequences, steps) whole numbers. table: (tokens, features).
    """

    def __init__(
        self, tokens: np.ndarray, table: np.ndarray, cut: Cut, extent: Extent, notes: tuple[str, ...] = ()
    ) -> None:
        super().__init__(table.shape[1], extent, cut=cut, notes=notes)
        self._tokens, self._table, self._cut = tokens, table, cut

    @property
    def symbol_count(self) -> int:
        """The number of rows of the table."""
        return len(self._table)

    def _taken(self, steps: np.ndarray) -> np.ndarray:
        return self._cut.take(self._tokens, steps).astype(np.int64)

    def symbols(self, start: int, stop: int) -> np.ndarray:
        return np.repeat(self._taken(np.arange(start, stop))[:, np.newaxis], self.extent.trials, axis=1)

    def fill(self, start: int, stop: int) -> np.ndarray:
        steps = np.arange(start, stop)
        rows = self._table[self._taken(steps)]
        rows[self._cut.absent(steps)] = 0.0
        x = self._new(stop - start)
        x[...] = rows.transpose(0, 2, 1)[:, np.newaxis]
        return x


def open_series(model: FileInput, folder: Path, input_size: int | None, extent: Extent) -> SeriesSource:
    """Return the source of a file of numbers; raise as `open_input` does."""
    name = str(model.path)
    series = array_of(model.path, folder, key=model.key, columns=model.columns)
    if series.ndim == 1:
        series = series[:, np.newaxis]
    if series.ndim not in (2, 3):
        raise InputFileError(
            f"{name}: expected an array (steps,), (steps, features) or (sequences, steps, features); "
            f"got shape {series.shape}"
        )
    series = sequences_first(series, model.layout, name, 3)
    _require_size(input_size, series.shape[-1], name, "features a step")
    notes: tuple[str, ...] = ()
    if series.ndim == 2:
        refuse_lengths(model)
        cut = cut_windows(model, len(series), extent, "rows")
        recordings, every, used = series[np.newaxis], [len(series)], [len(series)]
    else:
        recordings = series
        with _telling_how_read(model, series.shape, extent):
            cut, lengths = cut_recordings(model, (series.shape[0], series.shape[1]), extent, folder, "rows")
        notes = _doubt(model, series.shape, extent)
        every, used = lengths.tolist(), np.minimum(lengths[: cut.batch_size], extent.seq_len).tolist()
    # Of what is standardised, all counts; else what the run does not read may be anything.
    counts = every if model.standardize else used
    require_finite(recordings, name, counts, several=series.ndim == 3)
    change = standardisation_of(recordings, counts) if model.standardize else None
    return SeriesSource(series, cut, extent, scale=model.scale, change=change, name=name, notes=notes)


def _doubt(model: FileInput | TokensInput, shape: tuple[int, ...], extent: Extent) -> tuple[str, ...]:
    """Return a note where an array whose layout is not given may have its steps first."""
    found = may_be_time_first(shape, extent) if model.layout is None else ""
    return (f"{model.path}: {found}",) if found else ()


@contextmanager
def _telling_how_read(model: FileInput | TokensInput, shape: tuple[int, ...], extent: Extent) -> Iterator[None]:
    """Add to a message that sequences or steps are too few how the array was read, where the other way they suffice."""
    try:
        yield
    except FieldError:
        raise
    except (InputFileError, UsageError) as error:
        enough = shape[0] >= extent.seq_len or shape[0] > shape[1]
        if model.layout is not None or not enough or (extent.batch_given and shape[1] < extent.batch_size):
            raise
        raise type(error)(f"{error}; {how_read(shape)}") from None


def _require_size(input_size: int | None, found: int, name: str, what: str) -> None:
    if input_size is not None and input_size != found:
        raise UsageError(
            f"{name} has {found} {what}, but input_size is {input_size}; leave input_size out, or set it to {found}"
        )


def open_text(model: TextInput, folder: Path, input_size: int | None, extent: Extent) -> TextSource:
    """Return the source of a text; raise as `open_input` does."""
    text = read_text(folder / model.path, model.path, model.alphabet)
    cut = cut_windows(model, len(text), extent, "characters", one_more=True)
    _require_size(input_size, len(text.alphabet), model.path, "different characters")
    return TextSource(text, cut, extent)


def open_tokens(
    model: TokensInput,
    folder: Path,
    input_size: int | None,
    extent: Extent,
    embedding: EmbeddingTables | None,
    *,
    one_more: bool,
) -> TokensSource:
    """Return the source of a file of tokens; raise as `open_input` does."""
    if embedding is None:
        raise UsageError("tokens are rows of an embedding table: give the checkpoint that has it under `weights:`")
    tokens = sequences_first(_read_tokens(model, folder), model.layout, model.path, 2)
    notes: tuple[str, ...] = ()
    if tokens.ndim == 1:
        refuse_lengths(model)
        cut = cut_windows(model, len(tokens), extent, "tokens", one_more=one_more)
        used = [len(tokens)]
    elif tokens.ndim == 2:
        with _telling_how_read(model, tokens.shape, extent):
            cut, lengths = cut_recordings(
                model, (tokens.shape[0], tokens.shape[1]), extent, folder, "tokens", one_more=one_more
            )
        notes = _doubt(model, tokens.shape, extent)
        used = np.minimum(lengths[: cut.batch_size], extent.seq_len + one_more).tolist()
    else:
        raise InputFileError(
            f"{model.path}: expected tokens (steps,) or (sequences, steps); got an array of shape {tokens.shape}"
        )
    table = embedding(model.embedding)
    _require_size(input_size, table.shape[1], model.path, "features a token")
    _require_tokens(np.atleast_2d(tokens), model.path, used, len(table), several=tokens.ndim == 2)
    return TokensSource(tokens, table, cut, extent, notes)


def _read_tokens(model: TokensInput, folder: Path) -> np.ndarray:
    """Return the tokens of a file, (steps,) or (sequences, steps); a CSV of one row or column is one long recording."""
    path = folder / model.path
    ending = path.suffix.lower()
    if ending not in (".txt", *ENDINGS):
        known = f"{', '.join(('.txt', *ENDINGS[:-1]))} or {ENDINGS[-1]}"
        raise InputFileError(f"{model.path}: expected a file that ends in {known}")
    if ending == ".txt":
        if model.key is not None:
            raise FieldError(f"{model.path} is no .npz, and has no keys", "key")
        return read_whole_numbers(path, model.path)
    tokens = read_array(path, model.path, key=model.key)
    return tokens.ravel() if ending == ".csv" and 1 in tokens.shape else tokens


def _require_tokens(tokens: np.ndarray, name: str, counts: list[int], known: int, *, several: bool) -> None:
    """Raise InputFileError where one of the used tokens, (sequences, steps), is none of those that the table has."""
    for sequence, count in enumerate(counts):
        row = tokens[sequence, :count]
        wrong = (row < 0) | (row >= known) | (row != np.floor(row))
        if wrong.any():
            step = int(np.argmax(wrong))
            place = f"sequence {sequence + 1}, " if several else ""
            raise InputFileError(
                f"{name}: {place}token {step + 1}: expected a whole number from 0 to {known - 1}, a row of the"
                f" embedding table; got {row[step].item()}"
            )
