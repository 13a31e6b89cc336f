"""The Jacobians at every distance, with the singular values that the table shows, against JAX without them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from benchmarks import reasons
from benchmarks.agreement import require_agreement
from benchmarks.cases import Case, engines_on
from benchmarks.engines import use
from benchmarks.measurements.measurement import Measurement, Settings
from benchmarks.peers.jax_jacobians import JACREV, STEP_BY_STEP, jax_jacobians
from benchmarks.peers.peer import missing
from benchmarks.requirements import JACOBIANS, Requirement
from benchmarks.rows import Missing, Preparation, Ratio, Row, in_milliseconds
from benchmarks.timing import alternate
from gradcli.diagnostics.jacobian import Spectra, jacobian_spectra
from gradcli.results.curves import shown_distances

_SECTION = "Jacobians at every distance"


def measurements(settings: Settings) -> Iterator[Measurement]:
    """Yield the one case, against each way of JAX's."""
    case = Case("lstm", 1, 8, 12) if settings.quick else Case("lstm", 1, 64, 1000)
    # The requirement is about what JAX has a function for.
    for name, requirement in ((JACREV, JACOBIANS), (STEP_BY_STEP, None)):
        measure = partial(_jacobians, settings, case, name, settings.required(requirement))
        yield Measurement(f"jacobians {case.label} {name}", measure)


def _jacobians(
    settings: Settings, case: Case, name: str, requirement: Requirement | None
) -> Iterator[Row | Preparation]:
    what = f"{case.label}: dS_T/dS_(T-d) for all d, and the singular values that the table shows"
    message = missing("jax")
    if message is not None:
        yield Row(_SECTION, what, name, Missing(message), requirement)
        return
    engines = engines_on(case)

    def spectra(engine: str) -> Spectra:
        use(engine)
        return jacobian_spectra(engines[engine].engine, 0, shown_distances(case.seq_len), threshold=1e-3)

    peer = jax_jacobians(name, case, next(iter(engines.values())).numbers)
    if peer.norms is not None:
        theirs = peer.norms(peer.run())
        for engine in engines:
            ours = {"J": 10.0 ** spectra(engine).frobenius.T}
            require_agreement(f"{name}, Jacobians of {case.label}, {engine}", theirs, ours)
    if peer.compile_seconds is not None:
        yield Preparation(name, f"Jacobians of {case.label}, float64", peer.compile_seconds)
    *found, theirs_seconds = alternate([*(partial(spectra, engine) for engine in engines), peer.run], settings.effort)
    pairs = {engine: (seconds, theirs_seconds) for engine, seconds in zip(engines, found, strict=True)}
    outcome = in_milliseconds(pairs, Ratio.SHARE)
    yield Row(_SECTION, what, f"{name} (gives {peer.gives})", outcome, requirement, reasons.JACOBIANS)
