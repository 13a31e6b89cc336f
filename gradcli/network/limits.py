"""What a run will take, reckoned before it is taken."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from gradcli.engine.forward_loop import ForwardWriter
from gradcli.engine.plan import LayerPlan
from gradcli.engine.problem import READOUT
from gradcli.engine.run import VIEW_BYTES, block_length, segment_length, step_bytes
from gradcli.errors import ResourceError
from gradcli.spec.losses import CrossEntropyLoss, MSELoss
from gradcli.spec.models import Spec, StepNormClip, StepValueClip

_FLOAT = 8
#: Copies of the parameters alive at once: drawn, in the engine, stacked twice, gradients twice, clipped, after a step.
_PARAMETER_COPIES = 9
#: Copies of a curve over all sequences alive at once: joined, by distance, sorted for the quantiles.
_CURVE_COPIES = 4
#: Curves by distance alone: the quantiles, what the verdict is read from.
_QUANTILE_CURVES = 9
#: Copies of what the loss works on: outputs, differences or logits, their gradient.
_LOSS_COPIES = 3
#: Arrays of a block of the backward pass for each one that the tape has: adjoints, coefficients, products.
_BLOCK_COPIES = 4
#: Bytes of a number on its way into JSON: as an object, as text, and as the text is joined and encoded.
_NUMBER_IN_JSON = 120
#: On top of what is counted, for what is not.
_MARGIN = 1.15
_SHARE_OF_FREE_MEMORY = 0.5


def estimate_memory(
    spec: Spec, shapes: Mapping[str, tuple[int, ...]], plans: Sequence[LayerPlan], *, record: bool
) -> int:
    """Return about how many bytes a run and its report need, up to twice too many.

    What lasts are the parameters, R sum(shape), the targets, a curve for each state, R B (T + 1), and with `record`
    the states and adjoints themselves, R B (T + 1) H. On top of it comes either the engine's tape or the report.
    """
    parameters = spec.trials * sum(int(np.prod(shape, dtype=object)) for shape in shapes.values())
    lasting = _FLOAT * parameters * _PARAMETER_COPIES + _target_bytes(spec, plans) + _curve_bytes(spec, plans)
    if record:
        lasting += _recording_bytes(spec, plans)
    return int(_MARGIN * (lasting + max(_engine_bytes(spec, shapes, plans), _report_bytes(spec, plans))))


def _state_sizes(plans: Sequence[LayerPlan]) -> list[int]:
    return [size for plan in plans for size in plan.cell.shapes.states.values()]


def _sequences(spec: Spec) -> int:
    return spec.trials * spec.batch_size


def _step_clips(spec: Spec) -> int:
    return sum(isinstance(clip, StepNormClip | StepValueClip) for clip in spec.clip)


def _loss_steps(spec: Spec) -> int:
    at = spec.loss.at
    return spec.seq_len if at == "every" else 1 if at == "last" else len(at)


def _output_size(plans: Sequence[LayerPlan]) -> int:
    cell = plans[-1].cell
    return cell.shapes.states[cell.output]


def _target_bytes(spec: Spec, plans: Sequence[LayerPlan]) -> int:
    """The targets, and as many again while they are drawn."""
    if not isinstance(spec.loss, MSELoss | CrossEntropyLoss):
        return 0
    size = _output_size(plans) if isinstance(spec.loss, MSELoss) else 1
    return 2 * _FLOAT * _loss_steps(spec) * _sequences(spec) * size


def _curve_bytes(spec: Spec, plans: Sequence[LayerPlan]) -> int:
    states, clips = len(_state_sizes(plans)), _step_clips(spec)
    over_sequences = states * (2 if clips else 1) + _CURVE_COPIES
    by_distance = states + 3 * clips + _QUANTILE_CURVES
    return _FLOAT * (spec.seq_len + 1) * (_sequences(spec) * over_sequences + by_distance)


def _recording_bytes(spec: Spec, plans: Sequence[LayerPlan]) -> int:
    """States, adjoints and their exponents, and the input."""
    sizes = _state_sizes(plans)
    entries = 2 * sum(sizes) + len(sizes) + plans[0].cell.shapes.input_size
    return _FLOAT * (spec.seq_len + 1) * _sequences(spec) * entries


def _engine_bytes(spec: Spec, shapes: Mapping[str, tuple[int, ...]], plans: Sequence[LayerPlan]) -> int:
    """One segment of the tape, one block of the backward pass, and what the loss makes of a segment."""
    trials, batch_size, item = spec.trials, spec.batch_size, np.dtype(spec.dtype).itemsize
    segment = segment_length(sum(step_bytes(plan, trials, batch_size, item) for plan in plans), spec.seq_len)
    block = min(block_length(plans, trials, batch_size, item), segment)
    rows = views = 0
    for plan in plans:
        loop = ForwardWriter(plan, trials > 1)
        added = [group.rows for group in plan.groups if any(lane.addend is not None for lane in group.lanes)]
        # The addends are products of the input, which exist a second time while they are put in place.
        rows += sum(plan.cell.shapes.states.values()) + sum(loop.buffers.values()) + 2 * sum(added)
        views += len(loop.loop.columns)
    inputs = 2 * _FLOAT * plans[0].cell.shapes.input_size
    tape = segment * (_sequences(spec) * (item * rows + inputs) + VIEW_BYTES * views)
    blocks = block * _sequences(spec) * item * rows * _BLOCK_COPIES
    width = max(_output_size(plans), *shapes.get(f"{READOUT}.b_y", (0,)))
    losses = _FLOAT * min(_loss_steps(spec), segment) * _sequences(spec) * width * _LOSS_COPIES
    return tape + blocks + losses


def _report_bytes(spec: Spec, plans: Sequence[LayerPlan]) -> int:
    return _NUMBER_IN_JSON * (spec.seq_len + 1) * (4 + len(_state_sizes(plans)) + 4 * _step_clips(spec))


def free_memory() -> int:
    """Return the memory that can be taken without swapping, in bytes; in a container, what is left of its share."""
    return min(_free_of_machine(), _free_of_container())


def _free_of_machine() -> int:
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


def _free_of_container(folder: Path = Path("/sys/fs/cgroup")) -> int:
    """Return what the control group (version 2) of this container leaves; no limit where there is none."""
    with suppress(OSError, ValueError, IndexError):
        most = int((folder / "memory.max").read_text())  # "max" where there is no limit
        used = int((folder / "memory.current").read_text())
        cached = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return max(most - used + int(cached.get("inactive_file", 0)), 0)
    return 2**63


def require_memory(
    spec: Spec,
    shapes: Mapping[str, tuple[int, ...]],
    plans: Sequence[LayerPlan],
    *,
    record: bool,
    runs_kept: int = 1,
) -> None:
    """Refuse a run that would need more than half of the free memory, shared by all runs that are kept.

    Raises:
        ResourceError: with the figure, and what to make smaller.
    """
    needed = estimate_memory(spec, shapes, plans, record=record)
    limit = int(free_memory() * _SHARE_OF_FREE_MEMORY)
    if needed > limit // runs_kept:
        share = "half of what is free" + (f", shared by {runs_kept} runs" if runs_kept > 1 else "")
        raise ResourceError(
            f"this run would need about {_readable(needed)} of memory; {_readable(limit // runs_kept)} ({share}) is the"
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
