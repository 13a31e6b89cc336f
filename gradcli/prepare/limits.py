"""What a run will take, reckoned before it is taken."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from gradcli.engine.arrays import Extent
from gradcli.engine.backward import pass_bytes
from gradcli.engine.layer import layer_bytes
from gradcli.engine.problem import READOUT, UNLIMITED
from gradcli.engine.run import KEPT_INPUT_BYTES
from gradcli.engine.sizes import Sizes
from gradcli.engine.step.plan import LayerPlan
from gradcli.errors import ResourceError
from gradcli.frozen import frozen
from gradcli.sources.cuts import lengths_file
from gradcli.sources.files import FieldError
from gradcli.spec.given import Given
from gradcli.spec.inputs import FileInput, Input, TextInput, TokensInput
from gradcli.spec.losses import BinaryCrossEntropyLoss, FileTarget, GivenLoss, MSELoss, TargetLoss, loss_steps
from gradcli.spec.models import Spec, StepNormClip, StepValueClip

_FLOAT = 8
#: Copies of the parameters alive at once: drawn, in the engine, stacked twice, gradients twice, clipped, after a step.
_PARAMETER_COPIES = 9
#: Curves by distance alone: the headline's quantiles and mean, what the verdict is read from; and of a state two.
_OF_SEQUENCES, _OF_STATE, _READ_FROM = 4, 2, 3
#: Copies of what the loss works on: outputs, differences or logits, their gradient.
_LOSS_COPIES = 4
#: Bytes for each byte of a text: itself, its characters, and its code points.
_READING_TEXT = 1 + 4 + 4
#: Bytes for each byte of a CSV file: "0," becomes a float64, in an array that grows by an eighth at a time.
_READING_CSV = 5
#: Bytes for each byte of a list of whole numbers: "0 " becomes an int64, in an array that grows by an eighth at a time.
_READING_NUMBERS = 5
#: What may be read from a file.
Readable = Input | FileTarget | GivenLoss
#: On top of what is counted, for what is not.
_MARGIN = 1.15
_SHARE_OF_FREE_MEMORY = 0.5
#: The tape takes at most this share of what a run may need; a longer sequence is computed in segments.
_SHARE_OF_TAPE = 0.25


class MemoryRefused(ResourceError):
    """A run that would need more memory than it may take: `needed` bytes are enough."""

    def __init__(self, message: str, needed: int) -> None:
        super().__init__(message)
        self.needed = needed


@frozen
class Beside:
    """What a command needs beside the run itself.

    size: how many bytes, from the spec and a plan for each layer; it may refuse as well. what: in words, as in "what is
        kept of every step".
    """

    size: Callable[[Spec, Sequence[LayerPlan]], int]
    what: str


def estimate_memory(
    spec: Spec,
    shapes: Mapping[str, tuple[int, ...]],
    plans: Sequence[LayerPlan],
    *,
    tied: bool = True,
    record: bool,
    tape_bytes: int = UNLIMITED,
) -> int:
    """Return about how many bytes a run and its report need, up to twice too many.

    What lasts are the parameters, R sum(shape), whose shapes have the steps first where they are not `tied`, the
    targets, a curve for each state, R B (T + 1), and with `record` the states and adjoints themselves, R B (T + 1) H.
    On top of it comes the engine's tape, at most about `tape_bytes`.
    """
    parameters = spec.trials * sum(int(np.prod(shape, dtype=object)) for shape in shapes.values())
    lasting = _FLOAT * parameters * _PARAMETER_COPIES + _target_bytes(spec, shapes, plans) + _curve_bytes(spec, plans)
    if record:
        lasting += _recording_bytes(spec, plans)
    return int(_MARGIN * (lasting + _engine_bytes(spec, shapes, plans, tape_bytes, tied)))


def _state_sizes(plans: Sequence[LayerPlan]) -> list[int]:
    return [size for plan in plans for size in plan.cell.shapes.states.values()]


def _sequences(spec: Spec) -> int:
    return spec.trials * spec.batch_size


def _step_clips(spec: Spec) -> int:
    return sum(isinstance(clip, StepNormClip | StepValueClip) for clip in spec.clip)


def _loss_steps(spec: Spec) -> int:
    return spec.seq_len if spec.loss.at == "every" else len(loss_steps(spec.loss, spec.seq_len))


def _output_size(spec: Spec, plans: Sequence[LayerPlan]) -> int:
    return _output_of(plans[-1]) * (2 if spec.bidirectional else 1)


def _output_of(plan: LayerPlan) -> int:
    return plan.cell.shapes.states[plan.cell.output]


def _target_bytes(spec: Spec, shapes: Mapping[str, tuple[int, ...]], plans: Sequence[LayerPlan]) -> int:
    """The targets, and as many again while they are drawn."""
    if not isinstance(spec.loss, TargetLoss):
        return 0
    if isinstance(spec.loss, MSELoss):
        size = _output_size(spec, plans)
    else:
        size = shapes[f"{READOUT}.b_y"][0] if isinstance(spec.loss, BinaryCrossEntropyLoss) else 1
    return 2 * _FLOAT * _loss_steps(spec) * _sequences(spec) * size


def _curve_bytes(spec: Spec, plans: Sequence[LayerPlan]) -> int:
    states, clips = len(_state_sizes(plans)), _step_clips(spec)
    several_losses = _loss_steps(spec) > 1  # their curve is kept, and the norms are there once more
    copies = bool(clips) + several_losses + _copies_of_groups(spec, plans)
    by_distance = _OF_STATE * states + _OF_SEQUENCES * (1 + clips + several_losses) + _READ_FROM
    return _FLOAT * (spec.seq_len + 1) * (_sequences(spec) * states * copies + by_distance)


def _copies_of_groups(spec: Spec, plans: Sequence[LayerPlan]) -> int:
    """Trials that run in several groups have what was found about them joined at the end: it exists twice then."""
    return 1 if sizes_of(spec, plans).trials_at_once == spec.trials else 2


def _recording_bytes(spec: Spec, plans: Sequence[LayerPlan]) -> int:
    """States, adjoints and their exponents, and the input."""
    sizes = _state_sizes(plans)
    entries = 2 * sum(sizes) + len(sizes) + plans[0].cell.shapes.input_size
    return _FLOAT * (spec.seq_len + 1) * _sequences(spec) * entries * _copies_of_groups(spec, plans)


def sizes_of(spec: Spec, plans: Sequence[LayerPlan], tape_bytes: int = UNLIMITED) -> Sizes:
    item = np.dtype(spec.dtype).itemsize
    return Sizes(plans, spec.seq_len, spec.trials, spec.batch_size, item, tape_bytes, whole_sequence=spec.bidirectional)


def _engine_bytes(
    spec: Spec, shapes: Mapping[str, tuple[int, ...]], plans: Sequence[LayerPlan], tape_bytes: int, tied: bool
) -> int:
    """One segment of the tape, one block of the backward pass, and what the loss makes of a segment."""
    sizes = sizes_of(spec, plans, tape_bytes)
    sizes = replace(sizes, trials=sizes.trials_at_once, tied=tied)
    sequences = sizes.trials * spec.batch_size
    extent = Extent(sizes.trials, spec.batch_size, sizes.itemsize)
    segments = -(-spec.seq_len // sizes.segment)
    stretches = sizes.stretches(sizes.segment) if segments > 1 else 1
    layers = sum(layer_bytes(plan, extent, sizes.segment) for plan in plans)
    if stretches > 1:  # what is computed again, side by side, is copied to its place
        beside = extent._replace(batch_size=stretches * spec.batch_size)
        layers += sum(layer_bytes(plan, beside, sizes.segment // stretches) for plan in plans)
    borders = sum(sum(plan.cell.shapes.states.values()) * plan.lag for plan in plans)
    kept = segments * stretches * sequences * sizes.itemsize * borders
    passes = sum(pass_bytes(plan, extent, sizes.block) for plan in plans)
    input_step = _FLOAT * _sequences(spec) * plans[0].cell.shapes.input_size
    inputs = min(2 * sizes.segment * input_step, KEPT_INPUT_BYTES + sizes.segment * input_step)
    width = max(_output_size(spec, plans), *shapes.get(f"{READOUT}.b_y", (0,)))
    losses = _FLOAT * min(_loss_steps(spec), sizes.segment) * sequences * width * _LOSS_COPIES
    between = sizes.seq_len * sequences * _bytes_between(spec, plans, sizes.itemsize) if spec.bidirectional else 0
    return layers + kept + passes + inputs + losses + between


def _bytes_between(spec: Spec, plans: Sequence[LayerPlan], itemsize: int) -> int:
    """What stands between bidirectional layers at a position of a sequence.

    That is the input once more, reversed, and the outputs joined, which all layers keep; and dL/dy of each output with
    its exponent, for the layer that sends it and the one that receives it. Where lengths differ, what is reversed is
    put together anew, and so is the gradient of the loss.
    """
    numbers = exponents = 0
    for reverse in plans[1::2]:
        numbers += reverse.cell.shapes.input_size + 2 * _output_of(reverse)
    if len(plans) > 2:
        numbers += 2 * 2 * max(map(_output_of, plans))
        exponents = 2 * 2
    if isinstance(spec.input, FileInput | TokensInput) and spec.input.lengths is not None:
        numbers += 2 * max(plan.cell.shapes.input_size for plan in plans) + 2 * _output_size(spec, plans)
    return itemsize * numbers + _FLOAT * exponents


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
    tied: bool = True,
    record: bool,
    runs_kept: int = 1,
    max_memory: int | None = None,
    beside: Beside | None = None,
) -> int:
    """Refuse a run that would need more memory than it may take, and return how much of that the tape may take.

    Args:
        tied: whether all steps share their weights.
        runs_kept: how many runs of about this size share the memory.
        max_memory: the limit in bytes; by default half of what is free.
        beside: what is wanted of the run, and needs memory of its own.

    Raises:
        ResourceError: with a figure that is enough, the limit and where it comes from, and what to change.
    """
    limit, origin = _memory_limit(max_memory)
    more = beside.size(spec, plans) if beside else 0

    def reckoned(limit: int) -> int:
        tape = int(limit * _SHARE_OF_TAPE)
        return more + estimate_memory(spec, shapes, plans, tied=tied, record=record, tape_bytes=tape)

    needed = reckoned(limit // runs_kept)
    if needed > limit // runs_kept:
        # With more memory the tape may be longer: the figure is one with which the run begins.
        needed = _rounded_up(needed)
        while (again := reckoned(needed)) > needed:
            needed = _rounded_up(again)
        share = origin + (f", shared by {runs_kept} runs" if runs_kept > 1 else "")
        why = " (bidirectional layers keep the whole sequence)" if spec.bidirectional else ""
        advice = "" if tied else "With tied: false every step has weights of its own. "
        advice += f"Make hidden_size ({spec.hidden_size}), input_size ({plans[0].cell.shapes.input_size}), "
        advice += f"batch_size ({spec.batch_size}), trials ({spec.trials}) or seq_len ({spec.seq_len}) smaller"
        what = f"this run, with {beside.what}," if beside else "this run"
        for_all = f" ({readable_size(_rounded_up(needed * runs_kept))} for {runs_kept} runs)" if runs_kept > 1 else ""
        raise MemoryRefused(
            f"{what} would need about {readable_size(needed)} of memory{why}; {readable_size(limit // runs_kept)}"
            f" ({share}) is the limit. {advice}, {'leave out --save, ' if record else ''}or allow more with"
            f" --max-memory{for_all}",
            needed,
        )
    return int(limit // runs_kept * _SHARE_OF_TAPE)


def require_memory_to_read(model: Readable, folder: Path, *, max_memory: int | None = None) -> None:
    """Refuse a file that would need more memory than a run may take, before it is read.

    Args:
        model: the input of a spec, its target, or a loss that is given. folder: where relative paths start.
        max_memory: as for `require_memory`.

    Raises:
        ResourceError: with the figure, the limit and where it comes from, and what to change.
    """
    limit, origin = _memory_limit(max_memory)
    for name, size, needed in _reading(model, folder):
        if needed > limit:
            raise ResourceError(
                f"reading {name} ({readable_size(size)}) could need {readable_size(needed)} of memory;"
                f" {readable_size(limit)} ({origin}) is the limit. Cut out the part that is needed, or allow more with"
                " --max-memory"
            )


def _reading(model: Readable, folder: Path) -> Iterator[tuple[str, int, int]]:
    """Yield the name and size of each file that is read into memory, and what that could need, in bytes."""
    if not isinstance(model, FileInput | TextInput | TokensInput | FileTarget | GivenLoss):
        return  # drawn by the segment
    file = model.file if isinstance(model, GivenLoss) else model.path
    if isinstance(file, Given):
        return  # in memory already
    files = [(file, None if isinstance(model, TextInput) else model.key)]
    if isinstance(model, FileInput | TokensInput) and isinstance(model.lengths, str):
        with suppress(FieldError):  # its reader says so
            files.append(lengths_file(model))
    for name, key in files:
        path = folder / name
        ending = path.suffix.lower()
        try:
            size = path.stat().st_size
        except (OSError, ValueError):
            continue  # what is wrong with it, its reader says
        if ending == ".npz":
            from gradcli.sources.npz import array_bytes

            yield name, size, array_bytes(path, key)
        elif ending == ".csv":
            yield name, size, size * _READING_CSV
        elif isinstance(model, TextInput):
            yield name, size, size * _READING_TEXT
        elif ending == ".txt":
            yield name, size, size * _READING_NUMBERS
        elif isinstance(model, FileInput) and model.columns is not None:
            yield name, size, size  # else it is mapped


def require_memory_for(needed: int, what: str, change: str, *, max_memory: int | None = None) -> None:
    """Refuse work that would need more memory than it may take.

    Args:
        needed: bytes. what: the work, as in "the Jacobian of 4096 x 4096 entries". change: what to make smaller.
        max_memory: as for `require_memory`.

    Raises:
        ResourceError: with the figure, the limit and where it comes from, and what to change.
    """
    limit, origin = _memory_limit(max_memory)
    if needed > limit:
        raise ResourceError(
            f"{what} would need about {readable_size(needed)} of memory; {readable_size(limit)} ({origin}) is the"
            f" limit. Make {change} smaller, or allow more with --max-memory"
        )


def memory_limit(max_memory: int | None = None) -> int:
    """Return how many bytes may be needed; `max_memory` as for `require_memory`."""
    return _memory_limit(max_memory)[0]


def _memory_limit(max_memory: int | None) -> tuple[int, str]:
    """Return how many bytes may be needed, and where that comes from."""
    if max_memory is not None:
        return max_memory, "--max-memory"
    return int(free_memory() * _SHARE_OF_FREE_MEMORY), "half of what is free"


def _rounded_up(size: int) -> int:
    """Return at least as many bytes, so that what `readable_size` writes is no less."""
    unit = 1
    while size / unit >= 1000:
        unit *= 1024
    step = 1 if unit == 1 else unit if size / unit >= 10 else unit / 10
    return math.ceil(math.ceil(size / step) * step)


def readable_size(size: int) -> str:
    """Return a number of bytes as text: 1.5 MiB."""
    value, unit = float(size), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB"):
        if value < 1000:
            break
        value, unit = value / 1024, larger
    return f"{value:,.{0 if value >= 10 or unit == 'bytes' else 1}f} {unit}"
