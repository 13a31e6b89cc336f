"""`gradcli gates`: the gates and activations of a layer, and what they do to the gradient."""

from __future__ import annotations

from gradcli.diagnostics.gates import bytes_kept, measure_gates
from gradcli.engine.problem import Progress
from gradcli.network.build import build
from gradcli.network.limits import estimate_memory, require_memory_for
from gradcli.network.threads import blas_threads
from gradcli.report.gates import gates_report
from gradcli.session.layers import choose_layer, require_one_direction, require_one_length
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
    with blas_threads(threads):
        network = build(loaded, max_memory=max_memory)
    require_one_direction(network, "gates")
    require_one_length(network, "gates")
    index = choose_layer(network, layer)
    spec, problem = network.spec, network.problem
    run = estimate_memory(
        spec, network.shapes, problem.plans, tied=problem.tied, record=False, tape_bytes=problem.tape_bytes
    )
    require_memory_for(
        run + bytes_kept(network, index),
        "this run, with what is kept of every step,",
        f"seq_len ({spec.seq_len}), batch_size ({spec.batch_size}) or trials ({spec.trials})",
        max_memory=max_memory,
    )
    with blas_threads(threads, network.problem):
        found = measure_gates(network, index, progress=progress)
    verdicts = [(loaded.label, found.verdict.kind)] if found.verdict is not None else []
    return Result(gates_report(found), verdicts)
