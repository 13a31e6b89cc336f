"""Activations with parameters, as templates in the language of equations, in which {} stands for the argument."""

from __future__ import annotations

from gradcli.language.functions import LEAKY_SLOPE

IDENTITY = "{}"


def called(function: str) -> str:
    """Return a function of the language.

    >>> called("softsign")
    'softsign({})'
    """
    return f"{function}({{}})"


def affine(scale: float, shift: float) -> str:
    """Return scale * a + shift.

    >>> affine(0.5, -1.0)
    '(0.5 * ({}) + -1.0)'
    """
    return f"({scale!r} * ({{}}) + {shift!r})"


def leaky_relu(slope: float) -> str:
    """Return a where a > 0, else slope * a (Maas, Hannun and Ng 2013).

    >>> leaky_relu(0.2)
    '(0.8 * relu({}) + 0.2 * ({}))'
    """
    if slope == LEAKY_SLOPE:
        return called("leaky_relu")
    return called("relu") if slope == 0 else f"({1.0 - slope!r} * relu({{}}) + {slope!r} * ({{}}))"


def elu(alpha: float) -> str:
    """Return a where a > 0, else alpha * (exp(a) - 1) (Clevert, Unterthiner and Hochreiter 2016).

    >>> elu(0.5)
    '(0.5 * relu({}) + 0.5 * elu({}))'
    """
    return called("elu") if alpha == 1 else f"({1.0 - alpha!r} * relu({{}}) + {alpha!r} * elu({{}}))"


def scaled_tanh(scale: float, slope: float) -> str:
    """Return scale * tanh(slope * a) (LeCun et al. 1998)."""
    return f"({scale!r} * tanh({slope!r} * ({{}})))"


def hard_sigmoid(slope: float, shift: float) -> str:
    """Return slope * a + shift, kept within 0 .. 1.

    gradcli's own has slope 1/6 and shift 1/2:

    >>> hard_sigmoid(0.2, 0.5)
    'hard_sigmoid(1.2000000000000002 * ({}))'
    """
    moved = f" + {6.0 * (shift - 0.5)!r}" if shift != 0.5 else ""
    return f"hard_sigmoid({6.0 * slope!r} * ({{}}){moved})"
