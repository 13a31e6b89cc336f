"""What training changed: the recurrent matrices, the gates' biases, and how the gates behave on the input."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from gradcli.diagnostics.gates import bytes_kept, measure_gates
from gradcli.diagnostics.measure import Measured
from gradcli.diagnostics.spectra import LARGEST_FOR_RADIUS, MatrixSpectrum, matrix_spectra
from gradcli.engine.parameters import LayerParameters
from gradcli.engine.problem import Problem
from gradcli.frozen import frozen
from gradcli.prepare.limits import require_memory_for

Array = np.ndarray[Any, Any]


@frozen
class GateStatistics:
    """One activation of the top layer over all steps, trials, sequences and units.

    mean: of its values. saturated: the share where its slope is below `gates.SATURATED_BELOW` of its largest.
    """

    mean: float
    saturated: float


@frozen
class WeightsOfRun:
    """What the weights of a run are like; medians over trials.

    spectral_radius, spectral_norm: "layer0.W_hf" -> of each recurrent matrix; the radius of square ones of at most
        `LARGEST_FOR_RADIUS` rows. bias: "layer0.b_f" -> mean over units, of the gates that the cell names.
    gates: of the top layer, by activation; empty where layers are bidirectional, sequences differ in length, or a
        number was not finite.
    left_out: whose gates are not looked at, such as "bidirectional layers"; "" where they are.
    """

    label: str
    spectral_radius: Mapping[str, float]
    spectral_norm: Mapping[str, float]
    bias: Mapping[str, float]
    gates: Mapping[str, GateStatistics]
    left_out: str = ""


def compare_weights(arms: Sequence[Measured], *, max_memory: int | None = None) -> list[WeightsOfRun]:
    """Return what the weights of some runs are like, if all are of one cell and some are trained; else nothing.

    Args:
        max_memory: bytes that it may need; by default half of what is free.

    Raises:
        ResourceError: more memory than that.
    """
    networks = [arm.network for arm in arms]
    same = all(network.loaded.cell.equations == networks[0].loaded.cell.equations for network in networks)
    if not same or all(network.spec.weights is None for network in networks):
        return []
    return [_weights_of(arm, max_memory) for arm in arms]


def _weights_of(arm: Measured, max_memory: int | None) -> WeightsOfRun:
    problem = arm.network.problem
    spectra = dict(_spectra(problem))
    radii = {name: float(np.median(found.spectral_radius)) for name, found in spectra.items()}
    return WeightsOfRun(
        arm.label,
        {name: radius for name, radius in radii.items() if not math.isnan(radius)},
        {name: float(np.median(found.spectral_norm)) for name, found in spectra.items()},
        {
            f"{layer}.{bias}": float(np.median(table[bias].mean(axis=-1)))
            for layer, table in zip(problem.names, problem.parameters, strict=True)
            for bias in arm.network.loaded.cell.chrono
            if bias in table
        },
        {} if (left_out := _without_gates(problem)) or arm.curve is None else _gates(arm, max_memory),
        left_out,
    )


def _without_gates(problem: Problem) -> str:
    """Return what there is about a run for which its gates cannot be measured; "" where they can."""
    if problem.bidirectional:
        return "bidirectional layers"
    return "sequences of different lengths" if problem.begins is not None else ""


def _spectra(problem: Problem) -> Iterator[tuple[str, MatrixSpectrum]]:
    """Yield the spectrum of each recurrent matrix, by layer and name; none where every step has matrices of its own."""
    if not problem.tied:
        return
    for layer, plan, table in zip(problem.names, problem.plans, problem.parameters, strict=True):
        # Trained weights are the same in every trial.
        same = all((values == values[:1]).all() for values in table.values())
        once = {name: values[:1] for name, values in table.items()} if same else table
        parameters = LayerParameters(plan, once, trials=1 if same else problem.trials, dtype=problem.dtype)
        for found in matrix_spectra(plan, parameters, largest=LARGEST_FOR_RADIUS):
            yield f"{layer}.{found.name}", found


def _gates(arm: Measured, max_memory: int | None) -> dict[str, GateStatistics]:
    network = arm.network
    problem = network.problem
    require_memory_for(
        bytes_kept(problem.plans[problem.top], problem.sizes),
        f"the gates of {arm.label}",
        f"seq_len ({problem.seq_len}) or batch_size ({problem.batch_size})",
        max_memory=max_memory,
    )
    found = measure_gates(network, problem.top)
    return {
        gate.activation.name: GateStatistics(float(gate.mean.mean()), float(gate.saturated.mean()))
        for gate in found.gates
    }
