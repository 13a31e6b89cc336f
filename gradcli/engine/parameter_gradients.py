"""Gradients of parameters: of the batch loss from sums at nodes, of steps that have their own, and step by step."""

from __future__ import annotations

import math
from collections.abc import Container, Iterator, Mapping
from typing import Any

import numpy as np

from gradcli.engine.backward import BackwardPass, Block
from gradcli.engine.blocks import walk_adjoints
from gradcli.engine.evaluate import parameter_gradients
from gradcli.engine.group import TrialGroup
from gradcli.engine.layer import Layer
from gradcli.engine.scaled import NOTHING, Scaled, scale_by
from gradcli.language.graph import Node

Array = np.ndarray[Any, Any]


class StepGradients:
    """Collects the gradients of each step's own parameters.

    Args:
        seq_len: T, the number of steps.
    """

    def __init__(self, seq_len: int) -> None:
        self._seq_len = seq_len
        self._mantissas: dict[str, Array] = {}
        self._exponents: dict[str, Array] = {}

    def keep(self, name: str, step: int, gradient: Scaled) -> None:
        """Take the gradient of a parameter at one step, counted from 0: (R, ...), normalised."""
        trials, *shape = gradient.mantissa.shape
        if name not in self._mantissas:
            self._mantissas[name] = np.zeros((trials, self._seq_len, *shape))
            self._exponents[name] = np.full((trials, self._seq_len), NOTHING, np.int64)
        self._mantissas[name][:, step] = gradient.mantissa
        # A gradient of zero has no size of its own.
        self._exponents[name][:, step] = np.where(gradient.nonzero(), gradient.exponent, NOTHING)

    def joined(self) -> dict[str, Scaled]:
        """Return all that was kept, (R, T, ...), and keep nothing.

        The steps are brought to one power of two for each trial, that of the largest gradient. That is exact for all
        entries down to some 2^-900 of it; what is smaller still loses digits, and from about 2^-1000 on it is zero.
        """
        found = {}
        for name in list(self._mantissas):
            mantissa, exponent = self._mantissas.pop(name), self._exponents.pop(name)
            top = exponent.max(axis=1)
            # One step at a time: the array may be most of the memory that the run takes.
            for step in range(self._seq_len):
                shift = (exponent[:, step] - top).reshape(-1, *[1] * (mantissa.ndim - 2))
                mantissa[:, step] = scale_by(mantissa[:, step], shift)
            found[name] = Scaled(mantissa, np.where(top == NOTHING, 0, top))
        return found


def batch_gradients(
    layer: Layer, gradients: Mapping[Node, Scaled], divisor: int, *, steps: int | None = None
) -> dict[str, Scaled]:
    """Return the gradient of the batch loss for each parameter, (R, ...), from sums over sequences at some nodes.

    Args:
        layer: whose parameters. gradients: of nodes that depend on parameters alone. divisor: that of the problem.
        steps: n, where they are those of n steps, each by itself: (n, R, ...).
    """
    lead = (layer.trials,) if steps is None else (steps, layer.trials)
    found = parameter_gradients(
        layer.plan.graph, dict(gradients), layer.parameters.values, layer.parameters.column_ranges
    )
    means = {}
    cell = layer.plan.cell
    for name, shape in cell.shapes.parameters.items():
        if name in cell.fixed:
            continue
        gradient = found.get(name) or Scaled(np.zeros((*lead, 1)), np.zeros(lead, np.int64))
        mean = np.divide(gradient.mantissa, divisor, dtype=np.float64).reshape(*lead, -1)
        entries = math.prod(shape)
        if mean.shape[-1] < entries:
            mean = np.broadcast_to(mean, (*lead, entries))
        means[name] = Scaled(mean.reshape(*lead, *shape), gradient.exponent).normalised()
    return means


def walk_gradients(
    group: TrialGroup, layer: int, *, longest: int
) -> Iterator[tuple[tuple[int, int], dict[str, Scaled]]]:
    """Yield blocks of steps, from the last to the first, with the terms of the gradient of every parameter of a layer.

    The k-th term is what the parameter's use at step k alone gives, with the states before it held constant:
    (dL/ds_k) (d+ s_k / d theta), so that the gradient of theta is the sum of the terms over k
    (Pascanu, Mikolov and Bengio 2013, equation 4). It belongs to the batch loss. A block is the steps first+1 .. last;
    its terms are (n, R, ...), in the order of the steps, with exponents (n, R) of their own.

    Args:
        longest: the most steps of a block: n times the parameters are there at once.
    """
    for visit in walk_adjoints(group, longest=longest, by_step=layer):
        yield visit.steps, terms_of_steps(visit.passes[layer], visit.blocks[layer], group.problem.divisor)


def terms_of_steps(
    backward: BackwardPass, block: Block, divisor: int, besides: Container[Node] = ()
) -> dict[str, Scaled]:
    """Return the terms of a block that a pass made with `by_step` has just gone over; see `walk_gradients`.

    Args:
        divisor: that of the problem. besides: parameters whose terms are not asked for, and are not meant to be used.
    """
    lo, hi = block.steps
    with np.errstate(all="ignore"):
        at_nodes = backward.step_gradients(block, besides)
        return batch_gradients(backward.layer, at_nodes, divisor, steps=hi - lo)
