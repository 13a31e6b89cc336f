"""Adjoints through what lies outside the loop of a layer: to its parameters, and to its input."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from gradcli.engine.evaluate import HoistedAdjoints, Values, evaluate, product
from gradcli.engine.exponents import from_the_top, near_each_other, summed
from gradcli.engine.factors import Factors, hoisted_of
from gradcli.engine.known import Affine, affine_of
from gradcli.engine.layer import Layer
from gradcli.engine.scaled import NOTHING, Scaled, scale_by
from gradcli.engine.step.linearise import Target
from gradcli.engine.step.place import Lane
from gradcli.language.graph import Node

Array = np.ndarray[Any, Any]


class BlockAdjoints(NamedTuple):
    """The adjoints inside the loop over a block of n steps.

    exponent: of each frame, (frames, R, B). lanes: those of each group's products, (n, R, rows, B) mantissas.
    of_target: gives the mantissas of a target's. missing: the sequences that have none of these steps.
    """

    exponent: Array
    lanes: Mapping[int, Array]
    of_target: Callable[[Target], Array]
    missing: Array | None


class Outside:
    """The way through what lies outside the loop.

    Args:
        layer: whose. to_input: whether dL/dx is wanted. parameters: whether gradients of parameters are; `by_step` for
            each step by itself. besides: what of it has its gradients otherwise, see `WeightGradients`.
    """

    def __init__(
        self, layer: Layer, *, to_input: bool, parameters: bool, by_step: bool, besides: Sequence[Factors]
    ) -> None:
        self._layer, self._plan = layer, layer.plan
        self._to_input, self._parameters, self._by_step = to_input, parameters, by_step
        hoisted = hoisted_of(layer.plan)
        # What is added to lanes that lie side by side, and has their adjoints, passes them on together.
        self._runs: Mapping[int, Sequence[Sequence[Lane]]] = hoisted.runs if to_input else {}
        # Of what has its gradients otherwise, the way to the input is left, if there is one.
        self._besides = {leaf: affine for factors in besides for leaf, affine in factors.leaves.items()}
        done = {leaf for leaf, affine in self._besides.items() if not (to_input and affine.sign)}
        self._aliases = {leaf: lane for leaf, lane in hoisted.aliases.items() if leaf not in done}
        self._leaves = {leaf: pairs for leaf, pairs in hoisted.leaves.items() if leaf not in done}

    def carry(self, lo: int, hi: int, adjoints: BlockAdjoints) -> tuple[dict[Node, Scaled], Array | None, Array]:
        """Return the contributions of a block to the gradients of hoisted nodes, and the adjoint of the input.

        Args:
            lo, hi: the block is the steps lo+1 .. hi of the segment.

        Raises:
            OutOfRange: at some step the adjoint of the input is small, and lost beside what it is at others.
        """
        wanted = self._to_input or (self._parameters and (self._leaves or self._aliases))
        if not wanted:
            return {}, None, self._common(adjoints.exponent)
        layer = self._layer
        itemsize = layer.dtype.itemsize
        values = layer.block_values(lo, hi)
        evaluate([c for pairs in self._leaves.values() for _, c in pairs], values, layer.parameters.column_ranges)
        gradients: dict[Node, Scaled] = {}
        found: list[tuple[Array, Array]] = []
        for frames in near_each_other(adjoints.exponent, itemsize):
            common = self._common(adjoints.exponent[frames])
            for counted in from_the_top(common, itemsize):
                hoisted = self._counting(values, counted)
                self._send(hoisted, values, adjoints, frames, common)
                hoisted.propagate()
                for node, gradient in hoisted.gradients.items():
                    gradients[node] = gradients[node].add(gradient) if node in gradients else gradient
                # A trial that has a sum of every kind needs nothing that is smaller.
                if all(gradient.nonzero().all() for gradient in hoisted.gradients.values()):
                    break
            adjoint = hoisted.adjoints.get(self._plan.graph.input())
            if adjoint is not None:
                found.append((adjoint, common))
        to_input, common = summed(found, hi - lo) if found else (None, self._common(adjoints.exponent))
        return gradients if self._parameters else {}, to_input, common

    def _common(self, exponent: Array) -> Array:
        """Return the exponents (R, B) at which the adjoints of some frames, (frames, R, B), come together."""
        common: Array = exponent.max(axis=0)
        if self._plan.couples_hoisted:
            return np.broadcast_to(common.max(axis=1, keepdims=True), common.shape)
        return common

    def _counting(self, values: Values, counted: Array) -> HoistedAdjoints:
        """Return what carries adjoints on, and sums up those of some sequences.

        Args:
            values: of the block. counted: the exponents (R, B) of these sequences, `NOTHING` for others.
        """
        layer = self._layer
        top = counted.max(axis=1)
        weight = scale_by(np.ones((), layer.dtype), counted - top[:, None])
        weight = np.where(counted > NOTHING, weight, 0).astype(layer.dtype)[:, None, :]
        return HoistedAdjoints(
            self._plan.graph,
            values,
            layer.parameters.column_ranges,
            weight,
            np.where(top > NOTHING, top, 0),
            to_input=self._to_input,
            by_step=self._by_step,
        )

    def _send(
        self, hoisted: HoistedAdjoints, values: Values, adjoints: BlockAdjoints, frames: list[int], common: Array
    ) -> None:
        """Send the adjoints of some frames to the hoisted nodes that are taken in the loop.

        Args:
            common: the exponents (R, B) at which they come together.
        """
        plan = self._plan

        def in_common(adjoint: Array, frame: int) -> Array:
            if plan.frames.count == 1 and not plan.couples_hoisted:
                return adjoint
            return scale_by(adjoint, (adjoints.exponent[frame] - common)[:, None, :])

        for group in plan.groups:
            if group.frame not in frames:
                continue
            lanes = in_common(adjoints.lanes[group.number], group.frame)
            for run in self._runs.get(group.number, ()):
                affines = [affine for lane in run if (affine := affine_of(lane)) is not None]
                self._send_to_input(hoisted, affines, lanes[:, :, run[0].start : run[-1].stop])
            for leaf, lane in self._aliases.items():
                if plan.linear.group_of[lane.product] is group:
                    self._send_to(hoisted, leaf, lanes[:, :, lane.start : lane.stop])
        for leaf, pairs in self._leaves.items():
            for target, coefficient in pairs:
                frame = plan.linear.frame_of(target)
                if frame not in frames:
                    continue
                through = in_common(adjoints.of_target(target), frame) * values[coefficient]
                if adjoints.missing is not None:
                    through[..., adjoints.missing] = 0.0
                self._send_to(hoisted, leaf, through)

    def _send_to(self, hoisted: HoistedAdjoints, leaf: Node, adjoint: Array) -> None:
        if leaf in self._besides:
            self._send_to_input(hoisted, [self._besides[leaf]], adjoint)
        else:
            hoisted.receive(leaf, adjoint)

    def _send_to_input(self, hoisted: HoistedAdjoints, affines: Sequence[Affine], adjoint: Array) -> None:
        """Send the adjoints of what is affine in the input, one below the other, to the input."""
        graph = self._plan.graph
        parts = [affine.matrix if affine.sign > 0 else graph.neg(affine.matrix) for affine in affines]
        matrix = self._layer.parameters.known(graph.node("stack", parts) if len(parts) > 1 else parts[0])
        hoisted.receive(affines[0].vector, product(matrix.swapaxes(-1, -2), adjoint))
