"""`gradcli gates`: the gates and activations of a layer, and what they do to the gradient."""

from __future__ import annotations

from gradcli.diagnostics.gates import bytes_kept, measure_gates
from gradcli.engine.problem import Progress
from gradcli.network.build import build
from gradcli.network.layers import layer_number
from gradcli.network.limits import require_memory_beside
from gradcli.network.threads import blas_threads
from gradcli.report.gates import gates_report
from gradcli.session.result import Result
from gradcli.spec.reader import LoadedSpec


def gates(
    loaded: LoadedSpec,
    *,
    layer: int | None = None,
    max_memory: int | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Result:
    """Run a spec and report on its gates; the arguments are those of `gradcli.session.run_gates`."""
    with blas_threads(threads):
        network = build(loaded, max_memory=max_memory)
    index = layer_number(network, layer)
    require_memory_beside(
        bytes_kept(network, index), network.spec, network.shapes, network.problem.plans, max_memory=max_memory
    )
    with blas_threads(threads, network.problem):
        found = measure_gates(network, index, progress=progress)
    verdicts = [(loaded.label, found.verdict.kind)] if found.verdict is not None else []
    return Result(gates_report(found), verdicts)
