"""A layer's Jacobian over many steps: its singular values, its Lyapunov exponents, and what its weights prove."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gradcli.diagnostics.certificate import Certificate, certify
from gradcli.diagnostics.curve import mean_of_trials, median_of_trials
from gradcli.diagnostics.jacobian import Spectra, jacobian_spectra
from gradcli.diagnostics.lyapunov import Lyapunov, lyapunov_exponents
from gradcli.diagnostics.measure import derivative_verdict, nonfinite_verdict
from gradcli.diagnostics.predictions import critical_gain, predict, radius_of_constant_step
from gradcli.diagnostics.spectra import MatrixSpectrum, matrix_spectra
from gradcli.diagnostics.verdict import Verdict, judge
from gradcli.engine.linearised import carried_states, full_state_size
from gradcli.engine.parameters import LayerParameters
from gradcli.engine.problem import BackwardOverflow, ForwardOverflow, Progress
from gradcli.engine.run import Engine
from gradcli.engine.step.plan import LayerPlan
from gradcli.errors import UsageError
from gradcli.frozen import frozen
from gradcli.language.graph import Dependence, reachable
from gradcli.prepare.build import Network
from gradcli.sources.streams import stream
from gradcli.spec.defaults import LYAPUNOV_EXPONENTS

Array = np.ndarray[Any, Any]

#: A share of the sequence that the exponents do not count, because the tangents still turn into their directions.
_BURN_IN_SHARE = 10


@frozen
class JacobianFindings:
    """What was found about one layer of a network.

    layer: its name. curve: log10 ||J||_F by distance, the median over trials, (T+1,). mean: that of the mean of the
    norms, which the verdict is on. read_out: the states that are only read out (see `carried_states`). at_rest,
    critical_gain: see `gradcli.diagnostics.predictions`; None where theory has no answer.
    """

    network: Network
    layer: str
    verdict: Verdict
    curve: Array
    mean: Array
    read_out: Sequence[str]
    spectra: Spectra
    lyapunov: Lyapunov
    matrices: Sequence[MatrixSpectrum]
    certificate: Certificate | None
    at_rest: float | None
    critical_gain: float | None


def measure_jacobian(
    network: Network,
    index: int,
    distances: Sequence[int],
    *,
    exponents: int | None = None,
    burn_in: int | None = None,
    progress: Progress | None = None,
) -> JacobianFindings | Verdict:
    """Measure the Jacobian of a layer; where a number is not finite, return the verdict that says so.

    Args:
        index: of the layer. distances: at which its singular values are taken.
        exponents: how many Lyapunov exponents; None for all.
        burn_in: steps at the start that they do not count; by default a tenth of all.

    Raises:
        UsageError: a burn-in as long as the sequence.
    """
    problem, spec = network.problem, network.spec
    plan = problem.plans[index]
    burn_in = _burn_in(burn_in, spec.seq_len)
    engine = Engine(problem)
    steps = problem.trials * spec.seq_len

    def tell(stage: str, done: int) -> None:
        if progress is not None:
            progress(stage, done, steps)

    try:
        spectra = jacobian_spectra(
            engine,
            index,
            distances,
            threshold=spec.thresholds.vanishing,
            on_step=lambda done: tell("singular values", done),
        )
        lyapunov = lyapunov_exponents(
            engine,
            index,
            count=full_state_size(plan, problem.batch_size) if exponents is None else exponents,
            burn_in=burn_in,
            rng=stream(spec.seed, "lyapunov", problem.names[index]),
            on_step=lambda done: tell("Lyapunov exponents", done),
        )
    except (ForwardOverflow, BackwardOverflow) as error:
        return _overflow_verdict(network, engine, error)
    mean = mean_of_trials(spectra.frobenius)
    verdict = judge(
        mean,
        vanishing=spec.thresholds.vanishing,
        exploding=spec.thresholds.exploding,
    )
    # Weights that every step has for itself are no matrix whose powers would matter, and prove nothing as one.
    matrices = []
    if problem.tied:
        parameters = LayerParameters(plan, problem.parameters[index], trials=problem.trials, dtype=problem.dtype)
        matrices = matrix_spectra(plan, parameters)
    certificate = prove(network, index)
    carried = carried_states(plan)
    return JacobianFindings(
        network=network,
        layer=problem.names[index],
        verdict=verdict,
        curve=median_of_trials(spectra.frobenius),
        mean=mean,
        read_out=[name for name in plan.cell.states if name not in carried],
        spectra=spectra,
        lyapunov=_placed(lyapunov, network, index, certificate),
        matrices=matrices,
        certificate=certificate,
        at_rest=next((p.rate_per_step for p in predict(problem, index) if p.name == "rest"), None),
        critical_gain=critical_gain(problem, index),
    )


def leading_exponents(network: Network, index: int) -> Lyapunov | Verdict:
    """Return the leading Lyapunov exponents of a layer; where a number is not finite, the verdict that says so."""
    problem = network.problem
    engine = Engine(problem)
    try:
        found = lyapunov_exponents(
            engine,
            index,
            count=LYAPUNOV_EXPONENTS,
            burn_in=_burn_in(None, network.spec.seq_len),
            rng=stream(network.spec.seed, "lyapunov", problem.names[index]),
        )
    except (ForwardOverflow, BackwardOverflow) as error:
        return _overflow_verdict(network, engine, error)
    return _placed(found, network, index, prove(network, index))


def _placed(found: Lyapunov, network: Network, index: int, certificate: Certificate | None) -> Lyapunov:
    """Return exponents with what is known of them beside the measurement: what they are of, and what bounds them."""
    proven = math.inf if certificate is None else certificate.worst
    with np.errstate(all="ignore"):
        constant = radius_of_constant_step(network.problem, index)
    factor = proven if constant is None or not math.isfinite(constant) else min(proven, constant)
    ceiling = math.log(factor) if factor > 0 else -math.inf
    return replace(found, ceiling=ceiling, substitutes=_substitutes(network.problem.plans[index]))


def _substitutes(plan: LayerPlan) -> tuple[str, ...]:
    """Return the functions at which the gradient goes by other slopes than those of the dynamics."""
    # The ties of max(a) have a stop within, which is part of their derivative.
    largest = [node for node in reachable(plan.states.values()) if node.op == "carried"]
    nodes = reachable([*plan.states.values(), *(node.args[0] for node in largest)], stop=set(largest))
    found = {node.op for node in nodes if node.dependence is Dependence.STATE}
    return tuple(name for name in ("spike", "stop") if name in found)


def prove(network: Network, index: int) -> Certificate | None:
    """Return what the weights of a layer prove, whatever its input; None where every step has weights of its own."""
    problem = network.problem
    if not problem.tied:
        return None
    parameters = LayerParameters(
        problem.plans[index], problem.parameters[index], trials=problem.trials, dtype=problem.dtype
    )
    return certify(problem.plans[index], parameters, problem.initial[index], problem.trials)


def _overflow_verdict(network: Network, engine: Engine, error: ForwardOverflow | BackwardOverflow) -> Verdict:
    # A walk stops at the first group of trials that is not finite: where all of them are not, is asked anew.
    overflow = engine.overflow()
    if overflow is not None:
        return nonfinite_verdict(network, engine, overflow)
    return derivative_verdict(network, engine, error.overflow)


def _burn_in(asked: int | None, seq_len: int) -> int:
    if asked is None:
        return seq_len // _BURN_IN_SHARE
    if asked >= seq_len:
        raise UsageError(f"--burn-in: at most {seq_len - 1} of the {seq_len} steps can be left out; got {asked}")
    return asked
