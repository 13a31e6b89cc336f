"""Lyapunov exponents along a trajectory: the mean rates, in nats a step, at which tangent vectors grow or shrink.

Q_t R_t = J_t Q_{t-1} (QR decomposition), lambda_i = mean over steps of ln |R_ii| (Benettin et al. 1980; for recurrent
networks Engelken, Wolf and Abbott 2023, Vogt et al. 2022). With input they are exponents of the driven system, given
that input. They describe the same products as the Jacobian's singular values do, for distances that go to infinity.

They are those of the map of the states that are carried on. What is only read out adds exponents of minus infinity; in
the norm of the tangents it would have a part, and over a few steps the growth of that part would count as growth.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from gradcli.diagnostics.curve import median_of_trials
from gradcli.diagnostics.jacobian import BLOCK
from gradcli.engine.linearised import LinearisedBlock, carried_states, full_state, full_state_size
from gradcli.engine.problem import Problem
from gradcli.engine.run import Engine
from gradcli.frozen import frozen

Array = np.ndarray[Any, Any]

#: Between two decompositions the columns may spread by this many nats: e^10 costs four digits of sixteen.
_SPREAD = 10.0
_MOST_STEPS = 10
#: The standard error is that of the means of so many stretches of the trajectory, which are nearly independent.
_STRETCHES = 16
#: In nats a step, what rounding makes of an exponent, and of what eigenvalues say that it is at most.
_ROUNDING, _ROUNDING_OF_EIGENVALUES = 1e-12, 1e-9


@frozen
class Lyapunov:
    """Exponents of R trials, lambda_1 >= lambda_2 >= ..., in nats a step; -inf where a direction is mapped to zero.

    exponents: (R, k). standard_error: (R, k), of the mean over the steps; NaN where there are too few steps.
    size: N, how many exponents there are in all; carried: how many of them belong to states that are carried on, the
        others being minus infinity. steps: over how many steps was averaged, after `burn_in` others.
    ceiling: what is proven of lambda_1 in the long run, in every trial: it is at most that. Infinite: nothing is.
    substitutes: the functions, "spike" and "stop", for which the Jacobian has other slopes than the dynamics.
    """

    size: int
    carried: int
    exponents: Array
    standard_error: Array
    steps: int
    burn_in: int
    ceiling: float = math.inf
    substitutes: tuple[str, ...] = ()

    @property
    def of_dynamics(self) -> bool:
        """Whether these are exponents of the dynamics, and not of the gradient alone."""
        return not self.substitutes

    @property
    def complete(self) -> bool:
        """Whether all exponents are known, not only the leading ones."""
        return int(self.exponents.shape[1]) == self.size

    @property
    def typical(self) -> Array:
        """The median over trials of each exponent, (k,); what is within rounding of zero is zero."""
        middle = median_of_trials(self.exponents)
        return np.where(np.abs(middle) < _ROUNDING, 0.0, middle)

    @property
    def is_of_these_steps(self) -> bool:
        """Whether the leading exponent is above all that it can be in the long run, which so few steps do not tell."""
        return float(self.typical[0]) > self.ceiling + _ROUNDING_OF_EIGENVALUES

    @property
    def grows(self) -> bool:
        """Whether a direction grows, and nothing proves that it does not in the long run."""
        return float(self.typical[0]) > 0 and not (self.is_of_these_steps and self.ceiling <= _ROUNDING_OF_EIGENVALUES)

    # What follows is made of the exponents that are told, so that they can be recomputed; it speaks of the dynamics.

    def predictability_time(self) -> float:
        """Return ln 2 / lambda_1 in steps: how long until a small difference has doubled (Mikhaeil et al. 2022, eq. 17:
        the interval for truncated BPTT or forcing); infinite where nothing grows, NaN without dynamics."""
        if not self.of_dynamics:
            return math.nan
        return math.log(2.0) / float(self.typical[0]) if self.grows else math.inf

    def kaplan_yorke_dimension(self) -> float:
        """Return D = j + (lambda_1 + ... + lambda_j) / abs(lambda_{j+1}), j the largest with a sum >= 0 (Kaplan and
        Yorke 1979); NaN where the known exponents do not settle it, or those of a few steps are not those at last."""
        if not self.of_dynamics:
            return math.nan
        if self.is_of_these_steps:
            return 0.0 if self.ceiling < 0 else math.nan
        return _kaplan_yorke(self.typical, self.complete)

    def entropy(self) -> float:
        """Return the sum of the positive exponents in nats a step: the Kolmogorov-Sinai entropy by Pesin's formula; NaN
        where all known exponents are positive and there are more."""
        positive = self.typical[self.typical > 0]
        if not self.of_dynamics or (not self.complete and len(positive) == len(self.typical)):
            return math.nan
        return float(positive.sum()) if self.grows else 0.0


def _kaplan_yorke(exponents: Array, complete: bool) -> float:
    """Return the dimension that a descending spectrum implies.

    >>> round(_kaplan_yorke(np.log([2.0, 1.0, 0.25]), True), 12)
    2.5
    """
    sums = np.cumsum(exponents)
    falling = np.flatnonzero(~(sums >= 0))
    if not falling.size:
        return float(len(exponents)) if complete else math.nan
    j = int(falling[0])
    before = float(sums[j - 1]) if j else 0.0
    return j + before / abs(float(exponents[j])) if math.isfinite(exponents[j]) else float(j)


def lyapunov_exponents(
    engine: Engine,
    layer: int,
    *,
    count: int,
    burn_in: int,
    rng: np.random.Generator,
    on_step: Callable[[int], None] = lambda done: None,
) -> Lyapunov:
    """Return the leading exponents of one layer, for each trial's first or longest sequence.

    Args:
        engine: ready to run. layer: its number.
        count: k, at most the size of the full state. burn_in: steps at the start that are not averaged over.
        rng: draws the directions that the tangents start in.
        on_step: told how many steps are done, over all trials.

    Raises:
        ForwardOverflow: the forward pass is not finite.
    """
    problem = engine.problem
    size = full_state_size(problem.plans[layer], problem.batch_size)
    count = min(count, size)
    read_out = _read_out(problem, layer)
    carried = size - int(read_out.sum())
    draws = rng.standard_normal((size, count))
    draws[read_out] = 0.0
    # Where nothing is carried on, one tangent is mapped to zero, and tells so.
    start = np.linalg.qr(draws[:, : max(carried, 1)])[0]
    found: list[_Tangents] = []
    done = 0
    for _, group in engine.groups():
        held = group.layers[layer]
        tangents = [_Tangents(start, burn_in) for _ in range(held.trials)]
        for lo, hi in group.walk_forward():
            for first in range(0, hi - lo, BLOCK):
                last = min(first + BLOCK, hi - lo)
                block = LinearisedBlock(held, first, last, problem.longest)
                for trial, own in enumerate(tangents):
                    maps = block.maps(trial)
                    for step in range(maps.steps):
                        columns = maps.push_forward(step, own.columns)
                        columns[read_out] = 0.0
                        own.take(columns)
                    done += maps.steps
                    on_step(done)
        for own in tangents:
            own.decompose()
        found += tangents
    steps = problem.seq_len - burn_in
    exponents = np.array([own.mean(steps) for own in found])
    errors = np.array([own.standard_error() for own in found])
    order = np.argsort(-exponents, axis=1, kind="stable")
    missing = ((0, 0), (0, count - exponents.shape[1]))
    return Lyapunov(
        size,
        carried,
        np.pad(np.take_along_axis(exponents, order, axis=1), missing, constant_values=-np.inf),
        np.pad(np.take_along_axis(errors, order, axis=1), missing, constant_values=np.nan),
        steps,
        burn_in,
    )


def _read_out(problem: Problem, layer: int) -> Array:
    """Return which entries of the full state are only read out, (N,)."""
    plan = problem.plans[layer]
    carried = carried_states(plan)
    entries = [np.full(slot.stop - slot.start, slot.name not in carried) for slot in full_state(plan)]
    return np.repeat(np.concatenate(entries), problem.batch_size if plan.couples_sequences else 1)


class _Tangents:
    """The tangents of one trial, orthogonalised again and again, and what they grew by."""

    def __init__(self, start: Array, burn_in: int) -> None:
        self.columns = start
        self._burn_in, self._step = burn_in, 0
        self._since, self._next = 0, 1
        self._growth: list[Array] = []
        self._lengths: list[int] = []

    def take(self, columns: Array) -> None:
        """Go on with the tangents after one more step."""
        self.columns = columns
        self._step += 1
        self._since += 1
        # Averages begin exactly after the burn-in: a decomposition ends there.
        if self._since >= self._next or self._step == self._burn_in:
            self.decompose()

    def decompose(self) -> None:
        """Make the tangents orthonormal again, and note ln |R_ii|; -inf where a direction was lost."""
        if not self._since:
            return
        largest = np.abs(self.columns).max(axis=0, initial=0.0)
        scale = np.where(largest > 0, largest, 1.0)
        # A column of a tiny number times a direction: its size goes into the sum, not into the decomposition.
        self.columns, triangle = np.linalg.qr(self.columns / scale)
        diagonal = np.abs(np.diag(triangle)) * scale
        growth = np.full(len(diagonal), -np.inf)
        np.log(diagonal, out=growth, where=diagonal > 0)
        if self._step > self._burn_in:
            self._growth.append(growth)
            self._lengths.append(self._since)
        finite = growth[np.isfinite(growth)]
        spread = float(np.ptp(finite)) / self._since if finite.size else math.inf
        self._next = int(min(max(1.0, _SPREAD / spread), _MOST_STEPS)) if spread > 0 else _MOST_STEPS
        self._since = 0

    def mean(self, steps: int) -> Array:
        return np.asarray(np.sum(self._growth, axis=0) / steps)

    def standard_error(self) -> Array:
        """Return the standard error of the mean, from means over stretches of about equal length."""
        k = self.columns.shape[1]
        lengths = np.array(self._lengths)
        ends = np.cumsum(lengths)
        stretch = np.minimum((ends - 1) * _STRETCHES // ends[-1], _STRETCHES - 1)
        if len(np.unique(stretch)) < _STRETCHES:
            return np.full(k, np.nan)
        growth = np.array(self._growth)
        with np.errstate(invalid="ignore"):
            means = np.array(
                [growth[stretch == i].sum(axis=0) / lengths[stretch == i].sum() for i in range(_STRETCHES)]
            )
            return np.asarray(means.std(axis=0, ddof=1) / math.sqrt(_STRETCHES))
