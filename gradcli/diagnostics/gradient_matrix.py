"""The matrix of gradient norms: of the loss at step t alone, with respect to the states at step s, for all s <= t.

    M[t, s] = mean over sequences of |dL_t/ds_s|

A row read from s = t backwards is the curve of a loss that stands at t; `simulate` shows the last one. Where rows
differ in more than their start, how far a gradient reaches depends on when it sets out.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gradcli.diagnostics.curve import LOG10_2, joined, log2_of_mean
from gradcli.diagnostics.measure import headline_layers, judge_nonfinite, states_of
from gradcli.diagnostics.verdict import Verdict
from gradcli.engine.problem import Problem, Progress
from gradcli.engine.run import Engine
from gradcli.errors import UsageError
from gradcli.frozen import frozen
from gradcli.prepare.build import Network

Array = np.ndarray[Any, Any]

#: Each row is a backward pass of its own: of more steps, so many are taken.
MOST_STEPS = 64


@frozen
class GradientMatrix:
    """Mean norms over trials and sequences, of the states of the top layer joined.

    steps: t, (n,), ascending. states: s, (m,), ascending: step 0, the initial state, and `steps`.
    log10_norm: (n, m); -inf for an exact zero, NaN where s > t, and where no sequence has begun.
    moved: whether the spec has its loss at one step only, and L_t is that loss at step t, with the same target.
    counted: how many steps there are to take.
    verdict: set where a number was not finite; the matrix is empty then.
    """

    network: Network
    steps: Array
    states: Array
    log10_norm: Array
    moved: bool
    counted: int
    verdict: Verdict | None = None


def measure_gradient_matrix(
    network: Network, *, most: int = MOST_STEPS, progress: Progress | None = None
) -> GradientMatrix:
    """Run a network once for each of at most `most` steps, with the loss at that step alone.

    Args:
        network: what to run. progress: told the rows done, and the rows in all.

    Raises:
        UsageError: the layers have two directions, in which no step is before all others.
    """
    problem = network.problem
    if problem.bidirectional:
        raise UsageError(
            "the picture 'matrix' is of steps in one order, which bidirectional layers do not have: a loss at step t"
            " has gradients at later steps too. Set bidirectional to false"
        )
    moved = len(problem.loss.steps) == 1
    counted = np.arange(1, problem.seq_len + 1) if moved else np.sort(problem.loss.steps)
    steps = _thinned(counted, most)
    states = np.concatenate([[0], steps])
    engine = Engine(problem)
    rows: list[Array] = []
    for done, step in enumerate(steps):
        if progress is not None:
            progress("matrix", done, len(steps))
        engine.set_loss(problem.loss.alone_at(int(step)))
        run = engine.run(parameters=False)
        verdict = judge_nonfinite(network, engine, run)
        if verdict is not None:
            return GradientMatrix(network, steps[:0], states[:0], np.empty((0, 0)), moved, len(counted), verdict)
        norms = [run.log2_norm[name] for name in states_of(headline_layers(problem), run.log2_norm)]
        rows.append(_row(problem, joined(norm[states] for norm in norms), int(step), states))
    return GradientMatrix(network, steps, states, np.array(rows), moved, len(counted))


def _thinned(steps: Array, most: int) -> Array:
    """Return at most `most` of ascending steps, evenly spaced, the first and the last among them."""
    if len(steps) <= most:
        return steps
    return np.asarray(steps[np.linspace(0, len(steps) - 1, most).round().astype(int)])


def _row(problem: Problem, log2_norm: Array, step: int, states: Array) -> Array:
    """Return log10 of the mean norm at each of the states, (m, R, B) -> (m,), over the sequences that have step t."""
    if problem.begins is not None:
        log2_norm = log2_norm[:, :, problem.begins.steps < step]
    row = np.full(len(states), np.nan)
    for place in np.flatnonzero(states <= step):
        found = log2_norm[place][~np.isnan(log2_norm[place])]
        if found.size:
            row[place] = log2_of_mean(found, some_missing=False) * LOG10_2
    return row
