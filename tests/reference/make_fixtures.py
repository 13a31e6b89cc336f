"""Store small runs of the PyTorch reference, so that gradcli is held against it where PyTorch is not installed.

    cd tests && python -m reference.make_fixtures [--missing | NAME...]

For one new built-in cell there is tests/new_cell.py, which needs PyTorch for a `stop` or a `spike` only. This script
writes ``fixtures/<cell>.npz`` for every ``cells/*.yaml`` and for the RNN, LSTM and GRU of torch.nn, and
``fixtures/zoo-<cell>.npz`` for every built-in cell, in the layout of a saved run (see `fixture_file`), but small: one
trial, two sequences (of the built-in cells one, or five with batch normalisation), at most two layers. The parameters
are drawn here: feed them to gradcli to redo the run. With names only those are written, such as ``zoo-lstm``, and with
``--missing`` those that are not there yet.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from reference.compare_run import redo, redo_by_complex_steps, steps_of
from reference.equations import has_another_slope, reads_input_elementwise
from reference.fixture_file import FOLDER, write_fixture
from reference.framework_cells import EQUATIONS
from reference.shapes import layer_shapes
from reference.torch_reference import Cell, Run

TESTS = Path(__file__).parent.parent
SEED = 20240229
PARAMETER_STD = 0.4
INITIAL_STD = 0.5
CLASSES = 4
MAX_LAYERS = 2
ZOO = "zoo-"
ZOO_SIZES = 3, 2
#: Sizes such as hidden_size / 4 are whole at one of the sizes up to this.
LARGEST_ZOO_SIZE = 16
IN_A_FIXTURE = ("equations", "output", "activation", "constants", "shapes")
BATCH_SIZE = 2
#: One sequence has no statistics, and of two little but rounding comes through.
NORMALISED_BATCH_SIZE = 5
Arrays = dict[str, NDArray[Any]]


def specs() -> Iterator[dict[str, Any]]:
    """Yield the specs of all fixtures: the test cells' own, one for each cell of torch.nn and for each built-in one."""
    for path in sorted((TESTS / "cells").glob("*.yaml")):
        spec = yaml.safe_load(path.read_text(encoding="utf-8"))
        yield spec | {"batch_size": BATCH_SIZE, "num_layers": min(spec.get("num_layers", 1), MAX_LAYERS)}
    for name, equations in EQUATIONS.items():
        yield {
            "cell": {"name": f"torch-{name}", "equations": equations},
            "hidden_size": 5,
            "input_size": 3,
            "num_layers": MAX_LAYERS,
            "seq_len": 12,
            "batch_size": BATCH_SIZE,
            "loss": {"kind": "mse", "at": "every"},
        }
    for path in sorted((TESTS.parent / "gradcli" / "cells").glob("*.yaml")):
        yield zoo_spec(path)


def zoo_spec(path: Path) -> dict[str, Any]:
    """Return the spec of the fixture of a built-in cell."""
    block = yaml.safe_load(path.read_text(encoding="utf-8"))  # not by gradcli's own reader
    # A constant with sizes of its own is an array, here with numbers as a parameter's.
    sizes = block.get("shapes", {})
    numbers = {name: value for name, value in block.get("constants", {}).items() if not sizes.get(name)}
    block = {**block, "constants": numbers} if numbers else {k: v for k, v in block.items() if k != "constants"}
    hidden_size, input_size = _sizes_for(block)
    return {
        "cell": {key: block[key] for key in IN_A_FIXTURE if key in block} | {"name": f"{ZOO}{block['name']}"},
        "hidden_size": hidden_size,
        "input_size": input_size,
        "seq_len": 6,
        "batch_size": NORMALISED_BATCH_SIZE if "batch_norm" in block["equations"] else 1,
        "loss": {"kind": "mse", "at": "every"},
        **({"tied": False} if block.get("tied") is False else {}),
    }


def _sizes_for(block: Mapping[str, Any]) -> tuple[int, int]:
    """Return the smallest hidden_size, and the input_size, at which a built-in cell can be."""
    smallest, input_size = ZOO_SIZES
    for hidden_size in range(smallest, LARGEST_ZOO_SIZE + 1):
        sizes = hidden_size, hidden_size if reads_input_elementwise(block["equations"]) else input_size
        with contextlib.suppress(ValueError):
            layer_shapes(block, *sizes)
            return sizes
    raise ValueError(f"{block['name']} can be at no hidden_size up to {LARGEST_ZOO_SIZE}")


def draw(spec: Mapping[str, Any], rng: np.random.Generator) -> Arrays:
    """Draw one trial of a run: input, initial states (as the only row of ``state.*``), parameters, target or vector."""
    block = spec["cell"]
    seq_len, batch_size, hidden_size = spec["seq_len"], spec["batch_size"], spec["hidden_size"]
    output = Cell(block["equations"], block.get("output")).output_state
    arrays: Arrays = {"x": rng.normal(size=(seq_len, batch_size, spec["input_size"]))}
    input_size, outputs = spec["input_size"], 0
    steps = () if spec.get("tied", True) else (seq_len,)
    for layer in range(spec.get("num_layers", 1)):
        shapes = layer_shapes(block, hidden_size, input_size)
        for name, shape in shapes.states.items():
            arrays[f"state.layer{layer}.{name}"] = rng.normal(scale=INITIAL_STD, size=(1, batch_size, *shape))
        for name, shape in shapes.parameters.items():
            arrays[f"param.layer{layer}.{name}"] = rng.normal(scale=PARAMETER_STD, size=(*steps, *shape))
        (outputs,) = shapes.states[output]
        input_size = outputs
    return arrays | _draw_loss(spec, outputs, rng)


def _draw_loss(spec: Mapping[str, Any], outputs: int, rng: np.random.Generator) -> Arrays:
    steps, batch_size = len(steps_of(spec)), spec["batch_size"]
    match spec["loss"]["kind"]:
        case "mse":
            return {"target": rng.normal(size=(steps, batch_size, outputs))}
        case "projection":
            vector = rng.normal(size=outputs)
            return {"vector": vector / np.linalg.norm(vector)}
        case "cross_entropy":
            classes = spec["loss"].get("classes", CLASSES)
            return {
                "param.readout.W_hy": rng.normal(scale=PARAMETER_STD, size=(classes, outputs)),
                "param.readout.b_y": rng.normal(scale=PARAMETER_STD, size=classes),
                "target": rng.integers(classes, size=(steps, batch_size)),
            }
    return {}


def fixture(spec: Mapping[str, Any], rng: np.random.Generator, redone: Callable[..., Run] = redo) -> Arrays:
    """Return a run of the reference, or of another, in the layout of a saved run with one trial.

    Where complex steps are asked for, and the cell has slopes that they do not find, it is PyTorch's all the same.
    """
    if redone is redo_by_complex_steps and has_another_slope(spec["cell"]["equations"]):
        redone = redo
    arrays = draw(spec, rng)
    result = redone(arrays, spec, spec["cell"])
    arrays["loss"] = result.losses
    for name, values in result.states.items():
        arrays[f"state.{name}"] = values
        arrays[f"grad_state.{name}"] = result.grad_states[name]
    for name, gradient in result.grad_params.items():
        arrays[f"grad_param.{name}"] = gradient
    return {name: values[None] for name, values in arrays.items()}


def main(arguments: list[str]) -> int:
    """Write the fixtures that are named on the command line, those that are missing, or all."""
    every = {spec["cell"]["name"]: spec for spec in specs()}
    missing = [name for name, spec in every.items() if not stored_at(spec).exists()]
    names = missing if arguments == ["--missing"] else arguments or list(every)
    if unknown := [name for name in names if name not in every]:
        sys.stderr.write(f"there is no fixture called {', '.join(unknown)}\n")
        return 2
    FOLDER.mkdir(exist_ok=True)
    for name in names:
        write_fixture(stored_at(every[name]), every[name], fixture(every[name], stream(every[name])))
    return 0


def stored_at(spec: Mapping[str, Any]) -> Path:
    """Return where the fixture of a spec is stored."""
    return FOLDER / f"{spec['cell']['name']}.npz"


def stream(spec: Mapping[str, Any]) -> np.random.Generator:
    """Return the stream of a fixture's numbers: its own, so that a new cell changes no other's."""
    return np.random.default_rng([SEED, *spec["cell"]["name"].encode()])


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
