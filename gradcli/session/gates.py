"""`gradcli gates`: the gates and activations of a layer, and what they do to the gradient."""

from __future__ import annotations

from gradcli.diagnostics.gates import bytes_kept, measure_gates
from gradcli.engine.problem import Progress
from gradcli.prepare.build import build
from gradcli.prepare.limits import Beside, sizes_of
from gradcli.prepare.threads import blas_threads
from gradcli.results.gates import gates_report
from gradcli.session.layers import choose_layer, index_of_layer, require_one_direction, require_one_length
from gradcli.session.result import Result
from gradcli.spec.reader import LoadedSpec


def gates(
    loaded: LoadedSpec,
    *,
    layer: str | None = None,
    max_memory: int | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Result:
    """Run a spec and report on its gates; the arguments are those of `gradcli.session.run_gates`."""
    beside = Beside(
        lambda spec, plans: bytes_kept(plans[index_of_layer(spec, layer)], sizes_of(spec, plans)),
        "what is kept of every step",
    )
    with blas_threads(threads):
        network = build(loaded, max_memory=max_memory, beside=beside)
    require_one_direction(network, "gates")
    require_one_length(network, "gates")
    index = choose_layer(network, layer)
    with blas_threads(threads, network.problem):
        found = measure_gates(network, index, progress=progress)
    verdicts = [(loaded.label, found.verdict.kind)] if found.verdict is not None else []
    return Result(gates_report(found), verdicts)
