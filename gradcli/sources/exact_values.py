"""Exact values, as nested lists or arrays, of parameters, initial states, targets and vectors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gradcli.sources.initialisers import InitialiserError
from gradcli.spec.given import Given

#: Exact values as a spec has them.
ExactValues = float | list[Any] | Given


def exact_array(values: ExactValues, shape: tuple[int, ...], *, count: int | None = None) -> np.ndarray:
    """Return exact values as a float64 array; a single number fills the whole shape.

    With `count`, what is wanted is `count` arrays of `shape`, stacked: (count, *shape). The values may then be one
    array for all of them, or one for each.

    Raises InitialiserError for another shape, and for anything but finite numbers.

    >>> exact_array([[0.9, 1], [0, 0.9]], (2, 2))
    array([[0.9, 1. ],
           [0. , 0.9]])
    >>> exact_array(0.5, (2,))
    array([0.5, 0.5])
    """
    return exact_view(values, shape, count=count).copy()


def exact_view(values: ExactValues, shape: tuple[int, ...], *, count: int | None = None) -> np.ndarray:
    """Return what `exact_array` does, read-only and without repeating anything in memory."""
    wanted = shape if count is None else (count, *shape)
    if isinstance(values, Given):
        return np.broadcast_to(_of_array(values.values, shape, wanted), wanted)
    if not isinstance(values, list):
        return np.broadcast_to(_finite(values, ""), wanted)
    given = _shape_of(values, "")
    if given not in (shape, wanted):
        expected = _describe(shape) if count in (None, 1) else f"{_describe(shape)}, or {count} such lists"
        raise InitialiserError(f"expected {expected}; got {_describe(given)}")
    flat: list[float] = []
    _flatten(values, "", flat)
    return np.broadcast_to(np.reshape(flat, given), wanted)


def check_list(values: list[Any]) -> None:
    """Check that a list is a vector of finite numbers, or a matrix of such, whatever its sizes.

    Raises InitialiserError otherwise.
    """
    shape = _shape_of(values, "")
    _flatten(values, "", [])
    if len(shape) > 2:
        form = "a list of numbers or a list of such lists"
        raise InitialiserError(f"expected a vector or a matrix, {form}; got {_describe(shape)}")


def _of_array(values: np.ndarray, shape: tuple[int, ...], wanted: tuple[int, ...]) -> np.ndarray:
    """Return an array of one of two shapes, or of one number, all of whose numbers are finite, as float64."""
    if values.shape not in ((), shape, wanted):  # one number is for all entries, as in a spec
        expected = str(shape) if wanted in (shape, (1, *shape)) else f"{shape}, or {wanted}"
        raise InitialiserError(f"expected an array {expected}; got shape {values.shape}")
    with np.errstate(over="ignore"):
        found = np.asarray(values, dtype=np.float64)
    finite = np.isfinite(found)
    if not finite.all():
        place = np.unravel_index(int(np.argmin(finite)), found.shape)
        raise InitialiserError(f"expected finite numbers; got {values[place]} at [{', '.join(map(str, place))}]")
    return found


def _describe(shape: tuple[int, ...]) -> str:
    if not shape:
        return "a single number"
    if len(shape) == 1:
        return f"a list of {shape[0]} number{'' if shape[0] == 1 else 's'}"
    return f"nested lists of {' x '.join(map(str, shape))}"


def _shape_of(values: Any, place: str) -> tuple[int, ...]:
    """Return the shape of nested lists, all of whose lists at one depth must have one length."""
    if not isinstance(values, list):
        return ()
    if not values:
        raise InitialiserError(f"expected numbers; got an empty list{place and ' at ' + place}")
    first = _shape_of(values[0], f"{place}[0]")
    for index, value in enumerate(values):
        other = _shape_of(value, f"{place}[{index}]")
        if other != first:
            raise InitialiserError(
                f"expected lists of one length; got {_describe(first)} at {place}[0], "
                f"but {_describe(other)} at {place}[{index}]"
            )
    return (len(values), *first)


def _flatten(values: Any, place: str, flat: list[float]) -> None:
    for index, value in enumerate(values):
        if isinstance(value, list):
            _flatten(value, f"{place}[{index}]", flat)
        else:
            flat.append(_finite(value, f"{place}[{index}]"))


def _finite(value: Any, place: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InitialiserError(f"expected a number{place and ' at ' + place}; got {value!r}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        shown = value if isinstance(value, float) else "an integer beyond 1e308"
        raise InitialiserError(f"expected a finite number{place and ' at ' + place}; got {shown}")
    return number
