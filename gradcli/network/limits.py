"""What a run will take, reckoned before it is taken."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from gradcli.engine.plan import LayerPlan
from gradcli.engine.run import segment_length, step_bytes
from gradcli.errors import ResourceError
from gradcli.spec.models import Spec

_FLOAT = 8
#: Copies of the parameters alive at once: drawn, in the engine, stacked twice, gradients twice, clipped, after a step.
_PARAMETER_COPIES = 9
#: Copies of a curve alive at once: log2, joined, by distance, sorted for the quantiles.
_CURVE_COPIES = 4
_SHARE_OF_FREE_MEMORY = 0.5


def estimate_memory(
    spec: Spec, shapes: Mapping[str, tuple[int, ...]], plans: Sequence[LayerPlan], *, record: bool
) -> int:
    """Return about how many bytes a run needs.

    The sum of: parameters, R sum(shape); one segment of the tape; a curve for each state, R B (T + 1); and with
    `record` the states and adjoints themselves, R B (T + 1) H.
    """
    parameters = spec.trials * sum(int(np.prod(shape, dtype=object)) for shape in shapes.values())
    per_step = sum(step_bytes(plan, spec.trials, spec.batch_size, _FLOAT) for plan in plans)
    tape = per_step * segment_length(per_step, spec.seq_len)
    sequences = spec.trials * spec.batch_size * (spec.seq_len + 1)
    states = sum(len(plan.cell.shapes.states) for plan in plans)
    total = _FLOAT * (parameters * _PARAMETER_COPIES + sequences * (states + _CURVE_COPIES)) + 2 * tape
    targets = spec.seq_len if spec.loss.at == "every" else 1 if spec.loss.at == "last" else len(spec.loss.at)
    widths = [size for plan in plans for size in plan.cell.shapes.states.values()]
    total += _FLOAT * targets * spec.trials * spec.batch_size * widths[-1]
    if record:
        total += _FLOAT * sequences * (3 * sum(widths) + plans[0].cell.shapes.input_size)
    return total


def free_memory() -> int:
    """Return the memory that can be taken without swapping, in bytes."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass  # not Linux: ask for what the machine has
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 4 * 2**30


def require_memory(
    spec: Spec, shapes: Mapping[str, tuple[int, ...]], plans: Sequence[LayerPlan], *, record: bool
) -> None:
    """Refuse a run that would need more than half of the free memory.

    Raises:
        ResourceError: with the figure, and what to make smaller.
    """
    needed = estimate_memory(spec, shapes, plans, record=record)
    limit = int(free_memory() * _SHARE_OF_FREE_MEMORY)
    if needed > limit:
        raise ResourceError(
            f"this run would need about {_readable(needed)} of memory; {_readable(limit)} (half of what is free) is the"
            f" limit. Make hidden_size ({spec.hidden_size}), input_size ({plans[0].cell.shapes.input_size}), batch_size"
            f" ({spec.batch_size}), trials ({spec.trials}) or seq_len ({spec.seq_len}) smaller"
            + (", or leave out --save" if record else "")
        )


def _readable(size: int) -> str:
    value, unit = float(size), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB"):
        if value < 1000:
            break
        value, unit = value / 1024, larger
    return f"{value:,.{0 if value >= 10 or unit == 'bytes' else 1}f} {unit}"
