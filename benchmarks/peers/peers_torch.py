"""PyTorch: the cell loop that people write, with `retain_grad` or `torch.autograd.grad`, and the fused layer."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np

from benchmarks.cases import Case, Numbers
from benchmarks.peers.peer import Array, Peer

#: PyTorch's order of the gates, and its names of states, by cell.
_GATES = {"rnn": "h", "lstm": "ifgo", "gru": "rzn"}
_STATES = {"rnn": ("h",), "lstm": ("h", "c"), "gru": ("h",)}
_NAMES = {"rnn": "RNN", "lstm": "LSTM", "gru": "GRU"}

CELL_LOOP, GRAD, FUSED = "torch cell loop, retain_grad", "torch grad(L, all h)", "torch fused layer"
PEERS = (CELL_LOOP, GRAD, FUSED)


def torch_peer(name: str, case: Case, numbers: Numbers, threads: int) -> Peer:
    """Return one of `PEERS` with the weights and the input of a case."""
    torch: Any = import_module("torch")
    torch.set_num_threads(threads)
    problem = _TorchProblem(torch, case, numbers)
    if name == FUSED:
        return Peer(name, "parameter gradients, but no dL/dh_k", problem.fused)
    if name == GRAD:
        return Peer(name, "norms of h", problem.grad_of_all_h, problem.as_arrays)
    return Peer(name, "norms and parameter gradients", problem.retain_grad, problem.as_arrays)


class _TorchProblem:
    """A case as tensors: x is (T, B, I), states are (B, H)."""

    def __init__(self, torch: Any, case: Case, numbers: Numbers) -> None:
        self.torch, self.cell_name = torch, case.cell
        self.states = _STATES[case.cell]
        hidden, inputs = case.hidden_size, numbers.x.shape[1]
        dtype = getattr(torch, case.dtype)
        name = _NAMES[case.cell]
        self.cell = getattr(torch.nn, f"{name}Cell")(inputs, hidden, dtype=dtype)
        self.layer = getattr(torch.nn, name)(inputs, hidden, dtype=dtype)
        with torch.no_grad():
            for value, *targets in zip(
                self._weights(numbers.parameters), self.cell.parameters(), self.layer.parameters(), strict=True
            ):
                for target in targets:
                    target.copy_(torch.from_numpy(value))
        self.x = torch.from_numpy(np.ascontiguousarray(numbers.x.swapaxes(1, 2)))
        self.initial = [torch.from_numpy(np.ascontiguousarray(numbers.initial[s].T)) for s in self.states]

    def _weights(self, parameters: dict[str, Array]) -> Sequence[Array]:
        """Return weight_ih, weight_hh, bias_ih and bias_hh; of the two biases gradcli has one, but for the GRU's n."""
        gates = _GATES[self.cell_name]
        joined = [np.concatenate([parameters[f"{prefix}{g}"] for g in gates]) for prefix in ("W_x", "W_h", "b_")]
        recurrent = np.concatenate([parameters.get(f"b_h{g}", np.zeros_like(parameters[f"b_{g}"])) for g in gates])
        return [*joined, recurrent]

    def _loop(self, *, retain: bool) -> list[tuple[Any, ...]]:
        """Return the states s_0, ..., s_T, all of which are to have gradients."""
        state = tuple(s.detach().clone().requires_grad_() for s in self.initial)
        found = [state]
        for x in self.x:
            step = self.cell(x, state if len(state) > 1 else state[0])
            state = step if isinstance(step, tuple) else (step,)
            if retain:
                for s in state:
                    s.retain_grad()
            found.append(state)
        return found

    def retain_grad(self) -> dict[str, Any]:
        """Backward through the loop with every state's gradient retained, and its norms."""
        self.cell.zero_grad()
        states = self._loop(retain=True)
        states[-1][0].sum().backward()
        return {name: self._norms([s[i].grad for s in states]) for i, name in enumerate(self.states)}

    def grad_of_all_h(self) -> dict[str, Any]:
        """The gradients of all h and of nothing else, and their norms."""
        h = [state[0] for state in self._loop(retain=False)]
        return {"h": self._norms(self.torch.autograd.grad(h[-1].sum(), h))}

    def fused(self) -> Any:
        """Forward and backward of the fused layer."""
        self.layer.zero_grad()
        initial = tuple(s[None] for s in self.initial)
        outputs, _ = self.layer(self.x, initial if len(initial) > 1 else initial[0])
        outputs[-1].sum().backward()
        return self.layer.weight_hh_l0.grad

    def _norms(self, gradients: Sequence[Any]) -> Any:
        return self.torch.linalg.vector_norm(self.torch.stack(list(gradients)), dim=2)

    def as_arrays(self, found: dict[str, Any]) -> dict[str, Array]:
        return {name: norms.numpy() for name, norms in found.items()}
