"""The spectra of recurrent matrices: how much they can lengthen a vector, and how their powers grow."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradcli.engine.parameters import LayerParameters
from gradcli.engine.step.plan import LayerPlan
from gradcli.frozen import frozen
from gradcli.language.graph import Node

Array = np.ndarray[Any, Any]

#: The eigenvalues of a larger matrix would take minutes; where nobody has asked for them, they are left out.
LARGEST_FOR_RADIUS = 2048


@frozen
class MatrixSpectrum:
    """A recurrent matrix, for each of R trials.

    spectral_norm: sigma_max, the largest singular value. spectral_radius: the largest absolute eigenvalue, and
    departure: Henrici's departure from normality, sqrt(||W||_F^2 - sum abs(lambda_i)^2), 0 for normal matrices; both
    NaN for a matrix that is not square, or too large for them. All (R,).
    """

    name: str
    shape: tuple[int, int]
    spectral_norm: Array
    spectral_radius: Array
    departure: Array


def spectrum(name: str, values: Array, *, largest: int | None = None) -> MatrixSpectrum:
    """Return the spectrum of a matrix, (R, rows, columns).

    Args:
        largest: the most rows of which eigenvalues are computed; None for any number.

    >>> found = spectrum("W", np.array([[[0.5, 3.0], [0.0, -0.25]], [[0.0, 2.0], [0.0, 0.0]]]))
    >>> found.spectral_radius
    array([0.5, 0. ])
    >>> float(found.spectral_norm[1])
    2.0
    """
    rows, columns = values.shape[1:]
    norms = np.linalg.norm(values, 2, axis=(1, 2)) if rows and columns else np.zeros(len(values))
    radius = departure = np.full(len(values), np.nan)
    if rows == columns and (largest is None or rows <= largest):
        magnitudes = np.abs(np.linalg.eigvals(values))
        radius = magnitudes.max(axis=1, initial=0.0)
        with np.errstate(over="ignore", invalid="ignore"):  # of squares beyond the range it is not known
            rest = np.square(values).sum(axis=(1, 2)) - np.square(magnitudes).sum(axis=1)
            departure = np.sqrt(np.maximum(rest, 0.0))
    return MatrixSpectrum(name, (rows, columns), norms, radius, departure)


def matrix_spectra(plan: LayerPlan, parameters: LayerParameters, *, largest: int | None = None) -> list[MatrixSpectrum]:
    """Return the spectrum of every recurrent matrix of a layer, in the order of the equations.

    Args:
        largest: as for `spectrum`.
    """
    wanted = set(plan.recurrent_products)
    matrices = dict.fromkeys(node.args[0] for node in plan.order if node in wanted)
    return [spectrum(matrix_label(node), np.asarray(parameters.known(node)), largest=largest) for node in matrices]


def matrix_label(node: Node) -> str:
    """Return the name of a matrix as the equations write it: W_hh, W.T, W[part 2] of a concatenation's columns."""
    match node.op:
        case "parameter":
            return str(node.data)
        case "transpose":
            return f"{matrix_label(node.args[0])}.T"
        case "columns":
            return f"{matrix_label(node.args[0])}[part {node.data[0] + 1}]"
        case "number":
            return f"{node.data:g}"
        case "sum":
            terms = [f"{'+-'[sign < 0]} {matrix_label(arg)}" for sign, arg in zip(node.data, node.args, strict=True)]
            return f"({' '.join(terms).removeprefix('+ ')})"
        case "mul":
            return " * ".join(map(matrix_label, node.args))
        case "div":
            return " / ".join(map(matrix_label, node.args))
        case _:
            return f"{node.data}({', '.join(map(matrix_label, node.args))})"
