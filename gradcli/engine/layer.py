"""One layer at work: its memory, the forward pass over a segment, and the values that the backward pass needs.

Layouts, with n steps, R trials and B sequences: states and everything that changes with the step are (n, R, size, B),
the features before the sequences, as the equations write ``W @ h``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from gradcli.engine import executor
from gradcli.engine.arrays import Arrays, Extent
from gradcli.engine.evaluate import Values, evaluate, product_into
from gradcli.engine.known import Filling, evaluated_before, fillings
from gradcli.engine.parameters import LayerParameters
from gradcli.engine.sizes import chunk_length, hoisted_rows
from gradcli.engine.starts import Start
from gradcli.engine.step.instructions import Buffer, Span, buffers_of
from gradcli.engine.step.plan import LayerPlan
from gradcli.language.graph import Dependence, Node
from gradcli.language.parser import INPUT_NAME

Array = np.ndarray[Any, Any]


def layer_bytes(plan: LayerPlan, extent: Extent, segment: int) -> int:
    """Return how many bytes a `Layer` takes for segments of so many steps."""
    plan = plan.windowed if extent.trials == 1 else plan
    of_forward = _of_forward(plan)
    number = extent.trials * extent.batch_size * extent.itemsize
    chunk, copied = _chunk(of_forward, number, segment)
    # What is hoisted exists twice while it is computed.
    known = segment * number * 2 * hoisted_rows(plan)
    own = [b for b in of_forward if b.span is Span.SEGMENT] if copied and executor.wanted() == executor.NUMPY else []
    copies = extent.bytes_of(own, segment=chunk, block=chunk)
    return extent.bytes_of(of_forward, segment=segment, block=chunk) + known + copies


def _of_forward(plan: LayerPlan) -> list[Buffer]:
    """Return the buffers that the forward pass has."""
    return list(dict.fromkeys([*buffers_of(plan.forward), *plan.layout.states.values()]))


def _chunk(of_forward: Iterable[Buffer], number: int, segment: int) -> tuple[int, bool]:
    """Return what `chunk_length` does for the buffers of the forward pass; a number has so many bytes, of all."""
    sizes = {span: sum(b.size for b in of_forward if b.span is span) * number for span in (Span.SEGMENT, Span.BLOCK)}
    return chunk_length(sizes[Span.SEGMENT], sizes[Span.BLOCK], segment)


class Layer:
    """A layer with numbers: parameters for each trial, memory for a segment.

    Args:
        plan: what is computed where.
        parameters: those to begin with; others of the same shapes may take their place.
        trials, batch_size: R and B.
        dtype: float64 or float32.
        segment: the largest number of steps that `forward` will be given.

    Attributes:
        arrays: the memory of everything that the programs of the plan name.
        states: the values of each state, (lag + segment, R, size, B). kept: all that is kept of the steps of a segment.
    """

    def __init__(
        self,
        plan: LayerPlan,
        parameters: LayerParameters,
        *,
        trials: int,
        batch_size: int,
        dtype: np.dtype[Any],
        segment: int,
    ) -> None:
        if plan.couples_sequences and batch_size == 1:
            raise ValueError("statistics of the batch need at least two sequences")
        self.plan = plan = plan.windowed if trials == 1 else plan
        self.trials, self.batch_size, self.dtype, self.segment = trials, batch_size, dtype, segment
        self.lag = plan.lag
        self.arrays = Arrays(trials, batch_size, dtype)
        self._constants: list[tuple[Buffer, Node]] = []
        self._added: dict[Filling, Array] = {}
        self.parameters = parameters
        of_forward = _of_forward(plan)
        self.kept = [buffer for buffer in of_forward if buffer.span is Span.SEGMENT]
        self.chunk, copied = _chunk(of_forward, trials * batch_size * dtype.itemsize, segment)
        self.allocate(of_forward, block=self.chunk)
        self.loop = executor.program(plan.forward, self.arrays, copied=self.chunk if copied else None)
        self.states = {name: self.arrays[buffer] for name, buffer in plan.layout.states.items()}
        self._fillings = fillings(plan)
        self._hoisted = evaluated_before(plan, self._fillings)
        self._known_states = [name for name, e in plan.states.items() if e.dependence < Dependence.STATE]
        self.values: Values = {}
        self.steps = 0
        self._finite = True

    # Memory.

    def allocate(self, buffers: Iterable[Buffer], block: int) -> None:
        """Take memory for the buffers of a program that have none, for blocks of so many steps."""
        for buffer in dict.fromkeys(buffers):
            if buffer in self.arrays:
                continue
            self.arrays.allocate([buffer], segment=self.segment, block=block)
            if buffer.value is not None:
                self._constants.append((buffer, buffer.value))
                self._fill_constant(buffer, buffer.value)

    @property
    def parameters(self) -> LayerParameters:
        return self._parameters

    @parameters.setter
    def parameters(self, parameters: LayerParameters) -> None:
        if getattr(self, "_parameters", None) is parameters:
            return
        self._parameters = parameters
        for buffer, value in self._constants:
            if not value.is_number:
                self._fill_constant(buffer, value)
        self.arrays.version += 1
        self._added.clear()

    def _fill_constant(self, buffer: Buffer, value: Node) -> None:
        known = np.asarray(self._parameters.known(value))
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite in it
            # One row for each trial, or, of what no parameter enters, one for all of them.
            self.arrays[buffer][0] = known.reshape(len(known), -1, 1) if known.ndim else known

    # What is known before the loop.

    def fill(self, lo: int, hi: int) -> None:
        """Fill in what the loop reads at the steps lo+1 .. hi of the segment."""
        for filling in self._fillings:
            self._fill(filling, lo, hi)

    def _fill(self, filling: Filling, lo: int, hi: int) -> None:
        into = self.arrays.of(filling.into)[: hi - lo]
        if filling.matrix is not None and filling.vector is not None:
            matrix = self.parameters.known(filling.matrix)
            product_into(into, matrix, self.values[filling.vector][lo:hi])
            if filling.constants:
                np.add(into, self._constants_of(filling), out=into)
            return
        assert filling.node is not None
        value = self.values[filling.node]
        value = value[lo:hi] if filling.node.dependence is Dependence.INPUT else value
        np.multiply(value, self.dtype.type(filling.sign), out=into)

    def _constants_of(self, filling: Filling) -> Array:
        """Return what is added to a product, with a column for each sequence: NumPy then goes over all at once."""
        if filling not in self._added:
            self._added[filling] = np.repeat(self.parameters.stacked(filling.constants), self.batch_size, axis=2)
        return self._added[filling]

    # The forward pass.

    def resume(self, x: Array, history: Mapping[str, Array]) -> None:
        """Take the input and the history of a segment, whose states and tape are there or will be; see `forward`."""
        self.steps = len(x)
        for name, past in history.items():
            self.states[name][: self.lag] = past
        self.values = dict(self.parameters.values)
        self.values[self.plan.graph.input()] = x

    def forward(self, x: Array, history: Mapping[str, Array], *, starts: Sequence[Start] = ()) -> None:
        """Run over the steps of one segment.

        Args:
            x: the input, (n, R, input_size, B).
            history: for each state the values at the last `lag` steps before the segment, (lag, R, size, B).
            starts: the sequences that begin within the segment.
        """
        self.resume(x, history)
        steps = self.steps
        evaluate(self._hoisted, self.values, self.parameters.column_ranges)
        for name in self._known_states:
            self.states[name][self.lag : self.lag + steps] = self.values[self.plan.states[name]]
        self._finite = True
        for lo, hi in self._chunks(starts):
            for start in starts:
                if start.offset == lo:
                    self.begin(start)
            self.fill(lo, hi)
            self.loop.run(lo, hi - lo)
            self._finite &= self._is_surely_finite(lo, hi)

    def _chunks(self, starts: Sequence[Start]) -> Iterator[tuple[int, int]]:
        """Yield what the loop takes at once, (lo, hi) for the steps lo+1 .. hi: sequences begin before a chunk."""
        borders = sorted({0, self.steps, *(start.offset for start in starts)})
        for first, last in pairwise(borders):
            for lo in range(first, last, self.chunk):
                yield lo, min(lo + self.chunk, last)

    def begin(self, start: Start) -> None:
        """Put the initial states of sequences in the place of what was computed for them before they began."""
        for name, past in start.history.items():
            self.states[name][start.offset : start.offset + self.lag, :, :, start.sequences] = past

    def _is_surely_finite(self, lo: int, hi: int) -> bool:
        """Tell whether all states at these steps are finite; False may also mean that their squares are not."""
        first, last = self.lag + lo, self.lag + hi
        return all(
            math.isfinite(np.vdot(part, part)) for array in self.states.values() if (part := array[first:last]).size
        )

    def array(self, node: Node) -> Array:
        """Return the values over the segment of a node that the forward pass has computed, (n, R, size, B)."""
        if node.dependence is Dependence.STATE:
            layout = self.plan.layout
            place = layout.read(node) if node.op in ("state", "window") else layout.places[node]
            if place.buffer.span is not Span.SEGMENT:
                raise AssertionError(f"{node} is not kept, but at {place}")
            return self.arrays.view(place)[: self.steps]
        evaluate([node], self.values, self.parameters.column_ranges)
        return np.asarray(self.values[node])

    def slope(self, node: Node) -> Array:
        """Return the slopes over the segment of a function across that the forward pass has computed."""
        return self.arrays[self.plan.layout.slopes[node]][: self.steps]

    def block_values(self, lo: int, hi: int) -> Values:
        """Return the values of all that is known without computing, over the steps lo+1 .. hi of the segment."""
        values: Values = {
            node: value[lo:hi] if node.dependence is Dependence.INPUT else value for node, value in self.values.items()
        }
        graph, lags = self.plan.graph, self.plan.lags
        states = [graph.state(name, lag) for name in self.plan.states for lag in range(lags[name] + 1)]
        values |= {node: self.array(node)[lo:hi] for node in (*states, *self.plan.layout.stored)}
        for lag in range(1, lags.get(INPUT_NAME, 0) + 1):
            values[graph.input(lag)] = values[graph.state(INPUT_NAME, lag)]
        return values

    def history(self) -> dict[str, Array]:
        """Return a copy of the last `lag` values of each state, for the segment that follows."""
        return {name: array[self.steps : self.steps + self.lag].copy() for name, array in self.states.items()}

    def outputs(self) -> Array:
        """Return the output state over the segment, (n, R, size, B); a view."""
        return self.states[self.plan.cell.output][self.lag : self.lag + self.steps]

    def first_nonfinite(self) -> int | None:
        """Return the first step of the segment, counted from 0, at which a state is not finite."""
        if self._finite:
            return None
        bad = np.zeros(self.steps, dtype=bool)
        for array in self.states.values():
            bad |= ~np.isfinite(array[self.lag : self.lag + self.steps]).all(axis=(1, 2, 3))
        return int(np.argmax(bad)) if bad.any() else None
