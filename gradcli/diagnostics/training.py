"""What training changed: the recurrent matrices, the gates' biases, and how the gates behave on the input."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradcli.diagnostics.gates import bytes_kept, measure_gates
from gradcli.diagnostics.measure import Measured
from gradcli.diagnostics.weights import LARGEST_FOR_RADIUS, spectral_norm, spectral_radius
from gradcli.engine.problem import Problem
from gradcli.network.limits import require_memory_for

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class GateStatistics:
    """One activation of the top layer over all steps, trials, sequences and units.

    mean: of its values. saturated: the share where its slope is below `gates.SATURATED_BELOW` of its largest.
    """

    mean: float
    saturated: float


@dataclass(frozen=True)
class WeightsOfRun:
    """What the weights of a run are like; medians over trials.

    spectral_radius, spectral_norm: "layer0.W_hf" -> of each recurrent matrix; the radius of square ones of at most
        `LARGEST_FOR_RADIUS` rows. bias: "layer0.b_f" -> mean over units, of the gates that the cell names.
    gates: of the top layer, by activation; empty where its layers are bidirectional, or a number was not finite.
    """

    label: str
    spectral_radius: Mapping[str, float]
    spectral_norm: Mapping[str, float]
    bias: Mapping[str, float]
    gates: Mapping[str, GateStatistics]


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
    network = arm.network
    problem = network.problem
    matrices = dict(_recurrent_matrices(problem))
    square = {name: m for name, m in matrices.items() if m.shape[1] == m.shape[2] <= LARGEST_FOR_RADIUS}
    return WeightsOfRun(
        arm.label,
        {name: _median(spectral_radius, trials) for name, trials in square.items()},
        {name: _median(spectral_norm, trials) for name, trials in matrices.items()},
        {
            f"{layer}.{bias}": float(np.median(table[bias].mean(axis=-1)))
            for layer, table in zip(problem.names, problem.parameters, strict=True)
            for bias in network.loaded.cell.chrono
            if bias in table
        },
        _gates(arm, max_memory),
    )


def _recurrent_matrices(problem: Problem) -> Iterator[tuple[str, Array]]:
    """Yield the matrices, (R, rows, columns), that multiply what a step passes on to the next."""
    for layer, plan, table in zip(problem.names, problem.plans, problem.parameters, strict=True):
        products = [lane.product.args[0] for group in plan.groups for lane in group.lanes]
        recurrent = {matrix.data for matrix in products if matrix.op == "parameter"}
        yield from ((f"{layer}.{name}", values) for name, values in table.items() if name in recurrent)


def _median(of: Callable[[Array], float], trials: Array) -> float:
    # Trained weights are the same in every trial.
    distinct = trials[:1] if (trials == trials[:1]).all() else trials
    return float(np.median([of(matrix) for matrix in distinct]))


def _gates(arm: Measured, max_memory: int | None) -> dict[str, GateStatistics]:
    network = arm.network
    problem = network.problem
    if problem.bidirectional or arm.curve is None:
        return {}
    require_memory_for(
        bytes_kept(network, problem.top),
        f"the gates of {arm.label}",
        f"seq_len ({problem.seq_len}) or batch_size ({problem.batch_size})",
        max_memory=max_memory,
    )
    found = measure_gates(network, problem.top)
    return {
        gate.activation.name: GateStatistics(float(gate.mean.mean()), float(gate.saturated.mean()))
        for gate in found.gates
    }
