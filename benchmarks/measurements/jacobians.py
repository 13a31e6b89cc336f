"""The Jacobians at every distance, with the singular values that the table shows, against JAX without them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from benchmarks.agreement import require_agreement
from benchmarks.cases import Case, ours
from benchmarks.measurements.measurement import Measurement, Settings
from benchmarks.peers import jax_jacobians, peers_jax
from benchmarks.peers.peer import missing
from benchmarks.requirements import JACOBIANS
from benchmarks.rows import Missing, Preparation, Ratio, Row, in_milliseconds
from benchmarks.timing import alternate
from gradcli.diagnostics.jacobian import Spectra, jacobian_spectra
from gradcli.report.curves import shown_distances

_SECTION = "Jacobians at every distance"


def measurements(settings: Settings) -> Iterator[Measurement]:
    """Yield the one case of performance."""
    case = Case("lstm", 1, 8, 12) if settings.quick else Case("lstm", 1, 64, 1000)
    yield Measurement(f"jacobians {case.label}", partial(_jacobians, settings, case))


def _jacobians(settings: Settings, case: Case) -> Iterator[Row | Preparation]:
    what = f"{case.label}: dS_T/dS_(T-d) for all d, with the table's singular values"
    message = missing("jax")
    requirement = settings.required(JACOBIANS)
    if message is not None:
        yield Row(_SECTION, what, peers_jax.NAME, Missing(message), requirement)
        return
    engine = ours(case)

    def spectra() -> Spectra:
        return jacobian_spectra(engine.engine, 0, shown_distances(case.seq_len), threshold=1e-3)

    peer = jax_jacobians.jax_jacobians(case, engine.numbers)
    assert peer.norms is not None
    norms = 10.0 ** spectra().frobenius.T
    require_agreement(f"{peer.name}, Jacobians of {case.label}", peer.norms(peer.run()), {"J": norms})
    if peer.compile_seconds is not None:
        yield Preparation(peer.name, f"Jacobians of {case.label}, float64", peer.compile_seconds)
    times = alternate((spectra, peer.run), settings.effort)
    against = f"{peer.name} (gives the products and their norms, no singular values)"
    yield Row(_SECTION, what, against, in_milliseconds(times, Ratio.SHARE), requirement)
