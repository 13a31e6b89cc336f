"""Contributions: which steps a parameter's gradient is made of, and what truncated BPTT would leave of it.

With G = dL_T/dW and T - k = d, the gradient is a sum of one term for each step,

    G = sum_d g_d,    g_d = (dL_T/ds_k) (d+ s_k / dW),

where d+ holds the state before step k constant (Pascanu, Mikolov and Bengio 2013, equation 4). BPTT truncated to a
window of K steps is G_K = g_0 + ... + g_(K-1). The terms' norms do not add up to the gradient's; their projections on
it, <g_d, G> / <G, G>, do: their sum is 1.

Where weights are not tied, W joins those of all steps as one vector, and g_d is zero but for step T - d's own part.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gradcli.diagnostics.curve import LOG10_2, Curve, curve_of, quantiles
from gradcli.diagnostics.measure import judge_nonfinite
from gradcli.diagnostics.term_sums import NUMBERS_KEPT, Sums, TermsOfProducts, dots, in_units_of, sums_of_terms
from gradcli.diagnostics.verdict import Verdict
from gradcli.engine.blocks import walk_adjoints
from gradcli.engine.group import TrialGroup
from gradcli.engine.parameter_gradients import terms_of_steps, walk_gradients
from gradcli.engine.problem import Progress, Run
from gradcli.engine.run import Engine
from gradcli.engine.scaled import Scaled, common_exponent, scale_by
from gradcli.engine.sizes import Sizes
from gradcli.engine.step.plan import LayerPlan
from gradcli.frozen import frozen
from gradcli.prepare.build import Network

Array = np.ndarray[Any, Any]

#: What a truncated gradient may miss, relative to the norm of the whole, in the windows that are named.
TOLERANCES = (0.05, 0.01)
#: The terms of a block of steps take about so many bytes, or those of one step.
_TERMS_BYTES = 4 * 2**20
_FLOAT = 8
#: Relative differences below so many times the precision of the run are rounding.
_ROUNDING = 64


@frozen
class Terms:
    """The terms of one gradient, of a parameter or of all parameters of a layer as one vector; medians over trials.

    By distance d = 0 .. T-1, each (T,):

    log10_norm: of the term. log10_relative: the same over the norm of the whole gradient.
    share: <g_d, G> / <G, G>.

    By window K = 1 .. T, each (T,), of G_K = g_0 + ... + g_(K-1):

    kept: <G_K, G> / <G, G>, the sum of the shares. norm_kept: |G_K| / |G|. cosine: between G_K and G.
    bias: |G_K - G| / |G|; below `rounding` it is nothing but rounding.

    log10_total: log10 |G|. value: the gradient itself, where it is one number in one trial; else None.
    Relative numbers are NaN where the whole gradient is exactly zero.
    """

    log10_norm: Array
    log10_relative: Array
    share: Array
    kept: Array
    norm_kept: Array
    cosine: Array
    bias: Array
    log10_total: float
    value: float | None
    rounding: float

    def window(self, tolerance: float) -> int | None:
        """Return the smallest K from which on the bias is at most `tolerance`; None where there is no gradient."""
        return _first_for_good(self.bias <= tolerance) if self.exists else None

    def window_by_cosine(self, tolerance: float) -> int | None:
        """Return the smallest K with a cosine of at least 1 - `tolerance`, likewise."""
        return _first_for_good(self.cosine >= 1.0 - tolerance) if self.exists else None

    @property
    def exists(self) -> bool:
        """Whether there is a gradient that is not exactly zero."""
        return bool(np.isfinite(self.bias).any())


@frozen
class Contributions:
    """What `gradcli contributions` finds.

    network: with the loss at its last step alone, and no step after that. layer: its number.
    loss_steps: at how many steps the loss had been. verdict: set where a number was not finite; then nothing else is.
    state_curve: of the states of the layer joined, by distance 0 .. T.
    joint: all parameters of the layer as one vector. parameters: "W_hh" -> its own.
    """

    network: Network
    layer: int
    loss_steps: int
    verdict: Verdict | None
    state_curve: Curve | None = None
    joint: Terms | None = None
    parameters: Mapping[str, Terms] | None = None


def of_last_loss(network: Network) -> Network:
    """Return a network whose loss is at its last step alone, and which ends there: distance counts from that step."""
    problem = network.problem
    loss = problem.loss.last_alone()
    return replace(network, problem=replace(problem, loss=loss, seq_len=loss.last_step))


def measure_contributions(network: Network, layer: int, *, progress: Progress | None = None) -> Contributions:
    """Run a network and take the gradient of a layer's parameters apart, step by step.

    Args:
        network: what to run. layer: its number, from 0. progress: called while it is under way.
    """
    loss_steps = len(network.problem.loss.steps)
    network = of_last_loss(network)
    engine = Engine(network.problem, progress=progress)
    prefix = f"{network.problem.names[layer]}."
    size = network.problem.trials, network.problem.seq_len
    sums: dict[str, Sums] = {}

    def take(trials: slice, group: TrialGroup, run: Run) -> None:
        if run.overflow is None and run.backward_overflow is None:
            whole = _gradients(run, prefix)
            for name in whole:
                sums.setdefault(name, Sums.of_size(*size))
            # Beside a sum in which they cancel to nearly nothing, terms may be beyond a float.
            with np.errstate(over="ignore", invalid="ignore"):
                if whole:
                    _take_apart(group, layer, whole, trials, sums)

    run = engine.run(after=take)
    verdict = judge_nonfinite(network, engine, run)
    if verdict is not None:
        return Contributions(network, layer, loss_steps, verdict)
    curve = curve_of(*(norm for name, norm in run.log2_norm.items() if name.startswith(prefix)))
    whole = _gradients(run, prefix)
    rounding = _ROUNDING * float(np.finfo(network.problem.dtype).eps)
    parameters = {name: _terms(sums[name], whole[name], rounding) for name in whole}
    copies = [network.problem.copies.get(f"{prefix}{name}", 1) for name in whole]
    joint = _joint([sums[name] for name in whole], list(whole.values()), copies, rounding) if whole else None
    return Contributions(network, layer, loss_steps, None, curve, joint, parameters)


def bytes_kept(plan: LayerPlan, sizes: Sizes) -> int:
    """Return about how many bytes `measure_contributions` needs beside the run: some numbers a step, not the terms.

    Args:
        plan: of the layer. sizes: of the problem.
    """
    shapes = plan.cell.shapes.parameters
    entries = sizes.trials * sum(int(np.prod(shape)) for shape in shapes.values())
    per_step = sizes.trials * (len(shapes) + 1) * NUMBERS_KEPT
    # The medians of each, and what the JSON makes of them; and some copies of the terms of a block of steps.
    at_once = max(entries, _TERMS_BYTES // _FLOAT)
    return _FLOAT * (3 * sizes.seq_len * (per_step + 7 * (len(shapes) + 1)) + 6 * at_once)


def steps_at_once(whole: Mapping[str, Scaled]) -> int:
    """Return for how many steps the terms of gradients are there together: as many as stay near the cache."""
    entries = sum(gradient.mantissa.size for gradient in whole.values())
    return max(1, _TERMS_BYTES // (_FLOAT * max(entries, 1)))


def _gradients(run: Run, prefix: str) -> dict[str, Scaled]:
    """Return a layer's gradients; those that are zero, whose exponent is arbitrary, at the largest of the others'."""
    whole = {name.removeprefix(prefix): g for name, g in run.gradients.items() if name.startswith(prefix)}
    if not whole:
        return {}
    largest = common_exponent(list(whole.values()))
    return {n: Scaled(g.mantissa, np.where(g.nonzero(), g.exponent, largest)) for n, g in whole.items()}


def _take_apart(
    group: TrialGroup, layer: int, whole: Mapping[str, Scaled], trials: slice, sums: Mapping[str, Sums]
) -> None:
    """Walk over the terms of some trials, and keep their norms and products with the whole gradient.

    A second backward pass, because the products need the gradient that the first one gave; the terms themselves, T
    times as large as the parameters, are never all there at once.
    """
    if not group.problem.tied:
        _take_apart_untied(group, layer, whole, trials, sums)
        return
    problem = group.problem
    products = TermsOfProducts(group.passes(parameters=True)[layer], whole, problem.seq_len, problem.divisor)
    others = {name: gradient for name, gradient in whole.items() if name not in products.names}
    windows = {name: np.zeros((len(g.mantissa), g.mantissa[0].size)) for name, g in others.items()}
    for visit in walk_adjoints(group, longest=steps_at_once(others), by_step=layer if others else None):
        (first, last), backward, block = visit.steps, visit.passes[layer], visit.blocks[layer]
        products.add(backward, block, problem.seq_len - last)
        if others:
            terms = terms_of_steps(backward, block, problem.divisor, besides=products.nodes)
            for name, gradient in others.items():
                found = sums_of_terms(terms[name], gradient, windows[name])
                sums[name].put(slice(problem.seq_len - last, problem.seq_len - first), trials, found)
    products.put(sums, trials)


def _take_apart_untied(
    group: TrialGroup, layer: int, whole: Mapping[str, Scaled], trials: slice, sums: Mapping[str, Sums]
) -> None:
    """Do the same for weights that are not tied: terms stand in places of their own, orthogonal to each other.

    Args:
        whole: the gradients of all steps' parameters, (R, T, ...).
    """
    seq_len = group.problem.seq_len
    for (first, last), terms in walk_gradients(group, layer, longest=1):
        by_distance = slice(seq_len - last, seq_len - first)
        for name, term in terms.items():
            scaled = in_units_of(term, whole[name])
            sums[name].log2_norm[by_distance, trials] = term.log2_norm()
            sums[name].dot[by_distance, trials] = dots(scaled, whole[name].mantissa[:, first].reshape(scaled.shape[1:]))
            sums[name].kept[by_distance, trials] = dots(scaled, scaled)
    for found in sums.values():
        squares = found.kept[:, trials].copy()
        found.kept[:, trials] = np.cumsum(squares, axis=0)
        found.missing[:-1, trials] = np.cumsum(squares[:0:-1], axis=0)[::-1]


def _joint(parts: Sequence[Sums], whole: Sequence[Scaled], copies: Sequence[int], rounding: float) -> Terms:
    """Return the terms of several gradients as one vector, in which each stands as often as it has copies."""
    exponent = np.max([gradient.exponent for gradient in whole], axis=0)
    joined = Sums.of_size(len(exponent), len(parts[0].dot))
    joined.log2_norm[:] = -np.inf
    squared: Array = np.zeros(len(exponent))
    for sums, gradient, count in zip(parts, whole, copies, strict=True):
        weight = count * scale_by(np.ones(()), 2 * (gradient.exponent - exponent))
        for mine, theirs in ((joined.dot, sums.dot), (joined.kept, sums.kept), (joined.missing, sums.missing)):
            mine += weight * theirs
        with np.errstate(invalid="ignore"):
            np.logaddexp2(joined.log2_norm, math.log2(count) + 2.0 * sums.log2_norm, out=joined.log2_norm)
        squared += weight * np.square(gradient.mantissa).reshape(len(squared), -1).sum(axis=1)
    joined.log2_norm[:] *= 0.5
    return _relative(joined, squared, exponent, None, rounding)


def _terms(sums: Sums, whole: Scaled, rounding: float) -> Terms:
    squared = np.square(whole.mantissa).reshape(len(whole.mantissa), -1).sum(axis=1)
    value = float(whole.value().item()) if whole.mantissa.size == 1 else None
    return _relative(sums, squared, whole.exponent, value, rounding)


def _relative(sums: Sums, squared: Array, exponent: Array, value: float | None, rounding: float) -> Terms:
    """Return the medians over trials; squared: |G|^2 in units of 4**exponent, (R,)."""
    some = squared > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(some, sums.dot / squared, np.nan)
        kept = np.cumsum(share, axis=0)
        norm_kept = np.sqrt(sums.kept / squared)
        cosine = np.where(sums.kept > 0, np.clip(kept / norm_kept, -1.0, 1.0), 0.0)
        bias = np.sqrt(sums.missing / squared)
        log2_total = 0.5 * np.log2(squared) + exponent
        relative = sums.log2_norm - log2_total
    relative, share, kept, norm_kept, cosine, bias = (
        _median(values[:, some]) for values in (relative, share, kept, norm_kept, cosine, bias)
    )
    return Terms(
        log10_norm=_median(sums.log2_norm) * LOG10_2,
        log10_relative=relative * LOG10_2,
        share=share,
        kept=kept,
        norm_kept=norm_kept,
        cosine=cosine,
        bias=bias,
        log10_total=float(_median(log2_total[None])[0]) * LOG10_2,
        value=value,
        rounding=rounding,
    )


def _median(values: Array) -> Array:
    """Return the median over trials, (T, R) -> (T,); NaN where there are none."""
    return quantiles(values, [0.5])[0] if values.shape[1] else np.full(len(values), np.nan)


def _first_for_good(holds: Array) -> int:
    """Return the smallest K = 1 .. T from which on `holds`, (T,), is true.

    >>> _first_for_good(np.array([False, True, False, True, True]))
    4
    """
    failing = np.flatnonzero(~holds)
    return 1 if not failing.size else int(failing[-1]) + 2
