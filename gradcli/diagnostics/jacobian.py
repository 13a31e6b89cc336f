"""The Jacobian over many steps, dS_T/dS_{T-d} = J_T J_{T-1} ... J_{T-d+1}: which directions of the state survive.

S is the full state, (h, c) for the LSTM: the product of blocks of it alone is not the Jacobian. The product is carried
as a mantissa and a power of two, so its size has no limit; what its singular values can resolve has one, see `Spectra`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gradcli.diagnostics.curve import LOG10_2
from gradcli.engine.linearised import LinearisedBlock, StepMaps, full_state_size
from gradcli.engine.problem import BackwardOverflow, Overflow
from gradcli.engine.run import Engine
from gradcli.engine.scaled import exponent_of, scale_by
from gradcli.frozen import frozen

Array = np.ndarray[Any, Any]

#: Steps that are linearised at once.
BLOCK = 64
#: The product's squared norm is brought back between these; powers of two are exact, so how often changes nothing.
_SAFE = (2.0**-200, 2.0**200)


@frozen
class Spectra:
    """Singular values s_1 >= ... >= s_N of dS_T/dS_{T-d}, for R trials and D distances; logarithms to base 10.

    An exact zero is -inf: the product has a row or a column of zeros for it, as each read-out has, which no step has a
    slope in. What double precision cannot tell from rounding, below N * 2.2e-16 of the largest, is NaN.

    size: N. distances: (D,). largest, median, smallest: (R, D), of the singular values. condition: (R, D), s_1/s_N.
    frobenius: (R, T+1) at every distance, ||J||_F = sqrt(sum s_i^2): sqrt(N) times the root mean square of the norm
        that a gradient of norm 1 in a random direction keeps.
    effective_rank: (R, D), exp(-sum p_i ln p_i) with p_i = s_i / sum s (Roy and Vetterli 2007).
    surviving: (R, D), how many singular values are at least the threshold.
    step_norm, step_radius: (R, D), the largest singular value and the largest absolute eigenvalue of the factor
        J_{T-d+1} that leads from d-1 to d; NaN at d = 0.
    peak_distance, peak: (R,), where the largest singular value of all distances lies, and what it is there.
    """

    size: int
    distances: Sequence[int]
    largest: Array
    median: Array
    smallest: Array
    frobenius: Array
    condition: Array
    effective_rank: Array
    surviving: Array
    step_norm: Array
    step_radius: Array
    peak_distance: Array
    peak: Array

    @property
    def middle_peak(self) -> int:
        """The trial whose peak is the median one, the lower of two: the medians of place and of height are of none."""
        return int(np.lexsort((self.peak_distance, self.peak))[(len(self.peak) - 1) // 2])


def jacobian_spectra(
    engine: Engine,
    layer: int,
    distances: Sequence[int],
    *,
    threshold: float,
    on_step: Callable[[int], None] = lambda done: None,
) -> Spectra:
    """Return the singular values of the Jacobian products of one layer, for each trial's first or longest sequence.

    Args:
        engine: ready to run. layer: its number.
        distances: those wanted, 0..T, ascending.
        threshold: from which singular value on a direction counts as surviving.
        on_step: told how many steps are done, over all trials.

    Raises:
        ForwardOverflow: the forward pass is not finite. BackwardOverflow: a derivative is not.
    """
    problem = engine.problem
    found: list[_Product] = []
    done = 0
    for _, group in engine.groups():
        held = group.layers[layer]
        products = [
            _Product(full_state_size(held.plan, held.batch_size), distances, threshold) for _ in range(held.trials)
        ]
        for lo, hi in group.walk_back():
            for last in range(hi - lo, 0, -BLOCK):
                first = max(0, last - BLOCK)
                block = LinearisedBlock(held, first, last, problem.longest)
                for trial, product in enumerate(products):
                    maps = block.maps(trial)
                    for step in reversed(range(maps.steps)):
                        product.take(maps, step)
                    done += maps.steps
                    on_step(done)
        found += products
    broken = [product.distance for product in found if not product.is_finite]
    if broken:
        trials = np.array([not product.is_finite and product.distance == min(broken) for product in found])
        raise BackwardOverflow(Overflow(problem.seq_len - min(broken), layer, trials))
    assert all(product.distance == problem.seq_len for product in found)
    rows = {name: np.array([product.rows[name] for product in found]) for name in found[0].rows}
    return Spectra(
        found[0].size,
        distances,
        **rows,
        frobenius=np.array([product.frobenius for product in found]),
        peak_distance=np.array([product.peak_distance for product in found]),
        peak=np.array([product.exact_peak() for product in found]),
    )


class _Product:
    """The transposed product of one trial, U = (J_T ... J_{T-d+1})^T, growing step by step."""

    def __init__(self, size: int, distances: Sequence[int], threshold: float) -> None:
        self.size, self.distance = size, 0
        self._wanted, self._threshold = frozenset(distances), threshold
        self._mantissa, self._exponent, self._other = np.eye(size), 0, np.empty((size, size))
        self.is_finite = True
        self.rows: dict[str, list[float]] = {
            name: []
            for name in (
                "largest",
                "median",
                "smallest",
                "condition",
                "effective_rank",
                "surviving",
                "step_norm",
                "step_radius",
            )
        }
        self.peak_distance, self._peak, self._largest = 0, (np.eye(size), 0), 0.0
        self._direction = np.full(size, 1.0 / np.sqrt(size))
        self.frobenius = [0.5 * float(np.log10(size))]
        self._look(None)

    def take(self, maps: StepMaps, step: int) -> None:
        """Multiply the map of one more step in; where that is not finite, go no further."""
        if not self.is_finite:
            return
        with np.errstate(all="ignore"):
            self._mantissa, self._other = maps.pull_back(step, self._mantissa, self._other), self._mantissa
            flat = self._mantissa.ravel()
            square = float(flat @ flat)
        self.distance += 1
        if not _SAFE[0] < square < _SAFE[1]:
            self.is_finite = bool(np.isfinite(flat).all())
            if not self.is_finite:
                return
            shift = int(exponent_of(np.abs(flat).max()))
            self._mantissa, self._exponent = scale_by(self._mantissa, np.asarray(-shift)), self._exponent + shift
            flat = self._mantissa.ravel()
            square = float(flat @ flat)
        norm = 0.5 * math.log2(square) + self._exponent if square else -math.inf
        self.frobenius.append(norm * LOG10_2)
        if norm > self._largest:  # ||J||_F bounds the largest singular value
            self._watch_peak()
        if self.distance in self._wanted:
            self._look(lambda: maps.pull_back(step, np.eye(self.size)))

    def _watch_peak(self) -> None:
        """Estimate the largest singular value by the power method, and keep the product where it was largest so far.

        The left singular vector changes little from step to step, so that one iteration a step follows it.
        """
        image = self._mantissa @ self._direction
        norm = float(np.linalg.norm(image))
        if norm == 0.0:  # a direction that is mapped to zero finds no other: the longest column is none such
            image = self._mantissa[:, np.linalg.norm(self._mantissa, axis=0).argmax()]
            norm = float(np.linalg.norm(image))
        if norm == 0.0:
            return
        back = self._mantissa.T @ (image / norm)
        length = float(np.linalg.norm(back))
        if length == 0.0:
            return
        self._direction = back / length
        estimate = math.log2(length) + self._exponent
        if estimate > self._largest:
            self._largest, self.peak_distance = estimate, self.distance
            self._peak = (self._mantissa.copy(), self._exponent)

    def exact_peak(self) -> float:
        """Return log10 of the largest singular value at the peak."""
        mantissa, exponent = self._peak
        return float(np.log10(np.linalg.norm(mantissa, 2)) + exponent * LOG10_2)

    def _look(self, one_step: Callable[[], Array] | None) -> None:
        """Note the singular values at this distance, and those of the last factor."""
        values = np.linalg.svd(self._mantissa, compute_uv=False)
        offset = self._exponent * LOG10_2
        resolved = values > self.size * np.finfo(np.float64).eps * values[0]
        logs = np.full(self.size, -np.inf if values[0] == 0.0 else np.nan)
        logs[resolved] = np.log10(values[resolved]) + offset
        rank = min(np.count_nonzero(self._mantissa.any(axis=axis)) for axis in (0, 1))
        logs[rank:] = -np.inf
        if logs[0] > self._largest / math.log2(10.0):  # exact, where the estimate may be too small
            self._largest, self.peak_distance = float(logs[0]) * math.log2(10.0), self.distance
            self._peak = (self._mantissa.copy(), self._exponent)
        shares = values[values > 0] / values.sum() if values[0] > 0 else np.empty(0)
        factor = None if one_step is None else one_step()
        eigenvalues = np.nan if factor is None else np.abs(np.linalg.eigvals(factor)).max(initial=0.0)
        row = {
            "largest": logs[0],
            "median": _middle(logs),
            "smallest": logs[-1],
            "condition": logs[0] - logs[-1] if np.isfinite(logs[-1]) else np.nan,
            "effective_rank": float(np.exp(-(shares * np.log(shares)).sum())) if shares.size else 0.0,
            "surviving": float((logs[resolved] >= np.log10(self._threshold)).sum()),
            "step_norm": np.nan if factor is None else float(np.linalg.norm(factor, 2)),
            "step_radius": float(eigenvalues),
        }
        for name, value in row.items():
            self.rows[name].append(float(value))


def _middle(logs: Array) -> float:
    """Return the median of logarithms in descending order; NaN where it is not resolved."""
    low, high = (len(logs) - 1) // 2, len(logs) // 2
    return float(logs[low] if logs[low] == logs[high] else 0.5 * (logs[low] + logs[high]))
