"""`gradcli simulate`: one spec, measured and reported."""

from __future__ import annotations

from gradcli.diagnostics.measure import measure
from gradcli.engine.problem import Progress
from gradcli.network.build import build
from gradcli.report.simulate import simulation_report
from gradcli.session.result import Result, saved_arrays
from gradcli.spec.reader import LoadedSpec


def simulate(loaded: LoadedSpec, *, record: bool = False, progress: Progress | None = None) -> Result:
    """Run a spec and report on it; with `record` the result can be saved."""
    measured = measure(build(loaded, record=record), record=record, progress=progress)
    return Result(
        simulation_report(measured),
        [(measured.label, measured.verdict.kind)],
        saved_arrays(measured),
    )
