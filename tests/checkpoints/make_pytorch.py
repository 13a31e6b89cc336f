"""Writes the checkpoints of PyTorch, pytorch-*.pt and .safetensors, and what PyTorch makes of them.

<stem>.expected.npz: x (T, B, I) and v, the framework's outputs y (T, B, ...), "grad.<tensor>" of the checkpoint, and
"state.<direction>.h", dL/dh_t of the top layer at every step 0..T of the direction's own, for L = the sum over
sequences of v . y at the last step, or at every step where `every` is true. Cells have it for c as well, and from step
1 on.

    python make_pytorch.py
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

FOLDER = Path(__file__).parent
SEQ_LEN, BATCH_SIZE, INPUT_SIZE, HIDDEN_SIZE = 6, 2, 3, 4


def states_of(given: Any) -> tuple[Tensor, ...]:
    return given if isinstance(given, tuple) else (given,)


def state_gradients(layer: nn.RNNBase, x: Tensor, v: Tensor, *, every: bool) -> dict[str, Tensor]:
    """Return dL/dh_t, (T+1, B, size), of the top layer of a stack with one direction.

    For each t the sequence is cut there, so that autograd sees the states as leaves. (That of c_t would lack the way
    through h_t then.)
    """
    found = []
    for t in range(SEQ_LEN + 1):
        size = layer.proj_size or layer.hidden_size
        zeros = [torch.zeros(layer.num_layers, BATCH_SIZE, size, dtype=x.dtype)]
        if isinstance(layer, nn.LSTM):
            zeros.append(torch.zeros(layer.num_layers, BATCH_SIZE, layer.hidden_size, dtype=x.dtype))
        given: Any = tuple(zeros) if len(zeros) > 1 else zeros[0]
        before = layer(x[:t], given)[1] if t else given
        leaves = [state.detach().clone().requires_grad_() for state in states_of(before)]
        loss = (v * leaves[0][-1]).sum() if t and (every or t == SEQ_LEN) else torch.zeros((), dtype=x.dtype)
        if t < SEQ_LEN:
            outputs = layer(x[t:], tuple(leaves) if len(leaves) > 1 else leaves[0])[0]
            loss = loss + (v * (outputs if every else outputs[-1])).sum()
        found.append(torch.autograd.grad(loss, leaves[0])[0][-1])
    return {"h": torch.stack(found)}


def one_direction(layer: nn.RNNBase, number: int, suffix: str) -> nn.RNNBase:
    """Return one direction of a layer of a stack, as a layer of its own."""
    tensors = {
        name.removesuffix(f"_l{number}{suffix}") + "_l0": tensor
        for name, tensor in layer.state_dict().items()
        if name.endswith(f"_l{number}{suffix}")
    }
    extra: dict[str, Any] = {"proj_size": layer.proj_size} if layer.proj_size else {}
    own = type(layer)(
        tensors["weight_ih_l0"].shape[1],
        layer.hidden_size,
        bias=layer.bias,
        dtype=tensors["weight_ih_l0"].dtype,
        **extra,
    )
    own.load_state_dict(tensors)
    return own


def gradients_of_both(layer: nn.RNNBase, x: Tensor, v: Tensor, *, every: bool) -> dict[str, Tensor]:
    """Return the state gradients of both directions of the top layer."""
    top = layer.num_layers - 1
    for number in range(top):
        forward, reverse = one_direction(layer, number, ""), one_direction(layer, number, "_reverse")
        x = torch.cat([forward(x)[0], reverse(x.flip(0))[0].flip(0)], dim=2).detach()
    assert every, "the reverse direction's last step is the first to be read"
    half = len(v) // 2
    ahead = state_gradients(one_direction(layer, top, ""), x, v[:half], every=True)
    back = state_gradients(one_direction(layer, top, "_reverse"), x.flip(0), v[half:], every=True)
    return {f"forward.{k}": g for k, g in ahead.items()} | {f"reverse.{k}": g for k, g in back.items()}


def run(model: nn.Module, layer: nn.Module, x: Tensor, generator: torch.Generator) -> dict[str, Any]:
    """Run the recurrent layer of a model, and return what is expected of it; gradients under the model's names."""
    model.zero_grad()
    every = isinstance(layer, nn.RNNBase) and layer.bidirectional
    if isinstance(layer, nn.RNNBase):
        y = layer(x)[0]
        states: dict[str, Tensor] = {}
    else:
        state, steps = None, []
        for x_t in x:
            state = layer(x_t, state)
            for each in states_of(state):
                each.retain_grad()
            steps.append(states_of(state))
        y = torch.stack([step[0] for step in steps])
    v = torch.randn(y.shape[2], generator=generator, dtype=torch.float64).to(x.dtype)
    (v * (y if every else y[-1])).sum().backward()
    if not isinstance(layer, nn.RNNBase):
        # The state before the first step is no leaf here: its gradient is left out.
        states = {
            f"forward.{name}": torch.stack([step[i].grad for step in steps])
            for i, name in enumerate("hc"[: len(steps[0])])
        }
    elif layer.bidirectional:
        states = gradients_of_both(layer, x, v, every=every)
    else:
        states = {f"forward.{k}": g for k, g in state_gradients(layer, x, v, every=every).items()}
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {
        "x": x.numpy(),
        "v": v.numpy(),
        "y": y.detach().numpy(),
        "every": np.array(every),
        **{f"grad.{name}": gradient.numpy() for name, gradient in gradients.items()},
        **{f"state.{name}": gradient.detach().numpy() for name, gradient in states.items()},
    }


def write(what: str, layer: nn.Module, *, model: nn.Module | None = None, stored: torch.dtype = torch.float64) -> None:
    """Write a layer, or a model around it, stored as some dtype and run as it was stored; bfloat16 as float64."""
    generator = torch.Generator().manual_seed(sum(map(ord, what)))
    model = model or layer
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.6
    model.to(stored)
    tensors = OrderedDict((name, tensor.clone()) for name, tensor in model.state_dict().items())
    nested = {"model": tensors, "epoch": 7, "loss": 0.25}
    torch.save(nested if model is not layer else tensors, FOLDER / f"pytorch-{what}.pt")
    save_file(dict(tensors), FOLDER / f"pytorch-{what}.safetensors")
    at = torch.float64 if stored == torch.bfloat16 else stored
    model.to(at)
    inputs = layer.input_size
    assert isinstance(inputs, int)
    x = torch.randn(SEQ_LEN, BATCH_SIZE, inputs, generator=generator, dtype=torch.float64).to(at)
    np.savez_compressed(FOLDER / f"pytorch-{what}.expected.npz", **run(model, layer, x, generator))


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(INPUT_SIZE, HIDDEN_SIZE, num_layers=2, dtype=torch.float64)


class Model(nn.Module):
    """A language model: an embedding, an encoder that has a GRU, a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, INPUT_SIZE)
        self.encoder = Encoder()
        self.fc = nn.Linear(HIDDEN_SIZE, 5)


def main() -> None:
    both: dict[str, Any] = {"num_layers": 2, "bidirectional": True}
    sizes: dict[str, Any] = {"input_size": INPUT_SIZE, "hidden_size": HIDDEN_SIZE, "dtype": torch.float64}
    layers: dict[str, nn.Module] = {
        "rnn": nn.RNN(**sizes),
        "rnn-relu": nn.RNN(**sizes, nonlinearity="relu"),
        "rnn-no-bias": nn.RNN(**sizes, bias=False),
        "lstm": nn.LSTM(**sizes),
        "lstm-stacked": nn.LSTM(**sizes, num_layers=2),
        "lstm-no-bias": nn.LSTM(**sizes, bias=False),
        "lstm-projected": nn.LSTM(**sizes, proj_size=2),
        "lstm-projected-both-ways": nn.LSTM(**sizes, **both, proj_size=2),
        "gru": nn.GRU(**sizes),
        "gru-both-ways": nn.GRU(**sizes, bidirectional=True),
        "gru-stacked-both-ways": nn.GRU(**sizes, **both),
        "gru-no-bias": nn.GRU(**sizes, bias=False),
        "rnn-cell": nn.RNNCell(**sizes),
        "lstm-cell": nn.LSTMCell(**sizes),
        "gru-cell": nn.GRUCell(**sizes),
    }
    for what, layer in layers.items():
        write(what, layer)
    write("lstm-float32", nn.LSTM(**sizes), stored=torch.float32)
    write("lstm-bfloat16", nn.LSTM(**sizes), stored=torch.bfloat16)
    model = Model()
    write("model", model.encoder.rnn, model=model, stored=torch.float32)


if __name__ == "__main__":
    main()
