"""One layer at work: its buffers, the forward pass over a segment, and the values that the backward pass needs.

Layouts, with n steps, R trials and B sequences: states and everything that changes with the step are (n, R, size, B),
the features before the sequences, as the equations write ``W @ h``. The loops see the same memory without axes of
length 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from gradcli.engine.addends import Affine, affine_in_input, stacked_addends
from gradcli.engine.evaluate import Values, evaluate, product_into
from gradcli.engine.forward_loop import ForwardWriter, slope_buffer
from gradcli.engine.loop import Key
from gradcli.engine.parameters import LayerParameters, forward_sign
from gradcli.engine.plan import LayerPlan
from gradcli.engine.sizes import chunk_length
from gradcli.engine.starts import Start
from gradcli.engine.views import window_view
from gradcli.language.graph import Dependence, Node, reachable

Array = np.ndarray[Any, Any]

#: Up to this many entries a constant operand is a full array, which NumPy handles faster than a scalar.
_FULL_CONSTANT = 4096


class Layer:
    """A layer with numbers: parameters for each trial, buffers for a segment.

    Args:
        plan: what is computed where.
        parameters: those to begin with; others of the same shapes may take their place.
        trials, batch_size: R and B.
        dtype: float64 or float32.
        segment: the largest number of steps that `forward` will be given.
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
        self.plan = plan
        self.trials, self.batch_size, self.dtype, self.segment = trials, batch_size, dtype, segment
        self.lag = plan.lag
        self.parameters = parameters
        self.forward_code = ForwardWriter(plan, trials > 1)
        self.states = {name: self.empty(segment + self.lag, plan.cell.shapes.states[name]) for name in plan.states}
        self.tape = {name: self.empty(segment, rows) for name, rows in self.forward_code.buffers.items()}
        added = [group for group in plan.groups if any(lane.addend is not None for lane in group.lanes)]
        hoisted = [key[1] for key in self.forward_code.loop.columns if key[0] == "hoisted"]
        row_bytes = trials * batch_size * dtype.itemsize
        kept = sum(a.strides[0] for a in (*self.states.values(), *self.tape.values()))
        read = sum(group.rows for group in added) + sum(map(plan.size, hoisted))
        self.chunk, copied = chunk_length(kept, read * row_bytes, segment)
        self.addends = {group.index: np.zeros((self.chunk, trials, group.rows, batch_size), dtype) for group in added}
        # What the loop works on: the tape itself, or a chunk of it that is copied to the tape.
        self._copied = copied
        self._work_states, self._work_tape = self.states, self.tape
        if copied:
            self._work_states = {name: self.empty(self.chunk + self.lag, a.shape[2]) for name, a in self.states.items()}
            self._work_tape = {name: self.empty(self.chunk, a.shape[2]) for name, a in self.tape.items()}
        self._work_hoisted = {node: self.empty(self.chunk, plan.size(node)) for node in hoisted}
        self.stacked = stacked_addends(plan)
        self._affine = self._affine_nodes()
        self._hoisted = self._hoisted_nodes()
        self._known_states = [name for name, e in plan.states.items() if e.dependence < Dependence.STATE]
        self._scratch: dict[Any, Array] = {}
        self._views: dict[Key, list[Array]] = {}
        self.values: Values = {}
        self.steps = 0
        self._finite = True

    def empty(self, steps: int, rows: int) -> Array:
        return np.empty((steps, self.trials, rows, self.batch_size), self.dtype)

    def squeeze(self, array: Array, lead: int) -> Array:
        """Return a view without the axes of trials and sequences where they have length 1, as the loops want it."""
        if self.trials > 1:
            return array
        array = array[(slice(None),) * lead + (0,)]
        return array[..., 0] if self.batch_size == 1 else array

    # Hoisting.

    def _hoisted_nodes(self) -> list[Node]:
        """Return the hoisted nodes whose values are computed for a whole segment, before the loop reads them."""
        stacked = {product for item in self.stacked for product in item.products}
        lanes = [lane for group in self.plan.groups for lane in group.lanes if lane.product not in stacked]
        wanted = [lane.addend for lane in lanes if lane.addend is not None]
        wanted += [node for node in self._work_hoisted if node not in self._affine]
        wanted += [e for e in self.plan.states.values() if e.dependence < Dependence.STATE]
        return list(dict.fromkeys(wanted))

    def _affine_nodes(self) -> dict[Node, Affine]:
        """Return the hoisted nodes of which one product fills in what the loop reads, and nothing else reads any."""
        mentioned = set(reachable(self.plan.coefficients(), stop=self.plan.stored))
        found = {node: affine_in_input(node) for node in self._work_hoisted if node not in mentioned}
        return {node: affine for node, affine in found.items() if affine is not None}

    def _fill_addends(self, lo: int, hi: int) -> None:
        """Compute what is added to the recurrent products at the steps lo+1 .. hi of the segment."""
        stacked = set()
        for item in self.stacked:
            stacked.update(item.products)
            rows = self.addends[item.group][: hi - lo, :, slice(*item.rows)]
            matrix = self.parameters.addend_matrix(item, signed=True)
            product_into(rows, matrix, self.values[item.vector][lo:hi])
            if any(addend.constants for addend in item.addends):
                np.add(rows, self._over_sequences(self.parameters.addend_constants(item)), out=rows)
        for group in self.plan.groups:
            for lane in group.lanes:
                if lane.addend is None or lane.product in stacked:
                    continue
                rows = self.addends[group.index][: hi - lo, :, lane.start : lane.stop]
                value = self.values[lane.addend]
                value = value[lo:hi] if lane.addend.dependence is Dependence.INPUT else value
                np.multiply(value, self.dtype.type(lane.addend_sign * forward_sign(self.plan, lane)), out=rows)

    def _fill_hoisted(self, lo: int, hi: int) -> None:
        """Bring what else the loop reads at the steps lo+1 .. hi of the segment to where it reads it."""
        for node, work in self._work_hoisted.items():
            rows = work[: hi - lo]
            affine = self._affine.get(node)
            if affine is None:
                np.copyto(rows, self.values[node][lo:hi])
                continue
            product_into(rows, self.parameters.affine_matrix(affine), self.values[affine.vector][lo:hi])
            if affine.constants:
                np.add(rows, self._over_sequences(self.parameters.affine_constants(affine)), out=rows)

    # The forward pass.

    def resume(self, x: Array, history: Mapping[str, Array]) -> None:
        """Take the input and the history of a segment, whose states and tape are there or will be; see `forward`."""
        self.steps = len(x)
        for name, past in history.items():
            self.states[name][: self.lag] = past
        self.values = dict(self.parameters.values)
        self.values[self.plan.graph.input()] = x

    def forward(
        self, x: Array, history: Mapping[str, Array], *, tape: bool = True, starts: Sequence[Start] = ()
    ) -> None:
        """Run over the steps of one segment.

        Args:
            x: the input, (n, R, input_size, B).
            history: for each state the values at the last `lag` steps before the segment, (lag, R, size, B).
            tape: whether anything but the states is wanted afterwards.
            starts: the sequences that begin within the segment.
        """
        self.resume(x, history)
        steps = self.steps
        evaluate(self._hoisted, self.values, self.parameters.column_ranges)
        for name in self._known_states:
            self.states[name][self.lag : self.lag + steps] = self.values[self.plan.states[name]]
        loop = self.forward_code.loop
        columns = [self._column(key) for key in loop.columns]
        of_chunk = [self._copied or key[0] in ("addend", "hoisted") for key in loop.columns]
        fixed = [self._fixed(key) for key in loop.fixed]
        self._finite = True
        for lo, hi in self._chunks(starts):
            for start in starts:
                if start.offset == lo:
                    self.begin(start)
            self._fill_addends(lo, hi)
            self._fill_hoisted(lo, hi)
            if self._copied:
                self._load_chunk(lo, hi)
            views = [
                _part(c, 0, hi - lo) if own else _part(c, lo, hi) for c, own in zip(columns, of_chunk, strict=True)
            ]
            loop.run(views, fixed)
            if self._copied:
                self._store_chunk(lo, hi, tape)
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

    def _load_chunk(self, lo: int, hi: int) -> None:
        for name, work in self._work_states.items():
            last = self.lag + hi if name in self._known_states else self.lag + lo
            np.copyto(work[: last - lo], self.states[name][lo:last])

    def _store_chunk(self, lo: int, hi: int, tape: bool) -> None:
        for name, work in self._work_states.items():
            np.copyto(self.states[name][self.lag + lo : self.lag + hi], work[self.lag : self.lag + hi - lo])
        for name, work in self._work_tape.items() if tape else ():
            np.copyto(self.tape[name][lo:hi], work[: hi - lo])

    def _is_surely_finite(self, lo: int, hi: int) -> bool:
        """Tell whether all states at these steps are finite; False may also mean that their squares are not."""
        first, last = self.lag + lo, self.lag + hi
        return all(
            math.isfinite(np.vdot(part, part)) for array in self.states.values() if (part := array[first:last]).size
        )

    def array(self, node: Node) -> Array:
        """Return the values over the segment of a node that the forward pass has computed, (n, R, size, B)."""
        if node.op == "state":
            name, lag = node.data
            return self.states[name][self.lag - lag : self.lag - lag + self.steps]
        if node.dependence is Dependence.STATE:
            match self.forward_code.locations[node]:
                case ("state", name, lag):
                    return self.states[name][self.lag - lag : self.lag - lag + self.steps]
                case ("tape", buffer, (lo, hi)):
                    return self.tape[buffer][: self.steps, :, lo:hi]
                case place:
                    raise AssertionError(f"{node} is not kept, but at {place}")
        evaluate([node], self.values, self.parameters.column_ranges)
        return np.asarray(self.values[node])

    def slope(self, node: Node) -> Array:
        """Return the slopes over the segment of a function across that the forward pass has computed."""
        return self.tape[slope_buffer(node)][: self.steps]

    def block_values(self, lo: int, hi: int) -> Values:
        """Return the values of all that is known without computing, over the steps lo+1 .. hi of the segment."""
        values: Values = {
            node: value[lo:hi] if node.dependence is Dependence.INPUT else value for node, value in self.values.items()
        }
        graph, lags = self.plan.graph, self.plan.lags
        states = [graph.state(name, lag) for name in self.plan.states for lag in range(lags[name] + 1)]
        return values | {node: self.array(node)[lo:hi] for node in (*states, *self.plan.stored)}

    def _column(self, key: Key) -> list[Array]:
        """Return one view a step of what a key of the forward loop names; they are made once."""
        if key not in self._views:
            self._views[key] = list(self.squeeze(self._at(key), 1))
        return self._views[key]

    def _at(self, key: Key) -> Array:
        match key:
            case ("state", name, lag):
                array = self._work_states[name]
                return array[self.lag - lag : len(array) - lag]
            case ("window", name, (longest, shortest)):
                array = self._work_states[name]
                return window_view(array[self.lag - longest : len(array) - shortest], longest - shortest + 1)
            case ("tape", buffer, (lo, hi)):
                return self._work_tape[buffer][:, :, lo:hi]
            case ("addend", group, (lo, hi)):
                return self.addends[group][:, :, lo:hi]
            case ("hoisted", node):
                return self._work_hoisted[node]
            case _:
                raise AssertionError(f"no array is called {key}")

    def _fixed(self, key: Key) -> Any:
        match key:
            case ("matrix", group):
                return self.parameters.stacked(self.plan.groups[group])
            case ("matrix of window", group):
                return self.parameters.of_window(self.plan.groups[group])
            case ("scratch", name, rows, (lo, hi)):
                return self.squeeze(self.scratch(name, rows)[:, lo:hi], 0)
            case ("scratch", name, rows):
                return self.squeeze(self.scratch(name, rows), 0)
            case ("number", value, rows):
                return self.constant(value, rows)
            case ("leaf", node):
                return self.leaf(node)
            case _:
                raise AssertionError(f"no array is called {key}")

    def scratch(self, name: str, rows: int) -> Array:
        # Passes for a loss at one step and at several have loops of their own, which number their scratch alike.
        if (name, rows) not in self._scratch:
            self._scratch[name, rows] = np.empty((self.trials, rows, self.batch_size), self.dtype)
        return self._scratch[name, rows]

    def constant(self, value: float, rows: int) -> Array:
        """Return a constant operand: a full array where that is small, else a 0-dimensional one."""
        if self.trials * rows * self.batch_size <= _FULL_CONSTANT:
            return self.squeeze(np.full((self.trials, rows, self.batch_size), value, self.dtype), 0)
        return np.asarray(value, self.dtype)

    def leaf(self, node: Node) -> Array:
        """Return the value of a node that depends on parameters alone, as an operand of the loops."""
        return self.squeeze(self.known(node), 0)

    def known(self, node: Node) -> Array:
        """Return the value of a node that depends on parameters alone, as an operand for blocks of steps."""
        return self._over_sequences(np.asarray(self.parameters.known(node), self.dtype))

    def _over_sequences(self, value: Array) -> Array:
        """Return (R, size, 1) with a column for each sequence, where that is small; anything else as it is.

        NumPy then goes over all numbers of a step at once, and not row by row.
        """
        if value.ndim == 3 and self.batch_size > 1 and value.size * self.batch_size <= _FULL_CONSTANT:
            return np.repeat(value, self.batch_size, axis=2)
        return value

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


def _part(column: list[Array], lo: int, hi: int) -> list[Array]:
    """Return column[lo:hi], which is no copy where it is all."""
    return column if hi - lo == len(column) else column[lo:hi]
