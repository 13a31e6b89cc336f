"""Programs of one call, for the tests of the compiled interpreter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from gradcli.engine.compiled import table
from gradcli.engine.compiled.table import Call, Operand, Program

Array = np.ndarray[Any, Any]

#: For modules that need the extension. CI demands it: see tests/compiled/test_compiled_build.py.
NEEDED = pytest.mark.skipif(not table.AVAILABLE, reason="the compiled interpreter was not built")
DTYPES = (np.float64, np.float32)
LEVELS = table.LEVELS


def run(
    op: str,
    args: Sequence[Array],
    out: Array,
    *,
    level: str | None = None,
    reverse: bool = False,
    dtype: Any = None,
    **more: Any,
) -> Array:
    """Run one call over all steps of `out`, (steps, ...), and return it; `also` may be an array."""
    if isinstance(more.get("also"), np.ndarray):
        more["also"] = Operand(more["also"])
    call = Call(op, tuple(map(Operand, args)), Operand(out), **more)
    Program(dtype or out.dtype, [call], level).run(0, out.shape[0], reverse)
    return out


def scattered(rng: np.random.Generator, values: Array) -> Array:
    """Return equal values in memory of random order, gaps and direction: an array that owns none of it."""
    if not values.ndim:
        return values
    order = rng.permutation(values.ndim)
    gaps = rng.integers(1, 4, values.ndim)
    shape = tuple(int(values.shape[axis] * gaps[axis]) for axis in order)
    memory = np.full(shape, np.nan, values.dtype) if values.dtype.kind == "f" else np.zeros(shape, values.dtype)
    view = memory.transpose(np.argsort(order))
    view = view[tuple(slice(None, None, int(gap * rng.choice([1, -1]))) for gap in gaps)]
    view[...] = values
    return view


def ulps(found: Array, exact: Array) -> Array:
    """Return the distance to exact values, of a type with more digits, in units in the last place of the exact ones."""
    rounded = exact.astype(found.dtype)
    smallest = np.finfo(found.dtype).smallest_subnormal
    with np.errstate(invalid="ignore", over="ignore"):
        exponent = np.frexp(exact)[1] - np.finfo(found.dtype).nmant - 1
        unit = np.maximum(np.ldexp(np.ones((), exact.dtype), exponent), exact.dtype.type(smallest))
        distance = np.abs(found.astype(exact.dtype) - exact) / unit
    same = (found == rounded) | (np.isnan(found) & np.isnan(rounded))
    return np.where(same & ~np.isfinite(rounded), 0.0, np.where(exact == 0, np.where(same, 0.0, np.inf), distance))
