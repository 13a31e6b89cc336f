"""Problems of the same cell as one, on the axis of the trials: a call's own time is then paid once for all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from gradcli.engine.problem import Problem, Recording, Run
from gradcli.engine.scaled import Scaled
from gradcli.engine.starts import Input

Array = np.ndarray[Any, Any]


def can_join(a: Problem, b: Problem) -> bool:
    """Tell whether two problems differ in nothing but numbers: parameters, initial states, input, targets.

    What memory their tapes may take does not count: it comes of what was free when each was built.
    """
    return (
        [plan.signature for plan in a.plans] == [plan.signature for plan in b.plans]
        and (a.seq_len, a.batch_size, a.dtype) == (b.seq_len, b.batch_size, b.dtype)
        and (a.tied, a.bidirectional) == (b.tied, b.bidirectional)
        and _begin_together(a, b)
        and a.loss.can_join(b.loss)
    )


def _begin_together(a: Problem, b: Problem) -> bool:
    """Tell whether the sequences of two problems begin after the same steps."""
    if a.begins is None or b.begins is None:
        return a.begins is b.begins
    return np.array_equal(a.begins.steps, b.begins.steps)


def joined(problems: Sequence[Problem]) -> Problem:
    """Return problems that `can_join` as one, whose trials are those of the first, then those of the next, ..."""
    first = problems[0]
    return replace(
        first,
        parameters=_joined_tables([p.parameters for p in problems]),
        initial=_joined_tables([p.initial for p in problems]),
        source=_JoinedInput([p.source for p in problems]),
        loss=first.loss.joined([p.loss for p in problems[1:]]),
        trials=sum(p.trials for p in problems),
        tape_bytes=min(p.tape_bytes for p in problems),
    )


class _JoinedInput:
    """The inputs of several problems side by side."""

    def __init__(self, sources: Sequence[Input]) -> None:
        self._sources = sources

    def fill(self, start: int, stop: int) -> Array:
        return np.concatenate([source.fill(start, stop) for source in self._sources], axis=1)


def _joined_tables(tables: Sequence[Sequence[Mapping[str, Array]]]) -> list[dict[str, Array]]:
    return [
        {name: np.concatenate([t[name] for t in layer]) for name in layer[0]} for layer in zip(*tables, strict=True)
    ]


def apart(run: Run, problems: Sequence[Problem]) -> list[Run]:
    """Return the parts of a run of `joined` problems, none of which overflowed."""
    borders = np.cumsum([0, *(problem.trials for problem in problems)])
    return [_part(run, slice(first, last)) for first, last in pairwise(borders.tolist())]


def _part(run: Run, trials: slice) -> Run:
    recording = run.recording
    return Run(
        run.losses[trials],
        {name: norm[:, trials] for name, norm in run.log2_norm.items()},
        {name: Scaled(g.mantissa[trials], g.exponent[trials]) for name, g in run.gradients.items()},
        recording=recording and _part_of_recording(recording, trials),
    )


def _part_of_recording(recording: Recording, trials: slice) -> Recording:
    def part(table: Mapping[str, Array]) -> dict[str, Array]:
        return {name: array[:, trials] for name, array in table.items()}

    return Recording(
        part(recording.states), part(recording.adjoints), part(recording.exponents), recording.x[:, trials]
    )


def joined_runs(runs: Sequence[Run]) -> Run:
    """Return the runs of groups of trials as one; where a gradient overflowed, only what all of them have."""

    def join(pick: Callable[[Run], Mapping[str, Array]], axis: int) -> dict[str, Array]:
        names = [name for name in pick(runs[0]) if all(name in pick(run) for run in runs)]
        return {name: np.concatenate([pick(run)[name] for run in runs], axis=axis) for name in names}

    mantissas = join(lambda run: {name: g.mantissa for name, g in run.gradients.items()}, 0)
    exponents = join(lambda run: {name: g.exponent for name, g in run.gradients.items()}, 0)
    recordings = [run.recording for run in runs if run.recording is not None]
    return Run(
        np.concatenate([run.losses for run in runs]),
        join(lambda run: run.log2_norm, 1),
        {name: Scaled(mantissas[name], exponents[name]) for name in mantissas},
        recording=_joined_recordings(recordings) if recordings else None,
    )


def _joined_recordings(recordings: Sequence[Recording]) -> Recording:
    def join(tables: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
        return {name: np.concatenate([table[name] for table in tables], axis=1) for name in tables[0]}

    return Recording(
        join([recording.states for recording in recordings]),
        join([recording.adjoints for recording in recordings]),
        join([recording.exponents for recording in recordings]),
        np.concatenate([recording.x for recording in recordings], axis=1),
    )
