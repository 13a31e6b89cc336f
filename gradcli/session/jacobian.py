"""`gradcli jacobian`: the Jacobian of one layer over many steps, its Lyapunov exponents, and what its weights prove."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from gradcli.diagnostics.certificate import certify
from gradcli.diagnostics.curve import mean_of_trials, median_of_trials
from gradcli.diagnostics.jacobian import jacobian_spectra
from gradcli.diagnostics.lyapunov import lyapunov_exponents
from gradcli.diagnostics.measure import derivative_verdict, nonfinite_verdict
from gradcli.diagnostics.predictions import critical_gain, predict
from gradcli.diagnostics.spectra import matrix_spectra
from gradcli.diagnostics.verdict import judge
from gradcli.engine.linearised import full_state_size
from gradcli.engine.parameters import LayerParameters
from gradcli.engine.plan import LayerPlan
from gradcli.engine.problem import BackwardOverflow, ForwardOverflow, Progress
from gradcli.engine.run import Engine
from gradcli.errors import ResourceError, UsageError
from gradcli.prepare.build import build
from gradcli.prepare.limits import Beside
from gradcli.prepare.threads import blas_threads
from gradcli.results.curves import shown_distances
from gradcli.results.jacobian import JacobianFindings, jacobian_report, nonfinite_report
from gradcli.session.layers import choose_layer, index_of_layer
from gradcli.session.result import Result
from gradcli.sources.streams import stream
from gradcli.spec.models import Spec
from gradcli.spec.reader import LoadedSpec

#: Matrices of N x N float64 alive at once for each trial: the product, its peak, a step's result, and those of a SVD.
_MATRICES = 6
#: Entries of the joint state of coupled sequences.
_LARGEST_COUPLED = 512
#: A share of the sequence that the exponents do not count, because the tangents still turn into their directions.
_BURN_IN_SHARE = 10


def jacobian(
    loaded: LoadedSpec,
    *,
    layer: str | None = None,
    exponents: int | None,
    burn_in: int | None = None,
    max_memory: int | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Result:
    """Run a spec and look at one layer's Jacobian; the arguments are those of `gradcli.session.run_jacobian`."""
    with blas_threads(threads):
        beside = Beside(partial(_matrix_bytes, layer=layer), "the products of Jacobians")
        network = build(loaded, max_memory=max_memory, beside=beside)
        problem, spec = network.problem, network.spec
        index = choose_layer(network, layer)
        plan = problem.plans[index]
        size = full_state_size(plan, problem.batch_size)
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
                shown_distances(spec.seq_len),
                threshold=spec.thresholds.vanishing,
                on_step=lambda done: tell("singular values", done),
            )
            lyapunov = lyapunov_exponents(
                engine,
                index,
                count=size if exponents is None else exponents,
                burn_in=burn_in,
                rng=stream(spec.seed, "lyapunov", problem.names[index]),
                on_step=lambda done: tell("Lyapunov exponents", done),
            )
        except (ForwardOverflow, BackwardOverflow) as error:
            # A walk stops at the first group of trials that is not finite: where all of them are not, is asked anew.
            overflow = engine.overflow()
            if overflow is not None:
                verdict = nonfinite_verdict(network, engine, overflow)
            else:
                verdict = derivative_verdict(network, engine, error.overflow)
            return Result(nonfinite_report("jacobian", network, verdict), [(loaded.label, verdict.kind)])
        curve = median_of_trials(spectra.frobenius)
        verdict = judge(
            mean_of_trials(spectra.frobenius),
            vanishing=spec.thresholds.vanishing,
            exploding=spec.thresholds.exploding,
        )
        # Weights that every step has for itself are no matrix whose powers would matter, and prove nothing as one.
        matrices, certificate = [], None
        if problem.tied:
            parameters = LayerParameters(plan, problem.parameters[index], trials=problem.trials, dtype=problem.dtype)
            matrices = matrix_spectra(plan, parameters)
            certificate = certify(plan, parameters, problem.initial[index], problem.trials)
        findings = JacobianFindings(
            network=network,
            layer=problem.names[index],
            verdict=verdict,
            curve=curve,
            spectra=spectra,
            lyapunov=lyapunov,
            matrices=matrices,
            certificate=certificate,
            at_rest=next((p.rate_per_step for p in predict(problem, index) if p.name == "rest"), None),
            critical_gain=critical_gain(problem, index),
        )
    return Result(jacobian_report(findings), [(loaded.label, verdict.kind)])


def _matrix_bytes(spec: Spec, plans: Sequence[LayerPlan], *, layer: str | None) -> int:
    """Return the bytes of the matrices that are there at once.

    Raises:
        ResourceError: their singular values would take too long.
    """
    plan = plans[index_of_layer(spec, layer)]
    size = full_state_size(plan, spec.batch_size)
    if plan.couples_sequences and size > _LARGEST_COUPLED:
        raise ResourceError(
            f"batch_norm couples the {spec.batch_size} sequences of a batch: their joint Jacobian has {size} x {size}"
            " entries, and its singular values would take many minutes. Make batch_size"
            f" ({spec.batch_size}) or hidden_size ({spec.hidden_size}) smaller, until their product with the number of"
            f" states is at most {_LARGEST_COUPLED}"
        )
    return 8 * spec.trials * _MATRICES * size**2


def _burn_in(asked: int | None, seq_len: int) -> int:
    if asked is None:
        return seq_len // _BURN_IN_SHARE
    if asked >= seq_len:
        raise UsageError(f"--burn-in: at most {seq_len - 1} of the {seq_len} steps can be left out; got {asked}")
    return asked
