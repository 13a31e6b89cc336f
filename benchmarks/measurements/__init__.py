"""Everything that can be measured, one file a subject."""

from __future__ import annotations

from benchmarks.measurements import (
    commands,
    diagnostics,
    frameworks,
    jacobians,
    long_runs,
    matrices,
    profiles,
    same_engine,
)
from benchmarks.measurements.measurement import Measurement, Settings

__all__ = ["Measurement", "Settings", "plan"]


def plan(settings: Settings) -> list[Measurement]:
    """Return all measurements in the order of the table."""
    return [
        *frameworks.measurements(settings),
        *matrices.measurements(settings),
        *same_engine.measurements(settings),
        *jacobians.measurements(settings),
        *diagnostics.measurements(settings),
        *commands.measurements(settings),
        *profiles.measurements(settings),
        *long_runs.measurements(settings),
    ]
