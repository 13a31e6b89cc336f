"""Cells that nobody would write, made up at random, against PyTorch's autograd."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from engine_runs import problem_of, recorded
from numpy.typing import NDArray
from reference.compare_run import redo
from reference.torch_reference import Run as Reference

from gradcli.engine.problem import Run

SIZE, SEQ_LEN = 3, 7
CELLS = 150
# Made-up formulas cancel: what is lost is measured against the largest gradient of the same name.
CLOSE = 1e-10
SMOOTH = ["sigmoid", "tanh", "sin", "cos", "erf", "silu", "gelu", "softplus", "softsign", "identity"]
KINKED = ["relu", "leaky_relu", "elu", "selu", "abs", "hard_tanh", "hard_sigmoid"]
MATRICES, VECTORS = ["A", "B", "C"], ["p", "q"]


class Writer:
    """Writes equations at random. Everything has the same size, so that any expression fits anywhere."""

    def __init__(self, rng: random.Random, batch_size: int) -> None:
        self.rng = rng
        self.batch_norms = 0.5 if batch_size > 1 else 0.0
        self.names = ["x[t]"]

    def cell(self) -> tuple[str, list[str]]:
        """Return the equations of a cell, and its states."""
        rng = self.rng
        states = ["h", "c", "s"][: rng.choice([1, 2, 2, 3])]
        self.names += [f"{state}[t-1]" for state in states] * 3
        self.names += [f"{rng.choice(states)}[t-{rng.choice([2, 3])}]"] * (rng.random() < 0.4)
        lines = []
        for number, state in enumerate(rng.sample(states, len(states))):
            if rng.random() < 0.5:
                lines.append(f"u{number} = {self.expression(3)}")
                self.names.append(f"u{number}")
            bounded = rng.choice(["tanh({})", "0.7 * sin({}) + 0.2 * {}[t-1]", "0.5 * {}[t-1] + 0.3 * hard_tanh({})"])
            inside = self.expression(3)
            lines.append(f"{state}[t] = " + bounded.replace("{}[t-1]", f"{state}[t-1]").format(inside))
            self.names.append(f"{state}[t]")
        return "\n".join(lines), states

    def expression(self, depth: int) -> str:
        rng = self.rng
        if depth == 0 or rng.random() < 0.12:
            return rng.choice([*self.names * 2, *VECTORS])

        def part() -> str:
            return self.expression(depth - 1)

        def total() -> str:
            left, right = part(), part()
            return f"({left} {rng.choice('+-') if left != right else '+'} {right})"  # a - a is no vector any more

        def vector() -> str:
            # Never a number, whatever cancels. (The factors outside are there as the sum of the entries is constant.)
            return f"({part()} - 0.37 * q)"

        kinds: dict[float, Callable[[], str]] = {
            3: lambda: f"{rng.choice(SMOOTH + KINKED)}({part()})",
            4: total,
            2: lambda: f"({part()} * {part()})",
            1: lambda: f"(-{part()} - {rng.uniform(-1, 1):.2f})",
            5: lambda: f"({rng.choice(MATRICES)}{rng.choice(['', '.T'])} @ {rng.choice(['', 'tanh'])}({part()}))",
            1.1: lambda: f"({part()} / (1.5 + ({part()}) ** 2))",
            0.9: lambda: f"(1.2 + tanh({part()})) ** {rng.choice(['2', '-1', '0.5', f'sin({part()})'])}",
            0.8: lambda: f"({rng.choice(MATRICES)} @ {rng.choice(MATRICES)} @ tanh({part()}))",
            0.7: lambda: f"(q * layer_norm({vector()}, 0.1))",
            0.6: lambda: f"(p * softmax({vector()}))",
            self.batch_norms: lambda: (
                f"({rng.choice(self.names)} * batch_norm({rng.choice(self.names)} * {part()}, 0.1))"
            ),
        }
        return rng.choices(list(kinds.values()), list(kinds))[0]()


def made_up(seed: int) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return the spec of a random cell, and the numbers of a run of it, in the layout of a saved run."""
    rng = random.Random(seed)
    draw = np.random.default_rng(seed)
    trials, batch_size, layers = rng.choice([1, 2]), rng.choice([1, 3]), rng.choice([1, 1, 2])
    equations, states = Writer(rng, batch_size).cell()
    kind, at = rng.choice(["mse", "projection", "sum"]), rng.choice(["last", "every", [2, 5]])
    spec = {
        "cell": {"equations": equations},
        "hidden_size": SIZE,
        "num_layers": layers,
        "seq_len": SEQ_LEN,
        "loss": {"kind": kind, "at": at},
    }
    steps = {"last": 1, "every": SEQ_LEN}.get(str(at), 2)
    saved = {"x": draw.normal(size=(trials, SEQ_LEN, batch_size, SIZE))}
    for layer in range(layers):
        for state in states:
            saved[f"state.layer{layer}.{state}"] = draw.normal(scale=0.5, size=(trials, 1, batch_size, SIZE))
        for name, shape in [(m, (SIZE, SIZE)) for m in MATRICES] + [(v, (SIZE,)) for v in VECTORS]:
            saved[f"param.layer{layer}.{name}"] = draw.normal(scale=0.5, size=(trials, *shape))
    if kind == "mse":
        saved["target"] = draw.normal(size=(trials, steps, batch_size, SIZE))
    if kind == "projection":
        saved["vector"] = draw.normal(size=(trials, SIZE))
    return spec, saved


def misses(run: Run, reference: Reference, trial: int) -> Mapping[str, float]:
    """Return the largest error under each name, relative to the largest gradient of that name."""
    assert run.recording is not None
    found = {}
    for name, gradients in reference.grad_states.items():
        exponents = run.recording.exponents[name][:, trial, None, :]
        mine = np.ldexp(run.recording.adjoints[name][:, trial], exponents).transpose(0, 2, 1)
        found[name] = _miss(mine, gradients)
    for name, gradient in reference.grad_params.items():
        # A parameter that no state depends on is none of the cell's.
        mine = run.gradients[name].value()[trial] if name in run.gradients else np.zeros(gradient.shape)
        found[name] = _miss(mine, gradient)
    return found


def _miss(found: NDArray[Any], expected: NDArray[Any]) -> float:
    largest = np.abs(expected).max()
    error = np.abs(found - expected).max()
    return float(error / largest) if largest else float(np.inf if error else 0.0)


@pytest.mark.torch
@pytest.mark.parametrize("seed", range(CELLS))
def test_a_cell_made_up_at_random(seed: int) -> None:
    spec, saved = made_up(seed)
    rng = random.Random(seed)
    run = recorded(problem_of(spec, saved), segment=rng.choice([None, 3]), block=rng.choice([None, 2]))
    assert run.overflow is None
    for trial in range(len(saved["x"])):
        reference = redo({name: values[trial] for name, values in saved.items()}, spec, spec["cell"])
        np.testing.assert_allclose(run.losses[trial], reference.losses, rtol=CLOSE, err_msg=spec["cell"]["equations"])
        wrong = {name: error for name, error in misses(run, reference, trial).items() if not error < CLOSE}
        assert wrong == {}, spec["cell"]["equations"]
