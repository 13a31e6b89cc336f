"""How trained weights differ, in `gradcli compare`: spectra and biases by parameter, and the gates of the top layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from gradcli.diagnostics.gates import SATURATED_BELOW
from gradcli.diagnostics.training import GateStatistics, WeightsOfRun
from gradcli.frozen import frozen
from gradcli.numbers import decimals, percent, significant
from gradcli.results.declared import key
from gradcli.results.model import Cell, Column, Table

#: What is told of each parameter, by the names of the fields.
_OF_PARAMETERS: Mapping[str, str] = {
    "spectral_radius": "spectral radius",
    "spectral_norm": "spectral norm",
    "bias": "mean",
}
_OF_GATES: Mapping[str, Callable[[GateStatistics], str]] = {
    "mean": lambda gate: decimals(gate.mean),
    "saturated": lambda gate: percent(gate.saturated),
}


def weights_tables(runs: Sequence[WeightsOfRun]) -> list[Table]:
    """Return the tables of what the weights of some runs are like, one column a run; none where there are none."""
    if not runs:
        return []
    gates = _gate_rows(runs)
    left_out = "".join(f"; the gates of {what} are not looked at" for what in {run.left_out for run in runs} if what)
    columns = [Column("", "text", keep=9), Column("", "text", keep=8), *(Column(run.label, keep=7) for run in runs)]
    tables = [
        Table(
            columns,
            _parameter_rows(runs),
            title="weights",
            note=f"spectral radius: the largest |eigenvalue|; spectral norm: the largest singular value{left_out}",
        )
    ]
    if gates:
        note = (
            f"over all steps, sequences and units; saturated: |slope| below {percent(SATURATED_BELOW)} of its largest"
        )
        tables.append(Table(columns, gates, title="activations of the top layer", note=note))
    return tables


def _parameter_rows(runs: Sequence[WeightsOfRun]) -> list[list[Cell]]:
    rows: list[list[Cell]] = []
    for field, words in _OF_PARAMETERS.items():
        tables: list[Mapping[str, float]] = [getattr(run, field) for run in runs]
        for name in dict.fromkeys(name for table in tables for name in table):
            shown = [significant(table[name], digits=3) if name in table else None for table in tables]
            rows.append([_short(name, runs), words, *shown])
    return rows


def _short(name: str, runs: Sequence[WeightsOfRun]) -> str:
    """Return a parameter's name, without its layer where there is but one."""
    layers = {known.rpartition(".")[0] for run in runs for known in run.spectral_norm}
    return name.rpartition(".")[2] if len(layers) == 1 else name


def _gate_rows(runs: Sequence[WeightsOfRun]) -> list[list[Cell]]:
    names = dict.fromkeys(name for run in runs for name in run.gates)
    return [
        [name, words, *(shown(run.gates[name]) if name in run.gates else None for run in runs)]
        for name in names
        for words, shown in _OF_GATES.items()
    ]


@frozen(kw_only=True)
class TrainedGate:
    """An activation of the top layer, over all steps, sequences and units."""

    mean: float = key("its mean")
    saturated: float = key("the share of it that is saturated")


@frozen(kw_only=True)
class TrainedWeights:
    """What the weights of a run are like."""

    spectral_radius: Mapping[str, float] = key("the largest |eigenvalue| of each recurrent matrix")
    spectral_norm: Mapping[str, float] = key("the largest singular value")
    bias: Mapping[str, float] = key("the mean bias of each gate")
    gates: Mapping[str, TrainedGate] = key("the gates of the top layer")


def trained_weights(runs: Sequence[WeightsOfRun]) -> Mapping[str, TrainedWeights]:
    """Return what the weights of some runs are like, by label."""
    return {
        run.label: TrainedWeights(
            **{field: getattr(run, field) for field in _OF_PARAMETERS},
            gates={name: TrainedGate(mean=gate.mean, saturated=gate.saturated) for name, gate in run.gates.items()},
        )
        for run in runs
    }
