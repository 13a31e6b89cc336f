"""The size of a cell's state and the number of its parameters, as formulas in H (hidden_size) and I (input_size)."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from fractions import Fraction
from functools import reduce

from gradcli.language.cell import CellError, ParsedCell, SizedCell
from gradcli.language.sizes import HIDDEN, INPUT

#: Coefficients are counted in twelfths, for sizes such as hidden_size / 4.
_PARTS = 12
# Sizes so far apart that the size of anything made of them, a H + b I + c, can be read off its digits.
_H, _I = _PARTS * 10**8, _PARTS * 10**3

#: A polynomial in H and I: (power of H, power of I) -> coefficient.
_Polynomial = dict[tuple[int, int], Fraction]


def symbolic_shapes(cell: ParsedCell, but: Collection[str] = ()) -> dict[str, tuple[str, ...]]:
    """Return the shape of every parameter in terms of the sizes, such as ("hidden_size", "input_size").

    Args:
        cell: the equations. but: the names of those that are left out.
    """
    shapes = _sized(cell).shapes
    return {name: tuple(map(_in_words, shapes.parameters[name])) for name in cell.parameters if name not in but}


def state_size(cell: ParsedCell) -> str:
    """Return how many numbers a step hands on to the next ones: "2H" for the c and h of an LSTM.

    A state that is only an output, which no later step reads, does not count; one read k steps back counts k times.
    """
    sized = _sized(cell)
    of_states = sized.shapes.of_states
    return _formula(_sum(_scaled(_entries(of_states[name]), sized.lags[name]) for name in cell.carried))


def parameters_per_unit(cell: ParsedCell, twice: Collection[str] = ()) -> str:
    """Return the number of parameters divided by H: "4H + 4I + 8" for an LSTM with PyTorch's biases.

    Args:
        cell: the equations. twice: the names of parameters that count twice.
    """
    shapes = _sized(cell).shapes.parameters
    trained = {name: shape for name, shape in shapes.items() if name not in cell.fixed}
    count = _sum(_product(_entries(shape), _size(1 + (name in twice))) for name, shape in trained.items())
    return _formula({(h - 1, i): coefficient for (h, i), coefficient in count.items()})


def _sized(cell: ParsedCell) -> SizedCell:
    try:
        return cell.at_sizes(_H, _I)
    except CellError:  # a cell that adds its input to its state exists only where both have one size
        return cell.at_sizes(_H, _H)


def _digits(size: int) -> tuple[Fraction, Fraction, Fraction]:
    hidden, rest = divmod(size, _H // _PARTS)
    inputs, number = divmod(rest, _I // _PARTS)
    return Fraction(hidden, _PARTS), Fraction(inputs, _PARTS), Fraction(number)


def _in_words(size: int) -> str:
    hidden, inputs, number = _digits(size)
    terms = [_times(count, word) for count, word in ((hidden, HIDDEN), (inputs, INPUT)) if count]
    return " + ".join(terms + [str(number)] * (number > 0))


def _times(count: Fraction, word: str) -> str:
    whole = word if count.numerator == 1 else f"{count.numerator} {word}"
    return whole if count.denominator == 1 else f"{whole} / {count.denominator}"


def _size(size: int) -> _Polynomial:
    return dict(zip(((1, 0), (0, 1), (0, 0)), _digits(size), strict=True))


def _entries(shape: Iterable[int]) -> _Polynomial:
    """Return how many entries an array of a shape has."""
    return reduce(_product, map(_size, shape), _size(1))


def _sum(terms: Iterable[_Polynomial]) -> _Polynomial:
    result: _Polynomial = {}
    for polynomial in terms:
        for powers, coefficient in polynomial.items():
            result[powers] = result.get(powers, Fraction()) + coefficient
    return result


def _scaled(polynomial: _Polynomial, factor: int) -> _Polynomial:
    return {powers: factor * coefficient for powers, coefficient in polynomial.items()}


def _product(a: _Polynomial, b: _Polynomial) -> _Polynomial:
    result: _Polynomial = {}
    for (h, i), one in a.items():
        for (k, j), other in b.items():
            result[h + k, i + j] = result.get((h + k, i + j), Fraction()) + one * other
    return result


def _formula(polynomial: _Polynomial) -> str:
    """Return the terms in falling powers of H and then I, such as "H + I + 2 + 2/H"; "0" where there is none."""
    return " + ".join(_term(*powers, n) for powers, n in sorted(polynomial.items(), reverse=True) if n) or "0"


def _term(h: int, i: int, coefficient: Fraction) -> str:
    letters = "".join(
        letter + (f"^{power}" if power > 1 else "") for letter, power in (("H", h), ("I", i)) if power > 0
    )
    number = "" if coefficient.numerator == 1 and letters else str(coefficient.numerator)
    part = "" if coefficient.denominator == 1 else f"/{coefficient.denominator}"
    return number + letters + part + ("/H" if h < 0 else "")
