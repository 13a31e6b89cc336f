"""Opening inputs from files as a run of the tests does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from as_read import as_read

from gradcli.sources.input_source import InputSource
from gradcli.sources.inputs import open_input
from gradcli.spec.inputs import Input


def opened(
    folder: Path,
    *,
    seq_len: int,
    batch: int,
    batch_given: bool = True,
    trials: int = 2,
    one_more: bool = False,
    input_size: int | None = None,
    table: Callable[[str | None], np.ndarray] | None = None,
    **model: Any,
) -> InputSource:
    """Return the source of the input with the given keys; `kind` is file unless given."""
    return open_input(
        as_read(Input, {"kind": "file", **model}),
        folder=folder,
        input_size=input_size,
        default_size=99,
        seq_len=seq_len,
        batch_size=batch,
        batch_given=batch_given,
        trials=trials,
        seed=0,
        one_more=one_more,
        embedding=table,
    )


def sequences(source: InputSource) -> np.ndarray:
    """Return x of the first trial, (batch, T, features), after a look that the trials and segments agree."""
    steps = source.extent.seq_len
    x = source.fill(0, steps)
    assert x.shape == (steps, source.extent.trials, source.size, source.extent.batch_size)
    assert x.dtype == np.float64
    assert x.flags.c_contiguous
    middle = steps // 2
    assert np.array_equal(np.concatenate([source.fill(0, middle), source.fill(middle, steps)]), x)
    assert np.array_equal(x[:, 0], x[:, -1])
    return np.asarray(x[:, 0].transpose(2, 0, 1))
