"""A built network as PyTorch's reference takes it: one trial's arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from reference.torch_reference import Array, Cell, Loss

from gradcli.engine.loss import CrossEntropy
from gradcli.prepare.build import Network
from gradcli.spec.constants import constants_of


@dataclass(frozen=True)
class Given:
    """What `reference.torch_reference.run` and `reference.step_copies` take, in their order."""

    cell: Cell
    params: dict[str, Array]
    x: Array
    initial: dict[str, Array]
    loss: Loss

    def __iter__(self) -> Any:
        return iter((self.cell, self.params, self.x, self.initial, self.loss))


def given(network: Network, trial: int) -> Given:
    """Return cell, parameters (``layer0.W_hh``), input (T, B, size), initial states (B, ...) and loss of a trial."""
    problem, block, spec = network.problem, network.loaded.cell, network.spec
    cell = Cell(
        block.equations,
        network.problem.plans[0].cell.output,
        spec.activation or block.activation,
        constants_of(block, spec.constants).numbers,
    )
    params = {
        f"{layer}.{name}": value[trial]
        for layer, table in zip(problem.names, problem.parameters, strict=True)
        for name, value in table.items()
    }
    loss = problem.loss
    if isinstance(loss, CrossEntropy):
        params |= {"readout.W_hy": loss.W_hy[trial], "readout.b_y": loss.b_y[trial]}
    initial = {
        f"{layer}.{name}": value[trial].T.reshape(problem.batch_size, *plan.cell.shapes.of_states[name])
        for layer, plan, table in zip(problem.names, problem.plans, problem.initial, strict=True)
        for name, value in table.items()
    }
    arrays = {name: value[trial] for name, value in loss.saved().items()}
    kind = spec.loss.kind
    return Given(
        cell,
        params,
        problem.source.fill(0, problem.seq_len)[:, trial].transpose(0, 2, 1),
        initial,
        Loss("projection" if kind == "sum" else kind, loss.steps.tolist(), arrays.get("target"), arrays.get("vector")),
    )
