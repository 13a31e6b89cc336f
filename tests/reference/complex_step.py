"""A run of a cell and all its gradients by complex steps: no PyTorch, no backward pass, no rule of differentiation.

Squire and Trapp 1998, SIAM Review 40: df/da = Im f(a + ih) / h, exact to rounding for h = 1e-100. One forward pass for
each entry of each state and parameter, which is slow, and as plain as it can be.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from reference.complex_functions import COMPLEX
from reference.equations import Scope, evaluate, parse, rank
from reference.torch_reference import Array, Cell, Loss, Run, batch_last

STEP = 1e-100


def run(
    cell: Cell, params: Mapping[str, Array], x: Array, initial: Mapping[str, Array], loss: Loss, *, tied: bool = True
) -> Run:
    """Return what `torch_reference.run` returns, for one layer that reads forward.

    Raises ValueError for several layers, and for a cell with a `stop` or a `spike`.
    """
    if any(not name.startswith("layer0.") or name.count(".") > 1 for name in initial):
        raise ValueError("complex steps are for one layer")
    forward = _Forward(cell, params, x, initial, loss, tied)
    losses, states = forward.run()
    seq_len, batch_size = x.shape[:2]
    grad_states = {name: np.zeros((seq_len + 1, *values.shape)) for name, values in initial.items()}
    for name, gradient in grad_states.items():
        for t, sequence, *entry in np.ndindex(gradient.shape):
            # Where sequences are mixed, it is the sum of their losses; else the others' do not depend on it.
            gradient[t, sequence, *entry] = forward.slope(name, (t, *entry, sequence)).sum()
    grad_params = {name: np.zeros(np.shape(value)) for name, value in params.items()}
    for name, gradient in grad_params.items():
        for place in np.ndindex(gradient.shape):
            gradient[place] = forward.slope(name, place).sum() / batch_size
    real = {name: np.stack([np.moveaxis(step.real, -1, 0) for step in history]) for name, history in states.items()}
    return Run(losses.real, real, grad_states, grad_params)


def slopes_along(
    directions: Mapping[str, Array],
    cell: Cell,
    params: Mapping[str, Array],
    x: Array,
    initial: Mapping[str, Array],
    loss: Loss,
    *,
    tied: bool = True,
) -> dict[str, Array]:
    """Return the slope of the loss along a direction, for each step of each state, (T+1,), and for each parameter, ().

    One forward pass a slope, whatever the size. A direction has the shape of the gradient, of which the slope is the
    inner product with it: for a state, (T+1, batch, ...), of the sum of the losses, for a parameter of their mean.
    """
    forward = _Forward(cell, params, x, initial, loss, tied)
    seq_len, batch_size = x.shape[:2]
    found = {}
    for name, direction in directions.items():
        if name in initial:
            slopes = [forward.slope(name, (t,), batch_last(direction[t])).sum() for t in range(seq_len + 1)]
            found[name] = np.array(slopes)
        else:
            found[name] = np.asarray(forward.slope(name, (), direction).sum() / batch_size)
    return found


class _Forward:
    """Forward passes, of which each may have one number changed by i `STEP`, or several by multiples of it."""

    def __init__(
        self,
        cell: Cell,
        params: Mapping[str, Array],
        x: Array,
        initial: Mapping[str, Array],
        loss: Loss,
        tied: bool,
    ) -> None:
        self.cell, self.loss, self.tied = cell, loss, tied
        self.equations = parse(cell.equations)
        self.params = {name: np.asarray(value) for name, value in params.items()}
        self.x = [np.asarray(step).T for step in x]
        self.initial = {name: batch_last(value) for name, value in initial.items()}

    def slope(self, name: str, place: tuple[int, ...], direction: Any = 1.0) -> Array:
        """Return dL/d(that number) of each sequence's loss, (batch,): a parameter's entry, or (t, ..., sequence).

        A `place` that leaves axes out is all that lies along them, changed by multiples of the step, its `direction`.
        """
        return np.asarray(self.run(name, place, direction)[0].imag / STEP)

    def run(
        self, changed: str | None = None, place: tuple[int, ...] = (), direction: Any = 1.0
    ) -> tuple[Any, dict[str, list[Any]]]:
        """Return each sequence's loss, (batch,), and the states by step, (..., batch)."""
        change = 1j * STEP * direction
        params = {name: value.astype(complex) for name, value in self.params.items()}
        if changed in params:
            params[changed][place] += change
        states: dict[str, list[Any]] = {name: [value.astype(complex)] for name, value in self.initial.items()}
        _change(states, changed, place, change, 0)
        by_name = {name.removeprefix("layer0."): history for name, history in states.items()}
        for t, x in enumerate(self.x, start=1):
            named: dict[str, Any] = {name: np.float64(value) for name, value in self.cell.constants.items()}
            for name, value in params.items():
                at_step = value if self.tied or name.startswith("readout.") else value[t - 1]
                named[name.removeprefix("layer0.")] = at_step[..., None]
            scope = Scope(t, x, by_name, named, self.cell.activation, COMPLEX, earlier=self.x[: t - 1])
            for equation in self.equations:
                value = evaluate(equation.expression, scope)
                if equation.is_state:
                    history = by_name[equation.target]
                    if rank(value) > 0 and value.shape[:-1] != history[0].shape[:-1]:
                        raise ValueError(f"{equation.target}[t] has another shape than its initial state")
                    history.append(np.broadcast_to(value, history[0].shape).astype(complex))
                    _change({f"layer0.{equation.target}": history}, changed, place, change, t)
                else:
                    named[equation.target] = value
        outputs = by_name[self.cell.output_state]
        of_steps = [self._loss(index, outputs[step], params) for index, step in enumerate(self.loss.steps)]
        return np.sum(of_steps, axis=0), states

    def _loss(self, index: int, output: Any, params: Mapping[str, Any]) -> Any:
        """Return each sequence's loss, (batch,), at one of the steps that the loss looks at."""
        match self.loss.kind:
            case "mse":
                return 0.5 * ((output - np.asarray(self.loss.target)[index].T) ** 2).sum(axis=0)
            case "cross_entropy":
                logits = params["readout.W_hy"] @ output + params["readout.b_y"][:, None]
                largest = logits.real.max(axis=0)
                of_class = np.take_along_axis(logits, np.asarray(self.loss.target)[index][None], axis=0)[0]
                return np.log(np.exp(logits - largest).sum(axis=0)) + largest - of_class
            case "projection":
                return np.asarray(self.loss.vector) @ output
            case "sum":
                return output.sum(axis=0)
        raise ValueError(f"no loss is called {self.loss.kind!r}")


def _change(states: Mapping[str, list[Any]], changed: str | None, place: tuple[int, ...], change: Any, t: int) -> None:
    """Change the state of step t, if it is to be: all later equations read it changed."""
    if changed is not None and changed in states and place[0] == t:
        states[changed][t][place[1:]] += change
