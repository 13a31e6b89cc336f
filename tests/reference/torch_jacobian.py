"""The Jacobian of a cell's full state over some steps, by PyTorch's autograd in float64.

The full state joins, for every state in the order of the equations, its values at t, t-1, ..., as far back as the
equations look. In the Jacobian its parts are independent of each other.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from late_torch import torch
from numpy.typing import NDArray

from reference.equations import Equation, Scope, evaluate, lag, parse
from reference.torch_reference import Cell

if TYPE_CHECKING:
    from torch import Tensor

Array = NDArray[np.float64]


def full_state_jacobian(
    cell: Cell,
    params: Sequence[Mapping[str, Array]],
    x: Array,
    history: Mapping[str, Array],
    earlier: Array | Sequence[Array] = (),
) -> Array:
    """Return dS_n/dS_0 over the steps of x, (N, N); a matrix state is in S row by row.

    params: those of each step.
    x: (n, input) of one sequence, or (n, batch, input) where the cell mixes sequences: then S joins all of them, each
        entry of a state with its values in all sequences.
    history: for each state its values before the first step, the latest last: (at least as many as the equations look
        back, *shape), or (..., batch, *shape).
    earlier: the inputs before the first step, the latest last, as x; those that are not given are zero.
    """
    equations = parse(cell.equations)
    depth = depths(equations)
    longest = max(depth.values())
    many = x.ndim == 3

    def batch_last(values: Array) -> Tensor:
        return torch.tensor(np.moveaxis(values, 0, -1) if many else values[..., None])

    columns = [{name: torch.tensor(value)[..., None] for name, value in of_step.items()} for of_step in params]
    constants = {name: torch.tensor(float(value), dtype=torch.float64) for name, value in cell.constants.items()}
    inputs = [batch_last(step) for step in x]
    before = [batch_last(step) for step in earlier]
    shapes = {name: batch_last(history[name][-1]).shape for name in depth}

    slots = [(name, back) for name in depth for back in range(depth[name])]

    def after(flat: Tensor) -> Tensor:
        states: dict[str, list[Tensor]] = {}
        offset = 0
        for name in depth:
            states[name] = [torch.zeros(shapes[name], dtype=torch.float64)] * longest
        for name, back in slots:
            size = shapes[name].numel()
            states[name][longest - 1 - back] = flat[offset : offset + size].reshape(shapes[name])
            offset += size
        for number, (step, weights) in enumerate(zip(inputs, columns, strict=True)):
            known = {**weights, **constants}
            _step(cell, equations, known, step, [*before, *inputs[:number]], states, longest + number)
        return torch.cat([states[name][-1 - back].reshape(-1) for name, back in slots])

    flat = torch.cat([batch_last(history[name][-1 - back]).reshape(-1) for name, back in slots])
    found: Tensor = torch.autograd.functional.jacobian(after, flat)  # type: ignore[no-untyped-call]
    return np.asarray(found.numpy())


def _step(
    cell: Cell,
    equations: Sequence[Equation],
    known: Mapping[str, Tensor],
    x: Tensor,
    earlier: Sequence[Tensor],
    states: dict[str, list[Tensor]],
    t: int,
) -> None:
    named = dict(known)
    scope = Scope(t, x, states, named, cell.activation, earlier=earlier)
    for equation in equations:
        value = evaluate(equation.expression, scope)
        if equation.is_state:
            states[equation.target].append(value.expand(states[equation.target][0].shape))
        else:
            named[equation.target] = value


def depths(equations: Sequence[Equation]) -> dict[str, int]:
    """Return for each state how many steps the equations look back at it, at least 1."""
    found = {equation.target: 1 for equation in equations if equation.is_state}
    for equation in equations:
        for node in ast.walk(equation.expression):
            if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id in found:
                found[node.value.id] = max(found[node.value.id], lag(node.slice))
    return found
