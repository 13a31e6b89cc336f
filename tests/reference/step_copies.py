"""Parameter gradients step by step, by PyTorch's autograd: one copy of every parameter for each step, or truncated.

The gradient of the k-th copy is the k-th term of the parameter's gradient: what its use at step k alone contributes.
Truncated backpropagation through time cuts the graph at a step: all states up to it are constants.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from late_torch import torch

from reference.equations import Scope, evaluate, parse
from reference.torch_reference import Array, Cell, Loss, batch_last, gradient_of, leaf_of, losses_of, state_of

if TYPE_CHECKING:
    from torch import Tensor


def terms(
    cell: Cell,
    params: Mapping[str, Array],
    x: Array,
    initial: Mapping[str, Array],
    loss: Loss,
    *,
    tied: bool = True,
) -> dict[str, Array]:
    """Return the terms of the gradient of the mean loss, (T, ...): row k - 1 is that of step k.

    The arguments are those of `torch_reference.run`; parameters of the readout are left out.
    """
    copies = [
        {n: leaf_of(value if tied or n.startswith("readout.") else value[step]) for n, value in params.items()}
        for step in range(len(x))
    ]
    _backward(cell, copies, x, initial, loss, cut=0)
    names = [name for name in params if not name.startswith("readout.")]
    return {name: np.stack([gradient_of(copy[name]).numpy() for copy in copies]) for name in names}


def truncated(
    cell: Cell, params: Mapping[str, Array], x: Array, initial: Mapping[str, Array], loss: Loss, window: int
) -> dict[str, Array]:
    """Return the gradient of the mean loss by BPTT over the last `window` steps alone."""
    leaves = {name: leaf_of(value) for name, value in params.items()}
    _backward(cell, [leaves] * len(x), x, initial, loss, cut=len(x) - window)
    return {n: gradient_of(leaf).numpy() for n, leaf in leaves.items() if not n.startswith("readout.")}


def _backward(
    cell: Cell,
    weights: list[dict[str, Tensor]],
    x: Array,
    initial: Mapping[str, Array],
    loss: Loss,
    cut: int,
) -> None:
    """Run forward with the weights of each step, and backward to all of them."""
    equations = parse(cell.equations)
    signal = [torch.tensor(np.asarray(step).T, dtype=torch.float64) for step in x]
    for layer in sorted({name.split(".")[0] for name in initial}, key=lambda name: int(name.removeprefix("layer"))):
        prefix = f"{layer}."
        states = {n.removeprefix(prefix): [leaf_of(batch_last(v))] for n, v in initial.items() if n.startswith(prefix)}
        for t, inputs in enumerate(signal, start=1):
            named = {name: torch.tensor(float(value), dtype=torch.float64) for name, value in cell.constants.items()}
            for name, leaf in weights[t - 1].items():
                if name.startswith(prefix):
                    named[name.removeprefix(prefix)] = leaf[..., None]
            scope = Scope(t, inputs, states, named, cell.activation, earlier=signal[: t - 1])
            for equation in equations:
                value = evaluate(equation.expression, scope)
                if equation.is_state:
                    states[equation.target].append(state_of(equation, value, states[equation.target][0].shape))
                else:
                    named[equation.target] = value
            if t <= cut:
                for history in states.values():
                    history[-1] = history[-1].detach()
        signal = states[cell.output_state][1:]
    torch.autograd.backward(losses_of(loss, signal, weights[-1]).mean())
