"""Networks measured side by side; those of one cell run together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gradcli.diagnostics.measure import Measured, measure
from gradcli.engine.problem import Progress, Run
from gradcli.engine.run import Engine
from gradcli.engine.together import apart, can_join, joined
from gradcli.prepare.arms import run_on
from gradcli.prepare.build import Network
from gradcli.prepare.resources import Resources

#: Arms of the same cell run together as long as the norms of all take no more than this.
_SHARED_BYTES = 64 * 2**20


def measure_all(networks: Sequence[Network], *, record: bool, may: Resources) -> list[Measured]:
    """Measure each network as `measure` does."""
    measured: list[Measured] = []
    runs: dict[int, Run] = {}
    for index, network in enumerate(networks):
        with may.computing_threads(network.problem):
            if index not in runs:
                runs |= _shared_runs(networks, index, record, may.progress)
            measured.append(measure(network, record=record, progress=may.progress, run=runs.pop(index, None)))
    return measured


def _shared_runs(networks: Sequence[Network], index: int, record: bool, progress: Progress | None) -> dict[int, Run]:
    """Return the runs of an arm and of the later ones that can share it, by arm; none where sharing gains nothing."""
    problems = {
        other: networks[other].problem
        for other in range(index, len(networks))
        if _alike(networks[index], networks[other]) and can_join(networks[index].problem, networks[other].problem)
    }
    if len(problems) == 1:
        return {}
    whole = joined(list(problems.values()))
    states = sum(len(plan.cell.states) for plan in whole.plans)
    norms = np.dtype(np.float64).itemsize * states * whole.seq_len * whole.trials * whole.batch_size
    # Larger ones run one trial after the other in any case, and alone they need less memory at a time.
    if whole.sizes.trials_at_once < whole.trials or norms > _SHARED_BYTES:
        return {}
    run = Engine(whole, progress=progress).run(record=record)
    if run.overflow is not None or run.backward_overflow is not None:
        return {}  # each alone then tells where its own numbers end
    return dict(zip(problems, apart(run, list(problems.values())), strict=True))


def _alike(a: Network, b: Network) -> bool:
    """Tell whether two arms are run on the same kind of input, with the same loss."""
    one, other = run_on(a), run_on(b)
    return all(one[field] == other[field] for field in ("input", "loss"))
