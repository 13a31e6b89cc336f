"""A run of a cell by PyTorch in float64: its states, its loss, and every gradient by autograd.

Names of layers, states and parameters are those of a saved run: ``layer0.h``, ``layer1.W_hh``, ``readout.W_hy``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from late_torch import torch
from numpy.typing import NDArray

from reference.equations import Equation, Scope, evaluate, parse, rank

if TYPE_CHECKING:
    from torch import Tensor

Array = NDArray[np.float64]
Hook = Callable[["Tensor"], "Tensor"]


@dataclass(frozen=True)
class Cell:
    """A cell as its equations, with what they leave open."""

    equations: str
    output: str | None = None
    activation: str | None = None
    constants: Mapping[str, float] = field(default_factory=dict)

    @property
    def output_state(self) -> str:
        """The state that feeds the loss and the next layer: `output`, else ``h``, else the first state given."""
        given = [equation.target for equation in parse(self.equations) if equation.is_state]
        return self.output or ("h" if "h" in given else given[0])


@dataclass(frozen=True)
class Loss:
    """One sequence's loss, a sum over the steps 1..T in `steps`; `kind` is mse, cross_entropy, projection or sum.

    `target` is (steps, batch, outputs) for mse, and class numbers (steps, batch) for cross_entropy;
    `vector` is (outputs,).
    """

    kind: str
    steps: Sequence[int]
    target: NDArray[np.generic] | None = None
    vector: Array | None = None


@dataclass(frozen=True)
class Run:
    """The result: states and their gradients are (T+1, batch, ...), index 0 the initial state.

    Behind that a state has the axes of its rank: none of a number, (size,) of a vector, (rows, columns) of a matrix.

    `grad_states` belongs to each sequence's own loss (for cells that mix sequences, to the sum of the losses);
    `grad_params` to the mean of the losses over the sequences.
    """

    losses: Array
    states: dict[str, Array]
    grad_states: dict[str, Array]
    grad_params: dict[str, Array]


def run(
    cell: Cell,
    params: Mapping[str, Array],
    x: Array,
    initial: Mapping[str, Array],
    loss: Loss,
    on_state_gradient: Hook | None = None,
    *,
    tied: bool = True,
) -> Run:
    """Run a cell forward over x (T, batch, input) from the `initial` states (batch, ...), and its loss backward.

    The layers are those that `initial` names (``layer0.h``, ``layer0.c``, ``layer1.h``...). With ``layer0.reverse.h``
    beside it a layer has a second direction, which reads the sequence from its end; what a layer puts out at a position
    is then what its two directions hold there, one below the other. States are in the order of a direction's own steps.
    Gradients are what ``retain_grad()`` shows: the total derivative by each state at each step. `on_state_gradient`
    takes the gradient of each state at each step, its batch the last axis, as soon as it is complete, and returns what
    is to be propagated in its place. Where weights are not `tied` the parameters of layers are (T, ...), one a step.
    """
    leaves = {name: leaf_of(value) for name, value in params.items()}
    states = {name: [leaf_of(batch_last(value))] for name, value in initial.items()}
    signal = [torch.tensor(np.asarray(step).T, dtype=torch.float64) for step in x]
    for layer in sorted({name.split(".")[0] for name in initial}, key=lambda name: int(name.removeprefix("layer"))):
        outputs = []
        for direction in (layer, f"{layer}.reverse"):
            of_layer = {_name(key): history for key, history in states.items() if _layer(key) == direction}
            weights = {_name(key): leaf for key, leaf in leaves.items() if _layer(key) == direction}
            if of_layer:
                order = -1 if direction.endswith(".reverse") else 1
                _run_layer(cell, weights, signal[::order], of_layer, tied)
                outputs.append(of_layer[cell.output_state][1:][::order])
        signal = [torch.cat(parts) for parts in zip(*outputs, strict=True)] if len(outputs) > 1 else outputs[0]
    if on_state_gradient is not None:
        for history in states.values():
            for value in history:
                value.register_hook(on_state_gradient)

    losses = losses_of(loss, signal, leaves)
    torch.autograd.backward(losses.sum())
    return Run(
        losses=losses.detach().numpy(),
        states={name: np.stack([_batch_first(value) for value in history]) for name, history in states.items()},
        grad_states={
            name: np.stack([_batch_first(gradient_of(v)) for v in history]) for name, history in states.items()
        },
        grad_params={name: gradient_of(leaf).numpy() / x.shape[1] for name, leaf in leaves.items()},
    )


def _layer(key: str) -> str:
    return key.rpartition(".")[0]


def _name(key: str) -> str:
    return key.rpartition(".")[2]


def leaf_of(value: Array) -> Tensor:
    """Return a tensor that a gradient is wanted of."""
    return torch.tensor(np.asarray(value), dtype=torch.float64, requires_grad=True)


def batch_last(values: Array) -> Array:
    """Return the values of all sequences, (batch, ...), with the axis of the batch behind the others."""
    return np.moveaxis(np.asarray(values), 0, -1)


def _batch_first(value: Tensor) -> Array:
    return np.moveaxis(np.asarray(value.detach().numpy()), -1, 0)


def gradient_of(value: Tensor) -> Tensor:
    """Return the gradient of a tensor after a backward pass; zero where nothing reached it."""
    return torch.zeros_like(value) if value.grad is None else value.grad


def _run_layer(
    cell: Cell,
    weights: Mapping[str, Tensor],
    signal: Sequence[Tensor],
    states: Mapping[str, list[Tensor]],
    tied: bool,
) -> None:
    equations = parse(cell.equations)
    constants = {name: torch.tensor(float(value), dtype=torch.float64) for name, value in cell.constants.items()}
    for t, x in enumerate(signal, start=1):
        at_step = weights if tied else {name: leaf[t - 1] for name, leaf in weights.items()}
        named = {**{name: leaf[..., None] for name, leaf in at_step.items()}, **constants}
        scope = Scope(t, x, states, named, cell.activation, earlier=signal[: t - 1])
        for equation in equations:
            value = evaluate(equation.expression, scope)
            if equation.is_state:
                states[equation.target].append(state_of(equation, value, states[equation.target][0].shape))
            else:
                named[equation.target] = value


def state_of(equation: Equation, value: Tensor, shape: torch.Size) -> Tensor:
    """Return a state as a tensor of its own, for `s[t] = h[t-1]` must not share the gradient of h[t-1]."""
    if rank(value) > 0 and value.shape[:-1] != shape[:-1]:
        raise ValueError(f"{equation.target}[t] is {tuple(value.shape)}, its initial state {tuple(shape)}")
    state = value.expand(shape).clone()
    if state.requires_grad:
        state.retain_grad()
        return state
    return state.requires_grad_()


def losses_of(loss: Loss, outputs: Sequence[Tensor], leaves: Mapping[str, Tensor]) -> Tensor:
    """Return each sequence's loss: (batch,)."""
    if rank(outputs[0]) != 1:
        raise ValueError("a loss looks at vectors; name another state as the output")
    total = torch.zeros(outputs[0].shape[1], dtype=torch.float64)
    for index, step in enumerate(loss.steps):
        h = outputs[step - 1]
        if loss.kind == "mse":
            total = total + 0.5 * ((h - torch.tensor(_given(loss.target)[index]).T) ** 2).sum(dim=0)
        elif loss.kind == "cross_entropy":
            logits = leaves["readout.W_hy"] @ h + leaves["readout.b_y"][:, None]
            classes = torch.tensor(_given(loss.target)[index]).long()
            total = total + torch.nn.functional.cross_entropy(logits.T, classes, reduction="none")
        elif loss.kind == "projection":
            total = total + torch.tensor(_given(loss.vector)) @ h
        elif loss.kind == "sum":
            total = total + h.sum(dim=0)
        else:
            raise ValueError(f"no loss is called {loss.kind!r}")
    return total


def _given(values: NDArray[np.generic] | None) -> NDArray[np.generic]:
    if values is None:
        raise ValueError("this loss needs a target or a vector")
    return values
