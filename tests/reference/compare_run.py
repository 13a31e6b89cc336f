"""Redo a saved run of gradcli with the PyTorch reference, and measure how far the two are apart.

    cd tests && python -m reference.compare_run RUN.npz RUN.json [CELL.yaml]

RUN.npz is what ``gradcli simulate --save`` wrote, RUN.json what ``--format json`` printed; CELL.yaml holds the
equations of a built-in cell, and may be left out where the spec itself holds them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from reference import complex_step
from reference.relative_error import vector_error
from reference.torch_reference import Array, Cell, Hook, Loss, Run, run


@dataclass
class Comparison:
    """The largest relative error under each name of the saved run, such as ``grad_state.layer0.h``."""

    worst: dict[str, float] = field(default_factory=dict)
    compared: int = 0
    skipped: int = 0

    @property
    def largest(self) -> float:
        """The largest relative error of all."""
        return max(self.worst.values())

    def add(self, name: str, error: float | None) -> None:
        """Count one vector; an error of None is one that PyTorch's float64 cannot judge."""
        if error is None:
            self.skipped += 1
            return
        self.compared += 1
        self.worst[name] = max(self.worst.get(name, 0.0), error)


def compare(saved: Mapping[str, NDArray[Any]], spec: Mapping[str, Any], cell_block: Mapping[str, Any]) -> Comparison:
    """Return the relative errors of a saved run against PyTorch: losses, states, state and parameter gradients.

    `spec` is the resolved spec; `cell_block` holds the equations of its cell, with `output`, `activation`, `constants`.
    Each (state, step, sequence) and each parameter of each trial is compared as one vector, in norm, relatively only, a
    matrix with all its entries; where weights are not tied, the parameter of each step by itself.
    """
    if any(".reverse." in name for name in saved) != spec.get("bidirectional", False):
        raise ValueError("the saved run has not the directions of the spec")
    comparison = Comparison()
    if "at" in saved and saved["at"].tolist() != steps_of(spec):
        raise ValueError(f"the loss looks at the steps {saved['at'].tolist()}, by the spec at {steps_of(spec)}")
    by_trial = {name: values for name, values in saved.items() if name != "at"}
    for trial in range(saved["x"].shape[0]):
        _compare_trial({name: values[trial] for name, values in by_trial.items()}, spec, cell_block, comparison)
    return comparison


def _compare_trial(
    saved: Mapping[str, NDArray[Any]],
    spec: Mapping[str, Any],
    cell_block: Mapping[str, Any],
    comparison: Comparison,
) -> None:
    reference = redo(saved, spec, cell_block)
    states, params = _under("state.", saved), _under("param.", saved)
    grad_states, grad_params = _under("grad_state.", saved), _under("grad_param.", saved)
    untrained = {*cell_block.get("fixed", ()), *_constants(spec, cell_block)}
    trained = {name for name in params if name.rpartition(".")[2] not in untrained}
    if states.keys() != grad_states.keys() or trained != grad_params.keys():
        raise ValueError("the saved run does not hold a gradient for every state and parameter")
    for found, expected in zip(saved["loss"], reference.losses, strict=True):
        comparison.add("loss", vector_error(found, 0, expected))
    for name, values in states.items():
        scales = saved[f"log2_state.{name}"]
        _same_shape(name, values, reference.states[name])
        _same_shape(name, grad_states[name], reference.grad_states[name])
        for place in np.ndindex(values.shape[:2]):
            comparison.add(f"state.{name}", vector_error(values[place], 0, reference.states[name][place]))
            error = vector_error(grad_states[name][place], int(scales[place]), reference.grad_states[name][place])
            comparison.add(f"grad_state.{name}", error)
    for name, gradient in grad_params.items():
        _same_shape(name, gradient, reference.grad_params[name])
        scale, expected = int(saved[f"log2_param.{name}"]), reference.grad_params[name]
        by_step = not spec.get("tied", True) and not name.startswith("readout.")
        for found, wanted in zip(gradient, expected, strict=True) if by_step else [(gradient, expected)]:
            comparison.add(f"grad_param.{name}", vector_error(found, scale, wanted))


def redo(
    saved: Mapping[str, NDArray[Any]],
    spec: Mapping[str, Any],
    cell_block: Mapping[str, Any],
    on_state_gradient: Hook | None = None,
) -> Run:
    """Run one trial of a saved run (its arrays without the trial axis) with the reference."""
    return run(*given(saved, spec, cell_block), on_state_gradient, tied=spec.get("tied", True))


def redo_by_complex_steps(
    saved: Mapping[str, NDArray[Any]], spec: Mapping[str, Any], cell_block: Mapping[str, Any]
) -> Run:
    """Do the same without PyTorch, for one layer of a cell that has no `stop` or `spike`."""
    return complex_step.run(*given(saved, spec, cell_block), tied=spec.get("tied", True))


def given(
    saved: Mapping[str, NDArray[Any]], spec: Mapping[str, Any], cell_block: Mapping[str, Any]
) -> tuple[Cell, dict[str, Array], Array, dict[str, Array], Loss]:
    """Return what the reference takes: the cell, parameters, input, initial states, and the loss.

    A constant that is an array is saved as a parameter is, and without a gradient.
    """
    params = _under("param.", saved)
    arrays = {name.rpartition(".")[2] for name in params}
    cell = Cell(
        equations=cell_block["equations"],
        output=cell_block.get("output"),
        activation=spec.get("activation") or cell_block.get("activation"),
        constants={name: value for name, value in _constants(spec, cell_block).items() if name not in arrays},
    )
    loss = Loss(spec["loss"]["kind"], steps_of(spec), saved.get("target"), saved.get("vector"))
    initial = {name: values[0] for name, values in _under("state.", saved).items()}
    return cell, params, saved["x"], initial, loss


def _constants(spec: Mapping[str, Any], cell_block: Mapping[str, Any]) -> dict[str, Any]:
    return {**cell_block.get("constants", {}), **spec.get("constants", {})}


def steps_of(spec: Mapping[str, Any]) -> list[int]:
    """Return the steps 1..T that the loss looks at, ascending, as the targets are given."""
    at, seq_len = spec["loss"].get("at", "last"), spec["seq_len"]
    return {"last": [seq_len], "every": list(range(1, seq_len + 1))}[at] if isinstance(at, str) else sorted(at)


def _under(prefix: str, saved: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): values for name, values in saved.items() if name.startswith(prefix)}


def _same_shape(name: str, values: NDArray[Any], reference: Array) -> None:
    if values.shape != reference.shape:
        raise ValueError(f"{name} is {values.shape}, in the reference {reference.shape}")


def main(arguments: list[str]) -> int:
    """Compare the files named on the command line, and print the largest relative error under each name."""
    saved = dict(np.load(arguments[0]))
    spec = json.loads(Path(arguments[1]).read_text(encoding="utf-8"))["runs"][0]["spec"]
    cell_block = yaml.safe_load(Path(arguments[2]).read_text(encoding="utf-8")) if len(arguments) > 2 else spec["cell"]
    comparison = compare(saved, spec, cell_block)
    for name, error in comparison.worst.items():
        sys.stdout.write(f"{error:9.1e}  {name}\n")
    sys.stdout.write(f"{comparison.compared} vectors compared, {comparison.skipped} skipped (underflow in PyTorch)\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
