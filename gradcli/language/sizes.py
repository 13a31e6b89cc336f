"""Sizes as `shapes:` says them: whole numbers, hidden_size, input_size, and products, quotients, sums of these."""

from __future__ import annotations

import ast
from collections.abc import Mapping

HIDDEN = "hidden_size"
INPUT = "input_size"

Dimension = int | str

#: A size beyond this is a mistake.
LARGEST = 2**31


def size_at(dimension: Dimension, named: Mapping[str, int] | None) -> int:
    """Return a size where hidden_size and input_size have these values; without values it is only checked.

    >>> size_at("2 * hidden_size / 4", {"hidden_size": 6, "input_size": 3})
    3

    Raises:
        ValueError: it is no size: the sentence says why.
    """
    if isinstance(dimension, int):
        return dimension
    try:
        tree = ast.parse(dimension, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError(_expected(dimension)) from None
    if named is None:
        _value(tree, dimension, {HIDDEN: 1, INPUT: 1})
        return 1
    value = _value(tree, dimension, named)
    if value != int(value):
        raise ValueError(f"{dimension} is no whole number where {_sizes_in(dimension, named)}")
    if not 1 <= value <= LARGEST:
        raise ValueError(f"{dimension} is {value:g} where {_sizes_in(dimension, named)}; a size is at least 1")
    return int(value)


def _value(tree: ast.expr, text: str, named: Mapping[str, int]) -> float:
    match tree:
        case ast.Constant(value=int() as number) if type(number) is int and number <= LARGEST:
            return float(number)
        case ast.Name(id=name) if name in named:
            return float(named[name])
        case ast.BinOp(left=left, op=op, right=right):
            a, b = _value(left, text, named), _value(right, text, named)
            match op:
                case ast.Mult():
                    return a * b
                case ast.Add():
                    return a + b
                case ast.Sub():
                    return a - b
                case ast.Div() | ast.FloorDiv() if b:
                    return a / b
    raise ValueError(_expected(text))


def _sizes_in(text: str, named: Mapping[str, int]) -> str:
    return " and ".join(f"{name} is {value}" for name, value in named.items() if name in text)


def _expected(dimension: object) -> str:
    return (
        f"a size is a whole number, {HIDDEN} or {INPUT}, or made of these by * and /, such as {HIDDEN} / 4; "
        f"got {dimension!r}"
    )
