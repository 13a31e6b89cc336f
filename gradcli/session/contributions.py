"""`gradcli contributions`: the gradient of a layer's parameters, taken apart step by step."""

from __future__ import annotations

from gradcli.diagnostics.contributions import bytes_kept, measure_contributions
from gradcli.engine.problem import Progress
from gradcli.prepare.build import build
from gradcli.prepare.limits import Beside, sizes_of
from gradcli.prepare.threads import blas_threads
from gradcli.results.contributions import contributions_report
from gradcli.session.layers import choose_layer, index_of_layer, require_one_direction
from gradcli.session.result import Result
from gradcli.spec.reader import LoadedSpec


def contributions(
    loaded: LoadedSpec,
    *,
    layer: str | None = None,
    max_memory: int | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Result:
    """Run a spec and report on its contributions; the arguments are those of `gradcli.session.run_contributions`."""
    beside = Beside(
        lambda spec, plans: bytes_kept(plans[index_of_layer(spec, layer)], sizes_of(spec, plans)),
        "what is kept of every step",
    )
    with blas_threads(threads):
        network = build(loaded, max_memory=max_memory, beside=beside)
    require_one_direction(network, "contributions")
    index = choose_layer(network, layer)
    with blas_threads(threads, network.problem):
        found = measure_contributions(network, index, progress=progress)
    verdicts = [(loaded.label, found.verdict.kind)] if found.verdict is not None else []
    return Result(contributions_report(found), verdicts)
