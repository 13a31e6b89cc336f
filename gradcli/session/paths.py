"""`gradcli paths`: one spec, its routes derived, measured and reported."""

from __future__ import annotations

from gradcli.diagnostics.paths import formulas_of, trace_paths
from gradcli.engine.problem import Progress
from gradcli.errors import UsageError, did_you_mean
from gradcli.prepare.build import Network, build
from gradcli.prepare.threads import blas_threads
from gradcli.results.paths import paths_report
from gradcli.session.layers import choose_layer, require_one_direction, require_one_length
from gradcli.session.result import Result
from gradcli.spec.reader import LoadedSpec


def paths(
    loaded: LoadedSpec,
    *,
    distance: int,
    start: str | None = None,
    end: str | None = None,
    layer: str | None = None,
    formulas_only: bool = False,
    max_memory: int | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Result:
    """Trace the routes of a spec's gradient and report on them; see `gradcli.session.run_paths`.

    Raises:
        UsageError: a layer, a state or a distance that there is not; routes of a bidirectional layer are wanted in
            numbers.
    """
    with blas_threads(threads):
        network = build(loaded, max_memory=max_memory)
    if not formulas_only:
        require_one_direction(network, "paths")
        require_one_length(network, "paths")
    chosen = choose_layer(network, layer)
    cell = network.problem.plans[chosen].cell
    states = list(cell.states)
    first = _state("--from", start or cell.output, states)
    ends = [_state("--to", end, states)] if end is not None else states
    _check_distance(network, distance)
    with blas_threads(threads, network.problem):
        found = (
            formulas_of(network, chosen)
            if formulas_only
            else trace_paths(network, layer=chosen, distance=distance, start=first, ends=ends, progress=progress)
        )
    verdicts = [(loaded.label, found.verdict.kind)] if found.verdict else []
    return Result(paths_report(found), verdicts)


def _state(option: str, name: str, states: list[str]) -> str:
    if name not in states:
        raise UsageError(
            f"{option}: no state is called {name!r}; states: {', '.join(states)}{did_you_mean(name, states)}"
        )
    return name


def _check_distance(network: Network, distance: int) -> None:
    last, seq_len = network.problem.loss.last_step, network.problem.seq_len
    if distance > last:
        where = "" if last == seq_len else f", where the loss counts last (T = {seq_len})"
        raise UsageError(
            f"--distance: {distance} steps lead beyond the beginning: there are {last} before step {last}"
            f"{where}; take a distance from 1 to {last}"
        )
