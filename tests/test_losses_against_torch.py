"""The losses of a spec, against PyTorch's own loss modules on its own cells: values, and the gradients by everything.

PyTorch runs every sequence alone, at its own length and in each direction, so that nothing of padding or of reversal is
shared with what is tested. Its modules then take all pairs of a sequence and a step that counts at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from measured import loaded
from numpy.typing import NDArray

from gradcli.engine.problem import Problem, Run
from gradcli.engine.run import Engine
from gradcli.network.build import build
from gradcli.spec.losses import loss_steps
from gradcli.spec.models import Spec

torch = pytest.importorskip("torch")

from reference.framework_cells import GATES  # noqa: E402

Array = NDArray[Any]
CLOSE = 1e-10
T, B, H, I = 7, 3, 4, 3  # noqa: E741 - as the documentation calls them
LENGTHS = [T, 2, 5]
CELLS: dict[str, Any] = {"lstm": torch.nn.LSTMCell, "gru": torch.nn.GRUCell, "rnn": torch.nn.RNNCell}
LOSSES: dict[str, dict[str, Any]] = {
    "mse": {"kind": "mse"},
    "cross_entropy": {"kind": "cross_entropy", "classes": 4},
    "binary": {"kind": "binary_cross_entropy"},
    "binary of three": {"kind": "binary_cross_entropy", "outputs": 3},
    "projection": {"kind": "projection"},
}


def built(
    folder: Path, cell: str, loss: dict[str, Any], *, layers: int, both: bool, lengths: list[int] | None = None
) -> tuple[Spec, Problem]:
    """Return a spec and its problem; the input is a file, so that it can have lengths."""
    np.savez(folder / "x.npz", x=np.random.default_rng(3).normal(size=(B, T, I)))
    of_file: dict[str, Any] = {"kind": "file", "path": str(folder / "x.npz"), "key": "x"}
    network = build(
        loaded(
            cell,
            hidden_size=H,
            seq_len=T,
            trials=2,
            num_layers=layers,
            bidirectional=both,
            h_0={"normal": 1.0},
            init={"b_*": {"normal": {"std": 0.5}}},
            input=of_file if lengths is None else of_file | {"lengths": lengths},
            loss=loss,
        )
    )
    return network.spec, network.problem


@dataclass
class ByTorch:
    """One trial by PyTorch: the batch loss; its gradients by parameter; states, by layer, state, sequence and step."""

    loss: float = 0.0
    parameters: dict[str, Array] = field(default_factory=dict)
    states: dict[tuple[str, str, int, int], Array] = field(default_factory=dict)


def by_torch(kind: str, spec: Spec, problem: Problem, trial: int) -> ByTorch:
    starts = np.zeros(B, int) if problem.starts is None else problem.starts
    x = torch.tensor(problem.source.fill(0, T)[:, trial])
    tables = dict(zip(problem.names, problem.parameters, strict=True))
    initial = dict(zip(problem.names, problem.initial, strict=True))
    modules = {name: module_of(kind, {k: v[trial] for k, v in table.items()}) for name, table in tables.items()}
    histories: dict[tuple[str, str, int, int], Any] = {}

    def direction(name: str, sequence: int, signal: list[Any]) -> list[Any]:
        """Run one direction over the steps of one sequence in its own order; return its outputs in that order."""
        start = int(starts[sequence])
        # Kept as the cell returns them: a view of c would not see the gradient that c has through h.
        state = {s: torch.tensor(v[trial].T[[sequence]], requires_grad=True) for s, v in initial[name].items()}
        outputs = []
        for step in range(len(signal) + 1):
            if step:
                read = signal[step - 1][None]
                found = modules[name](read, (state["h"], state["c"]) if "c" in state else state["h"])
                state = dict(zip("hc", found if "c" in state else [found], strict=False))
                outputs.append(state["h"][0])
            for s, value in state.items():
                value.retain_grad()
                histories[name, s, sequence, start + step] = value
        return outputs

    rows, places = [], []
    for sequence in range(B):
        start = int(starts[sequence])
        signal = [x[t, :, sequence] for t in range(start, T)]
        final = signal[-1]
        for layer in range(spec.num_layers):
            ahead = direction(f"layer{layer}", sequence, signal)
            final, outputs = ahead[-1], ahead
            if spec.bidirectional:
                back = direction(f"layer{layer}.reverse", sequence, signal[::-1])
                final = torch.cat([ahead[-1], back[-1]])
                outputs = [torch.cat(parts) for parts in zip(ahead, back[::-1], strict=True)]
            signal = outputs
        for place, step in enumerate(loss_steps(spec.loss, T)):
            if step > start:
                rows.append(final if spec.loss.at == "final" else signal[step - start - 1])
                places.append((place, sequence))
    readout = readout_of(problem, trial)
    batch = batch_loss(spec, problem, trial, torch.stack(rows), places, readout)
    batch.backward()
    found = ByTorch(float(batch.detach()))
    for name, module in modules.items():
        found.parameters |= {f"{name}.{key}": value for key, value in gradients_of(kind, module).items()}
    if readout is not None:
        found.parameters |= {"readout.W_hy": readout.weight.grad.numpy(), "readout.b_y": readout.bias.grad.numpy()}
    for key, value in histories.items():
        found.states[key] = B * (np.zeros(H) if value.grad is None else value.grad.numpy()[0])
    return found


def module_of(kind: str, table: dict[str, Array]) -> Any:
    """Return the cell with the parameters of one direction of a layer; its second bias is zero but for the GRU's n."""
    module = CELLS[kind](table[f"W_x{GATES[kind][0]}"].shape[1], H, dtype=torch.float64)
    with torch.no_grad():
        for name, prefix in (("weight_ih", "W_x"), ("weight_hh", "W_h"), ("bias_ih", "b_")):
            getattr(module, name).copy_(torch.tensor(np.concatenate([table[prefix + gate] for gate in GATES[kind]])))
        module.bias_hh.zero_()
        if "b_hn" in table:
            module.bias_hh[2 * H :] = torch.tensor(table["b_hn"])
    return module


def gradients_of(kind: str, module: Any) -> dict[str, Array]:
    found = {}
    for name, prefix in (("weight_ih", "W_x"), ("weight_hh", "W_h"), ("bias_ih", "b_")):
        parts = np.split(getattr(module, name).grad.numpy(), len(GATES[kind]))
        found |= {prefix + gate: part for gate, part in zip(GATES[kind], parts, strict=True)}
    if kind == "gru":
        found["b_hn"] = module.bias_hh.grad.numpy()[2 * H :]
    return found


def readout_of(problem: Problem, trial: int) -> Any:
    if not hasattr(problem.loss, "W_hy"):
        return None
    weight, bias = problem.loss.W_hy[trial], problem.loss.b_y[trial]
    layer = torch.nn.Linear(weight.shape[1], len(weight), dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
        layer.bias.copy_(torch.tensor(bias))
    return layer


def batch_loss(
    spec: Spec, problem: Problem, trial: int, rows: Any, places: list[tuple[int, int]], readout: Any
) -> Any:
    """Return the loss by torch's module with its default reduction, or its sum over the mean of the sequences."""
    loss: Any = problem.loss
    mean = spec.loss.reduction == "mean"
    reduction, over = ("mean", 1) if mean else ("sum", B)
    if spec.loss.kind == "projection":
        values = rows @ torch.tensor(loss.vector[trial])
        return values.mean() if mean else values.sum() / B
    target = torch.tensor(np.array([loss.target[place, trial, ..., sequence] for place, sequence in places]))
    y = rows if readout is None else readout(rows)
    match spec.loss.kind:
        case "cross_entropy":
            return torch.nn.CrossEntropyLoss(reduction=reduction)(y, target) / over
        case "binary_cross_entropy":
            return torch.nn.BCEWithLogitsLoss(reduction=reduction)(y, target) / over
    return torch.nn.MSELoss(reduction=reduction)(y, target) / over * (1.0 if mean else 0.5)


def wrong(run: Run, spec: Spec, problem: Problem, kind: str) -> dict[Any, float]:
    """Return the relative errors of all that PyTorch finds, if they are not small."""
    assert run.recording is not None
    found = {}

    def compare(key: Any, value: Array, expected: Array) -> None:
        assert value.shape == expected.shape, key
        size = np.linalg.norm(expected)
        error = np.linalg.norm(value - expected)
        if not (error == 0 if size == 0 else error < CLOSE * size):
            found[key] = float(error)

    for trial in range(problem.trials):
        reference = by_torch(kind, spec, problem, trial)
        compare(("loss", trial), run.losses[trial].mean(keepdims=True), np.array([reference.loss]))
        assert reference.parameters.keys() == run.gradients.keys()
        for name, gradient in reference.parameters.items():
            compare((name, trial), run.gradients[name].value()[trial], gradient)
        for (layer, state, sequence, step), expected in reference.states.items():
            name = f"{layer}.{state}"
            exponent = run.recording.exponents[name][step, trial, sequence]
            value = np.ldexp(run.recording.adjoints[name][step, trial, :, sequence], exponent)
            compare((name, trial, sequence, step), value, expected)
            norm = np.exp2(run.log2_norm[name][step, trial, [sequence]])
            compare((name, "norm", trial, sequence, step), norm, np.array([np.linalg.norm(expected)]))
        counted = len(reference.states) // (2 if kind == "lstm" else 1) // len(problem.names)
        lengths = T - (np.zeros(B, int) if problem.starts is None else problem.starts)
        assert counted == (lengths + 1).sum()
    return found


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["one length", "lengths"])
@pytest.mark.parametrize("both", [False, True], ids=["forward", "both ways"])
@pytest.mark.parametrize(("cell", "layers"), [("lstm", 1), ("gru", 3)])
@pytest.mark.parametrize("at", ["last", "final", "every", [1, 3, T]], ids=str)
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("loss", LOSSES)
def test_losses_and_gradients_are_those_of_torch(
    loss: str, reduction: str, at: Any, cell: str, layers: int, both: bool, lengths: list[int] | None, tmp_path: Path
) -> None:
    fields = {**LOSSES[loss], "reduction": reduction, "at": at}
    spec, problem = built(tmp_path, cell, fields, layers=layers, both=both, lengths=lengths)
    assert (problem.begins is None) == (lengths is None)
    assert wrong(Engine(problem).run(record=True), spec, problem, cell) == {}
