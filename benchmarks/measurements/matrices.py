"""Cells whose state is a matrix against JAX's scan of the same step, all in turn in one run for each case."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from benchmarks import reasons, requirements
from benchmarks.agreement import require_agreement
from benchmarks.cases import MATRIX_CASES, QUICK_MATRIX_CASES, Case, engines_on
from benchmarks.engines import TITLES
from benchmarks.measurements.frameworks import agreement_row
from benchmarks.measurements.measurement import Measurement, Settings
from benchmarks.peers.jax_matrices import STEP_BY_STEP, jax_matrix_peer
from benchmarks.peers.peer import missing
from benchmarks.peers.peers_jax import NAME
from benchmarks.rows import Missing, Preparation, Ratio, Row, in_milliseconds
from benchmarks.timing import alternate

_SECTION = "Matrix states against JAX"


def measurements(settings: Settings) -> Iterator[Measurement]:
    """Yield each case with both ways of JAX's."""
    for case in QUICK_MATRIX_CASES if settings.quick else MATRIX_CASES:
        yield Measurement(f"matrices {case.label} {NAME} {STEP_BY_STEP}", partial(_case, settings, case))


def _case(settings: Settings, case: Case) -> Iterator[Row | Preparation]:
    what = f"{case.label}: norms"
    message = missing("jax")
    if message is not None:
        yield Row(_SECTION, what, NAME, Missing(message), settings.required(requirements.MATRIX_STATES))
        return
    engines = engines_on(case)
    numbers = next(iter(engines.values())).numbers
    peers = {name: jax_matrix_peer(name, case, numbers) for name in (NAME, STEP_BY_STEP)}
    for peer in peers.values():
        if peer.compile_seconds is not None:
            yield Preparation(peer.name, f"{case.label}, float64", peer.compile_seconds)
        assert peer.norms is not None
        theirs = peer.norms(peer.run())
        for engine, one in engines.items():
            require_agreement(f"{peer.name}, {case.label}, {TITLES[engine]} engine", theirs, one.norms())
    yield agreement_row(settings, _SECTION, case, engines)
    runs = [*(one.norms_only for one in engines.values()), *(peer.run for peer in peers.values())]
    found = alternate(runs, settings.effort_of_many(True))
    ours = dict(zip(engines, found, strict=False))
    for name, seconds in zip(peers, found[len(engines) :], strict=True):
        pairs = {engine: (own, seconds) for engine, own in ours.items()}
        # What is asked is about the scan as one writes it; walking back by hand is what the engine does itself.
        requirement = settings.required(requirements.MATRIX_STATES if name == NAME else None)
        outcome = in_milliseconds(pairs, Ratio.TIMES_FASTER)
        yield Row(_SECTION, what, f"{name} (gives norms)", outcome, requirement, reasons.MATRIX_STATES)
