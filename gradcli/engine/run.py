"""The engine: a whole problem, as groups of trials that fit into the cache, one group after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from gradcli.engine.bidirectional import BothWays
from gradcli.engine.blocks import Visit
from gradcli.engine.group import TrialGroup
from gradcli.engine.loss import Loss
from gradcli.engine.parameters import ParametersOfSteps
from gradcli.engine.problem import Overflow, Problem, Progress, Run
from gradcli.engine.recorder import Recorder
from gradcli.engine.stack_backward import Backward
from gradcli.engine.starts import FilledInput, Input
from gradcli.engine.step_clip import StepClip
from gradcli.engine.together import joined_runs

Array = np.ndarray[Any, Any]

#: An input up to this size is kept from the first pass on; a larger one is made again for every pass.
KEPT_INPUT_BYTES = 16 * 2**20


class Engine:
    """Runs one problem; buffers and compiled loops are kept, so that further runs with other parameters cost little.

    Args:
        problem: what to run.
        segment: steps a segment, chosen from the sizes unless given. block: steps a block, likewise.
        at_once: how many trials run together, likewise.
        progress: called after every segment of a forward pass and every block of a backward pass.
    """

    def __init__(
        self,
        problem: Problem,
        *,
        segment: int | None = None,
        block: int | None = None,
        at_once: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.problem = problem
        self._segment, self._block, self._progress = segment, block, progress
        self._parameters = problem.parameters
        self._source = _KeptInput(problem)
        count = -(-problem.trials // (at_once or problem.sizes.trials_at_once))
        borders = [problem.trials * i // count for i in range(count + 1)]
        self._ranges = list(pairwise(borders))
        self._whole = self._part(0, problem.trials) if count == 1 else None
        self._groups: dict[int, TrialGroup] = {}
        self._prepared: dict[int, ParametersOfSteps] = {}

    def _group(self, index: int, passes: int = 1) -> TrialGroup:
        """Return the group of some trials, ready for so many passes; groups of the same size share buffers."""
        first, last = self._ranges[index]
        problem = self._whole or self._part(first, last)
        if index not in self._prepared:
            self._prepared[index] = ParametersOfSteps(
                problem.plans, problem.parameters, trials=last - first, dtype=problem.dtype, tied=problem.tied
            )
        prepared = self._prepared[index]
        group = self._groups.get(last - first)
        if group is None:
            group = TrialGroup(problem, prepared, segment=self._segment, block=self._block)
            self._groups[last - first] = group
        else:
            group.load(problem, prepared)
        if self._progress is not None:
            group.progress = self._progress_of(index, passes, self._progress)
        return group

    def _part(self, first: int, last: int) -> Problem:
        source = _InputOfTrials(self._source, first, last)
        return self.problem.of_trials(first, last, source=source, parameters=self._parameters)

    def _progress_of(self, index: int, passes: int, progress: Progress, done: int = 0) -> Progress:
        groups = len(self._ranges)
        if groups == 1:
            return progress

        def of_all(stage: str, steps: int, total: int) -> None:
            before = index * passes + done + (stage == "backward")
            progress("all trials", before * total + steps, groups * passes * total)

        return of_all

    def set_parameters(self, parameters: Sequence[Mapping[str, Array]]) -> None:
        """Take other parameter values for the runs that follow."""
        self._parameters = parameters
        self._prepared.clear()
        if self._whole is not None:
            self._whole = self._part(0, self.problem.trials)

    def set_loss(self, loss: Loss) -> None:
        """Take another loss for the runs that follow."""
        self.problem = replace(self.problem, loss=loss)
        if self._whole is not None:
            self._whole = self._part(0, self.problem.trials)

    def losses(self) -> tuple[Array, Overflow | None]:
        """Return the loss of each sequence (R, B), and where the forward pass overflowed, if it did."""
        found = [self._group(index).losses() for index in range(len(self._ranges))]
        return np.concatenate([losses for losses, _ in found]), self._first([overflow for _, overflow in found])

    def run(
        self,
        *,
        record: bool = False,
        step_clip: StepClip | None = None,
        parameters: bool = True,
        plain: bool = False,
        visit: Callable[[slice, Visit], None] | None = None,
        after: Callable[[slice, TrialGroup, Run], None] | None = None,
    ) -> Run:
        """Return the losses, the norms of all adjoints at all steps, and the parameter gradients.

        Args:
            record: keep states and adjoints themselves as well.
            step_clip: clip each state's adjoint at each step.
            parameters: whether parameter gradients are wanted.
            plain: let adjoints under- and overflow as the plain floats of a framework do, which has the gradient of the
                batch loss; norms are still those of each sequence's own.
            visit: called for each block of steps on the way back, with its trials, see `walk_adjoints`; not where
                layers have two directions.
            after: called with some trials and their run, as soon as they are through: nothing has to be computed again
                for a walk then.
        """
        runs, passes = [], 2 if after is None else 3
        for index, (first, last) in enumerate(self._ranges):
            trials, group = slice(first, last), self._group(index, passes)
            visit_trials = partial(visit, trials) if visit is not None else None
            runs.append(_backpropagated(group, record, step_clip, parameters, plain, visit_trials))
            if after is not None:
                if self._progress is not None:
                    group.progress = self._progress_of(index, passes, self._progress, done=1)
                after(trials, group, runs[-1])
        if len(runs) == 1:
            return runs[0]
        overflow = self._first([run.overflow for run in runs])
        if overflow is not None:
            recording = joined_runs(runs).recording if record else None
            return Run(np.concatenate([run.losses for run in runs]), {}, {}, overflow, recording=recording)
        found = joined_runs(runs)
        found.backward_overflow = self._first([run.backward_overflow for run in runs], backward=True)
        return found

    def groups(self) -> Iterator[tuple[slice, TrialGroup]]:
        """Yield the trials group by group, each ready for a walk; finish one before the next: they share buffers."""
        for index, (first, last) in enumerate(self._ranges):
            yield slice(first, last), self._group(index, passes=2)

    def _first(self, found: Sequence[Overflow | None], backward: bool = False) -> Overflow | None:
        """Return the overflow that a pass over all trials would have met first, with all trials that it concerns."""
        met = [overflow for overflow in found if overflow is not None]
        if not met:
            return None
        earliest = min(met, key=lambda o: self.problem.order_of(o.step, o.layer, backward=backward))
        trials = np.zeros(self.problem.trials, dtype=bool)
        for (first, last), overflow in zip(self._ranges, found, strict=True):
            if overflow is not None and (overflow.step, overflow.layer) == (earliest.step, earliest.layer):
                trials[first:last] |= overflow.trials
        return Overflow(earliest.step, earliest.layer, trials)

    def overflow(self) -> Overflow | None:
        """Return where the forward pass overflows, if it does, with all trials that do so there."""
        return self.losses()[1]

    def group_of(self, overflow: Overflow) -> tuple[int, TrialGroup]:
        """Return the group of the first trial in which something happened, and the number of its own first trial."""
        trial = int(np.argmax(overflow.trials))
        index, first = next((i, first) for i, (first, last) in enumerate(self._ranges) if first <= trial < last)
        return first, self._group(index)


def _backpropagated(
    group: TrialGroup,
    record: bool,
    step_clip: StepClip | None,
    parameters: bool,
    plain: bool,
    visit: Callable[[Visit], None] | None = None,
) -> Run:
    """Return what `Engine.run` does for a group of trials."""
    problem = group.problem
    recorder = Recorder(group) if record else None
    with np.errstate(all="ignore"):
        keep = recorder.keep_states if recorder else None
        losses, checkpoints, overflow = group.forward(on_segment=keep, to_the_end=record)
        run = Run(losses, {}, {}, overflow, recording=recorder.recording if recorder else None)
        if overflow is not None:
            return run
        shape = (problem.seq_len + 1, problem.trials, problem.batch_size)
        for name, layer in zip(problem.names, group.layers, strict=True):
            run.log2_norm |= {f"{name}.{state}": np.full(shape, np.nan) for state in layer.plan.cell.states}
        backward = Backward(group, run, recorder, step_clip, parameters, plain, visit)
        if problem.bidirectional:
            is_finite = BothWays(backward).run()
        else:
            is_finite = all(backward.segment(lo, hi) for lo, hi in group.segments_back(checkpoints))
        if is_finite:
            backward.finish()
    return run


class _KeptInput:
    """The input of a problem, made once where it is small."""

    def __init__(self, problem: Problem) -> None:
        self._source: Input = FilledInput(problem.source, problem.begins) if problem.begins else problem.source
        self._dtype, self._steps = problem.dtype, problem.seq_len
        numbers = problem.seq_len * problem.trials * problem.batch_size * problem.plans[0].cell.shapes.input_size
        self._small = numbers * problem.dtype.itemsize <= KEPT_INPUT_BYTES
        self._kept: Array | None = None

    def fill(self, start: int, stop: int) -> Array:
        if not self._small:
            return self._source.fill(start, stop).astype(self._dtype, copy=False)
        if self._kept is None:
            self._kept = self._source.fill(0, self._steps).astype(self._dtype, copy=False)
        return self._kept[start:stop]


class _InputOfTrials:
    """The input of some of a problem's trials."""

    def __init__(self, source: Input, first: int, last: int) -> None:
        self._source, self._trials = source, slice(first, last)

    def fill(self, start: int, stop: int) -> Array:
        return self._source.fill(start, stop)[:, self._trials]
