"""Train a small LSTM on ../data/digits.npz and save it in every format: python examples/checkpoints/make_checkpoints.py

Needs PyTorch, onnx, safetensors, h5py, and Keras 3.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np
import onnx
import torch
from safetensors.torch import save_file

HERE = Path(__file__).parent
HIDDEN = 16
TRAINED_ON = 400  # of the 500 pictures; the rest are for the accuracy
EPOCHS = 100


class DigitsLSTM(torch.nn.Module):
    """Reads a picture row by row, from the top, and names the digit after the last row."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = torch.nn.LSTM(8, HIDDEN, batch_first=True)
        self.fc = torch.nn.Linear(HIDDEN, 10)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        outputs, _ = self.rnn(rows)
        return self.fc(outputs[:, -1])


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    data = np.load(HERE.parent / "data" / "digits.npz")
    rows = torch.tensor(data["rows"] / np.float32(16))
    labels = torch.tensor(data["labels"].astype(np.int64))
    model = DigitsLSTM()
    torch.save(model.state_dict(), HERE / "digits-lstm-untrained.pt")
    sys.stdout.write(f"untrained: {accuracy(model, rows, labels)}\n")
    train(model, rows[:TRAINED_ON], labels[:TRAINED_ON])
    sys.stdout.write(f"trained: {accuracy(model, rows, labels)}\n")
    save(model)
    twin = keras_twin(model)
    difference = np.abs(twin(rows.numpy()).detach().numpy() - model(rows).detach().numpy()).max()
    assert difference < 1e-5, difference
    twin.save(HERE / "digits-lstm.keras")
    twin.save_weights(HERE / "digits-lstm.weights.h5")
    twin.save(HERE / "digits-lstm.h5")


def train(model: DigitsLSTM, rows: torch.Tensor, labels: torch.Tensor) -> None:
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(rows)).split(20):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(model(rows[batch]), labels[batch]).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()


def accuracy(model: DigitsLSTM, rows: torch.Tensor, labels: torch.Tensor) -> str:
    with torch.no_grad():
        right = model(rows).argmax(1) == labels
    parts = {"trained on": right[:TRAINED_ON], "others": right[TRAINED_ON:]}
    return ", ".join(f"{int(part.sum())} of {len(part)} {name}" for name, part in parts.items())


def save(model: DigitsLSTM) -> None:
    """Save a model as .pt, .safetensors, .npz and .onnx."""
    tensors = model.state_dict()
    torch.save(tensors, HERE / "digits-lstm.pt")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, HERE / "digits-lstm.safetensors")
    np.savez(HERE / "digits-lstm.npz", **{name: tensor.numpy() for name, tensor in tensors.items()})
    path = HERE / "digits-lstm.onnx"
    torch.onnx.export(model, (torch.zeros(1, 8, 8),), path, dynamo=False, input_names=["rows"], output_names=["logits"])
    onnx.checker.check_model(onnx.load(path))


def keras_twin(model: DigitsLSTM) -> keras.Model:
    """Return a Keras model that computes the same: kernels transposed, the two biases of PyTorch added."""
    twin = keras.Sequential(
        [keras.layers.Input((8, 8)), keras.layers.LSTM(HIDDEN, name="rnn"), keras.layers.Dense(10, name="fc")]
    )
    rnn = {name.removesuffix("_l0"): value.detach().numpy() for name, value in model.rnn.named_parameters()}
    twin.get_layer("rnn").set_weights([rnn["weight_ih"].T, rnn["weight_hh"].T, rnn["bias_ih"] + rnn["bias_hh"]])
    twin.get_layer("fc").set_weights([model.fc.weight.detach().numpy().T, model.fc.bias.detach().numpy()])
    return twin


if __name__ == "__main__":
    main()
