"""`gradcli simulate`: one spec, measured and reported."""

from __future__ import annotations

from gradcli.diagnostics.measure import measure
from gradcli.diagnostics.remedies import NO_REMEDIES, find_remedies
from gradcli.engine.problem import Progress
from gradcli.prepare.build import build
from gradcli.prepare.threads import blas_threads
from gradcli.results.simulate import simulation_report
from gradcli.session.result import Result, saved_arrays
from gradcli.spec.reader import LoadedSpec


def simulate(
    loaded: LoadedSpec,
    *,
    record: bool = False,
    remedies: bool = True,
    max_memory: int | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Result:
    """Run a spec and report on it; the arguments are those of `gradcli.session.run_simulation`."""
    with blas_threads(threads):
        network = build(loaded, record=record, max_memory=max_memory)
    with blas_threads(threads, network.problem):
        measured = measure(network, record=record, progress=progress)
        found = find_remedies(measured, max_memory=max_memory) if remedies else NO_REMEDIES
    return Result(
        simulation_report(measured, found),
        [(measured.label, measured.verdict.kind)],
        saved_arrays(measured),
    )
