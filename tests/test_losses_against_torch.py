"""The losses of a spec, against PyTorch's own loss modules on its own cells: values, and the gradients by everything.

PyTorch runs every sequence alone, at its own length and in each direction, so that nothing of padding or of reversal is
shared with what is tested. Its modules then take all pairs of a sequence and a step that counts at once.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_runs import problem_of
from late_torch import torch
from measured import loaded, measured
from numpy.typing import NDArray
from reference.framework_cells import EQUATIONS, GATES, parameters_of
from reference.framework_cells import gradients_of as gradients_by_gate
from reference.framework_cells import module_of as module_of_torch_nn

from gradcli.engine.loss import BinaryCrossEntropy, Loss
from gradcli.engine.problem import Problem, Run, layer_names
from gradcli.engine.run import Engine
from gradcli.engine.starts import Starts
from gradcli.prepare.build import build
from gradcli.spec.losses import loss_steps
from gradcli.spec.models import Spec

pytestmark = pytest.mark.torch

Array = NDArray[Any]
CLOSE = 1e-10
T, B, H, I = 7, 3, 4, 3  # noqa: E741 - as the documentation calls them
LENGTHS = [T, 2, 5]
STATES = {"lstm": "hc", "gru": "h", "rnn": "h"}
CELLS = {"lstm": "LSTMCell", "gru": "GRUCell", "rnn": "RNNCell"}
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
    module = getattr(torch.nn, CELLS[kind])(table[f"W_x{GATES[kind][0]}"].shape[1], H, dtype=torch.float64)
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


def batch_loss(spec: Spec, problem: Problem, trial: int, rows: Any, places: list[tuple[int, int]], readout: Any) -> Any:
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


@pytest.mark.parametrize(
    ("cell", "layers", "both", "lengths"),
    [
        ("lstm", 2, False, None),
        ("rnn", 1, True, None),
        ("gru", 3, False, LENGTHS),
        ("lstm", 1, True, LENGTHS),
        ("gru", 3, True, LENGTHS),
    ],
)
@pytest.mark.parametrize("at", ["last", "final", "every", [1, 3, T]], ids=str)
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("loss", LOSSES)
def test_losses_and_gradients_are_those_of_torch(
    cell: str, layers: int, both: bool, lengths: list[int] | None, loss: str, reduction: str, at: Any, tmp_path: Path
) -> None:
    fields = {**LOSSES[loss], "reduction": reduction, "at": at}
    spec, problem = built(tmp_path, cell, fields, layers=layers, both=both, lengths=lengths)
    assert (problem.begins is None) == (lengths is None)
    assert wrong(Engine(problem).run(record=True), spec, problem, cell) == {}


@pytest.mark.parametrize("at", ["final", "last", "every"])
@pytest.mark.parametrize("lengths", [[T] * B, LENGTHS], ids=["one length", "lengths"])
@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn"])
def test_two_directions_are_those_of_packed_sequences(kind: str, lengths: list[int], at: str) -> None:
    """`final` is cat(h_n[-2], h_n[-1]) of torch.nn, `last` the output at each sequence's last position."""
    layers, rng = 2, np.random.default_rng(5)
    torch.manual_seed(2)
    module = module_of_torch_nn(kind, I, H, layers, bidirectional=True)
    names = layer_names(layers, bidirectional=True)
    start = {s: torch.tensor(rng.normal(size=(len(names), B, H)), requires_grad=True) for s in STATES[kind]}
    x, vector = rng.normal(size=(T, B, I)), rng.normal(size=2 * H)
    padded = np.zeros((B, T, I))
    for sequence, length in enumerate(lengths):
        padded[sequence, :length] = x[T - length :, sequence]
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        torch.tensor(padded), torch.tensor(lengths), batch_first=True, enforce_sorted=False
    )
    outputs, last = module(packed, tuple(start.values()) if kind == "lstm" else start["h"])
    h_n = last[0] if kind == "lstm" else last
    outputs, _ = torch.nn.utils.rnn.pad_packed_sequence(outputs, batch_first=True)
    match at:
        case "final":
            losses = torch.cat([h_n[-2], h_n[-1]], dim=1) @ torch.tensor(vector)
        case "last":
            losses = outputs[range(B), [length - 1 for length in lengths]] @ torch.tensor(vector)
        case _:
            losses = (outputs @ torch.tensor(vector)).sum(dim=1)
    losses.sum().backward()

    values = {name: value.detach().numpy() for name, value in module.named_parameters()}
    arrays = {f"param.{name}": value[None] for name, value in parameters_of(kind, values, layers).items()}
    for index, layer in enumerate(names):
        for s in STATES[kind]:
            arrays[f"state.{layer}.{s}"] = start[s].detach().numpy()[None, None, index]
    spec = {
        "cell": {"equations": EQUATIONS[kind]},
        "bidirectional": True,
        "num_layers": layers,
        "hidden_size": H,
        "seq_len": T,
        "loss": {"kind": "projection", "at": "every" if at == "every" else "last"},
    }
    problem = problem_of(spec, {"x": x[None], "vector": vector[None], **arrays})
    loss = problem.loss.of_final_states() if at == "final" else problem.loss
    run = Engine(replace(problem, loss=loss, starts=T - np.array(lengths)), block=3).run(record=True)
    assert run.recording is not None
    np.testing.assert_allclose(run.losses[0], losses.detach().numpy(), rtol=CLOSE)
    of_torch = {name: value.grad.numpy() / B for name, value in module.named_parameters()}
    for name, expected in gradients_by_gate(kind, of_torch, layers).items():
        assert np.linalg.norm(run.gradients[name].value()[0] - expected) < CLOSE * np.linalg.norm(expected), name
    for index, layer in enumerate(names):
        for s in STATES[kind]:
            recorded = run.recording.adjoints[f"{layer}.{s}"], run.recording.exponents[f"{layer}.{s}"]
            for sequence, length in enumerate(lengths):
                mantissa, exponent = recorded[0][T - length, 0, :, sequence], recorded[1][T - length, 0, sequence]
                expected = start[s].grad.numpy()[index, sequence]
                assert np.linalg.norm(np.ldexp(mantissa, exponent) - expected) < CLOSE * np.linalg.norm(expected)
    top = [run.recording.states[f"{layer}.h"][1:, 0] for layer in names[-2:]]
    for sequence, length in enumerate(lengths):
        ahead, back = (states[T - length :, :, sequence] for states in top)
        put_out = np.concatenate([ahead, back[::-1]], axis=1)
        np.testing.assert_allclose(put_out, outputs[sequence, :length].detach().numpy(), rtol=CLOSE)


def test_a_language_model_with_the_framework_s_loss_is_not_clipped_where_that_is_not() -> None:
    """A loss at every step of 200: torch's mean has a 200th of the norm that the sum has."""
    steps, symbols = 200, 8
    fields: dict[str, Any] = {
        "hidden_size": 16,
        "input_size": symbols,
        "seq_len": steps,
        "trials": 1,
        "init": {"*": {"uniform": {"bound": 0.25}}},
        "input": {"kind": "one_hot"},
        "clip": [{"norm": 0.25}],
    }
    rows = {}
    for reduction in ("sum", "mean"):
        loss = {"kind": "cross_entropy", "at": "every", "target": "next", "reduction": reduction}
        (rows[reduction],) = measured("lstm", **fields, loss=loss).clipped
    problem = build(loaded("lstm", **fields, loss=loss)).problem
    (table,) = problem.parameters
    table = {name: value[0] for name, value in table.items()}
    module, readout = torch.nn.LSTM(symbols, 16, dtype=torch.float64), readout_of(problem, 0)
    with torch.no_grad():
        for name, prefix in (("weight_ih_l0", "W_x"), ("weight_hh_l0", "W_h"), ("bias_ih_l0", "b_")):
            getattr(module, name).copy_(torch.tensor(np.concatenate([table[prefix + gate] for gate in "ifgo"])))
        module.bias_hh_l0.zero_()
    module.bias_hh_l0.requires_grad_(False)
    x = torch.tensor(problem.source.fill(0, steps)[:, 0].transpose(0, 2, 1))
    logits = readout(module(x)[0])
    target = torch.tensor(problem.loss.target[:, 0])
    torch.nn.CrossEntropyLoss()(logits.flatten(0, 1), target.flatten()).backward()
    parameters = [p for p in [*module.parameters(), *readout.parameters()] if p.requires_grad]
    norm = float(torch.nn.utils.clip_grad_norm_(parameters, 0.25))
    assert 10 ** rows["mean"].log10_norm_before == pytest.approx(norm, rel=CLOSE)
    assert 10 ** rows["sum"].log10_norm_before == pytest.approx(steps * norm, rel=CLOSE)
    assert norm < 0.25 < steps * norm
    assert (rows["mean"].fraction_clipped, rows["sum"].fraction_clipped) == (0.0, 1.0)


def test_a_yes_or_no_that_is_all_but_certain_has_a_loss_and_a_gradient() -> None:
    """log(1 - sigmoid(800)) is log(0) when written so; and what is right has exp(-y) as its loss and its gradient."""
    outputs = np.array([800.0, -800.0, 40.0, -40.0, 0.0])[None, None, None]
    right, level = np.exp(-40), np.log(2)
    for target, expected in ((1.0, [0, 800, right, 40, level]), (0.0, [800, 0, 40, right, level])):
        loss = BinaryCrossEntropy([1], np.full((1, 1, 1, 5), target), np.ones((1, 1, 1)), np.zeros((1, 1)))
        values, gradient = loss.values(outputs, 1)[0], loss.gradient(outputs, 1)
        assert gradient is not None
        y = torch.tensor(outputs[0, 0, 0], requires_grad=True)
        of_torch = torch.nn.BCEWithLogitsLoss(reduction="none")(y, torch.full_like(y, target))
        np.testing.assert_allclose(values, of_torch.detach().numpy(), rtol=1e-12, atol=1e-16)
        np.testing.assert_allclose(values, expected, rtol=1e-12, atol=1e-300)
        sign = 1 if target == 0 else -1
        slopes = sign / (1 + np.exp(-sign * outputs[0, 0, 0].clip(-700, 700)))
        np.testing.assert_allclose(gradient[0, 0, 0], slopes, rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["one length", "lengths"])
def test_the_last_loss_alone_keeps_the_weight_that_it_has(
    loss: str, reduction: str, lengths: list[int] | None, tmp_path: Path
) -> None:
    """The gradient of a loss at several steps is that of the last alone and that of the others, added."""
    fields = {**LOSSES[loss], "reduction": reduction, "at": [2, 4, T]}
    _, problem = built(tmp_path, "gru", fields, layers=1, both=True, lengths=lengths)
    outputs = np.random.default_rng(1).normal(size=(T, 2, 2 * H, B))
    whole, last = problem.loss, problem.loss.last_alone().counted_from(problem.starts)
    assert (last.steps.tolist(), last.scale) == ([T], whole.scale)
    of_all, of_last = whole.gradient(outputs, 1), last.gradient(outputs, 1)
    assert of_all is not None
    assert of_last is not None
    np.testing.assert_array_equal(of_all[-1], of_last[-1])
    assert not of_last[:-1].any()
    np.testing.assert_allclose(whole.values(outputs[-1:], T), last.values(outputs, 1), rtol=1e-12)


def test_losses_are_joined_only_where_they_count_alike(tmp_path: Path) -> None:
    def loss(**fields: Any) -> Any:
        return built(tmp_path, "gru", {"kind": "mse", **fields}, layers=1, both=True)[1].loss

    assert loss().can_join(loss())
    assert not loss().can_join(loss(reduction="mean"))
    assert not loss().can_join(loss(at="final"))
    joined = loss(at="final", reduction="mean")
    both = joined.joined([joined])
    assert (both.final, both.scale, both.target.shape[1]) == (True, joined.scale, 4)
    part = both.of_trials(1, 3)
    assert (part.final, part.scale, part.target.shape[1]) == (True, joined.scale, 2)


# --- the checks are worth something ----------------------------------------------------------------------------------


def without_their_lengths(starts: Starts, values: Array) -> Array:
    return values[::-1]


def not_scaled(loss: Loss, scale: float) -> Loss:
    return loss


def by_position(loss: Loss) -> Loss:
    return loss


def by_the_longest(loss: Loss, scale: float) -> Loss:
    found = copy(loss)
    found.scale = scale * sum(LENGTHS) / len(LENGTHS) / T
    return found


@pytest.mark.parametrize(
    ("owner", "name", "mistake"),
    [
        (Starts, "in_reverse", without_their_lengths),
        (Loss, "scaled", not_scaled),
        (Loss, "scaled", by_the_longest),
        (Loss, "of_final_states", by_position),
    ],
)
def test_a_mistake_is_seen(
    owner: type, name: str, mistake: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = "final" if name == "of_final_states" else "every"
    fields = {**LOSSES["mse"], "reduction": "mean", "at": at}
    for planted in (False, True):
        if planted:
            monkeypatch.setattr(owner, name, mistake)
        spec, problem = built(tmp_path, "gru", fields, layers=2, both=True, lengths=LENGTHS)
        found = wrong(Engine(problem).run(record=True), spec, problem, "gru")
        assert bool(found) == planted
