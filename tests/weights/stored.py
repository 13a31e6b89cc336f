"""The committed checkpoints, written by the frameworks themselves, and what the frameworks make of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from running import Ran, relative_error, run_layer, tensor_gradients

from gradcli.weights.checkpoint import Checkpoint, Tensor
from gradcli.weights.formats import open_checkpoint
from gradcli.weights.layers import RecurrentLayer

FOLDER = Path(__file__).parent.parent / "checkpoints"

Arrays = Mapping[str, NDArray[Any]]


def stems(framework: str) -> list[str]:
    """Return the names of a framework's checkpoints, without their endings."""
    return sorted(path.name.removesuffix(".expected.npz") for path in FOLDER.glob(f"{framework}-*.expected.npz"))


def expected_of(stem: str) -> Arrays:
    """Return the framework's numbers; the scripts in the folder say what they are."""
    with np.load(FOLDER / f"{stem}.expected.npz") as saved:
        return dict(saved)


class Kept(Checkpoint):
    """A checkpoint that was read and closed."""

    FORMAT = "kept"

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint.name, checkpoint.tensors, checkpoint.ignored)
        self._entries = {name: checkpoint.read(name) for name in checkpoint.tensors}

    def _read(self, tensor: Tensor) -> NDArray[Any]:
        return self._entries[tensor.name]

    def close(self) -> None:
        pass


def checkpoint_of(file: str) -> Checkpoint:
    """Return a checkpoint of the folder, as gradcli reads it."""
    with open_checkpoint(FOLDER / file, file) as checkpoint:
        return Kept(checkpoint)


def disagreements(
    layer: RecurrentLayer, checkpoint: Checkpoint, expected: Arrays, tolerance: float, *, prefix: str = ""
) -> dict[str, float]:
    """Return what gradcli and the framework differ in by more than the tolerance, relatively, and by how much.

    Args:
        prefix: what the file has in front of the names under which the gradients were written.
    """
    ran = run_layer(layer, checkpoint, expected["x"], expected["v"], every=bool(expected["every"]))
    errors = {"y": relative_error(ran.outputs, expected["y"])}
    gradients = tensor_gradients(layer, ran, checkpoint)
    known = {key: value for key, value in expected.items() if key.startswith("grad.")}
    assert {f"grad.{_joined(name.removeprefix(prefix))}" for name in gradients} == {_joined(key) for key in known}
    by_name = {f"grad.{_joined(name.removeprefix(prefix))}": gradient for name, gradient in gradients.items()}
    errors |= {key: relative_error(by_name[_joined(key)], value) for key, value in known.items()}
    errors["norm of all"] = relative_error(
        _norm((gradient, layer.parameters[name].copies) for name, gradient in ran.parameter_gradients.items()),
        _norm((value, 1) for value in known.values()),
    )
    errors |= _of_states(layer, ran, expected)
    return {key: error for key, error in errors.items() if not error <= tolerance}


def _norm(gradients: Iterable[tuple[NDArray[Any], int]]) -> NDArray[Any]:
    """Return the norm of some gradients together, each of which counts so many times."""
    return np.sqrt(np.array([sum(count * float(np.square(values).sum()) for values, count in gradients)]))


def _joined(name: str) -> str:
    return name.replace("/", ".")


def _of_states(layer: RecurrentLayer, ran: Ran, expected: Arrays) -> dict[str, float]:
    """Return the errors of dL/ds_t of the top layer at every step, each relative to its own size."""
    errors = {}
    for key, gradients in expected.items():
        what, _, place = key.partition(".")
        if what != "state":
            continue
        direction, _, state = place.partition(".")
        reverse = ".reverse" if direction == "reverse" else ""
        found = ran.state_gradients[f"layer{layer.num_layers - 1}{reverse}.{state}"]
        # Of a cell that is run by itself the framework has none for the initial state.
        found = found[len(found) - len(gradients) :]
        for step, (own, other) in enumerate(zip(found, gradients, strict=True)):
            is_zero = not other.any()
            errors[f"{key} at {step}"] = float(own.any()) if is_zero else relative_error(own, other)
    return errors
