"""Specs as keyword arguments, measured or simulated in this process without a command line."""

from __future__ import annotations

from typing import Any

from built_in_cells import hidden_size_of

from gradcli import cells
from gradcli.diagnostics.measure import Measured, measure
from gradcli.formats import render
from gradcli.prepare.build import build
from gradcli.results.model import Report
from gradcli.results.simulate import simulation
from gradcli.spec.reader import LoadedSpec, load_spec

SMALL = {"hidden_size": 5, "input_size": 3, "seq_len": 12, "batch_size": 2, "trials": 3}

SCALAR = {"name": "scalar", "equations": "h[t] = a * h[t-1] + b"}
"""h_T = b (1 + a + ... + a^(T-1)) for h_0 = 0: each unit on its own, with no input."""


def small_batch(cell: str) -> int:
    """Return how many sequences show what a built-in cell does: batch_norm of two is -1 and 1, whatever they are."""
    return 4 if "batch_norm" in cells.load(cell).cell.equations else SMALL["batch_size"]


def small(cell: str, /, **fields: Any) -> dict[str, Any]:
    """Return small sizes at which a built-in cell can be, and shows what it does; with these fields of a spec."""
    hidden_size = hidden_size_of(cell, SMALL["hidden_size"])
    return {**SMALL, "hidden_size": hidden_size, "batch_size": small_batch(cell), **fields}


def loaded(cell: Any = "rnn", **fields: object) -> LoadedSpec:
    """Return a spec: `cell` is the name of a built-in cell or a block, and `fields` are those of the spec."""
    if isinstance(cell, str):
        return load_spec(cell, options=fields)
    return load_spec("rnn", options={"cell": cell, **fields})


def measured(cell: Any = "rnn", **fields: object) -> Measured:
    return measure(build(loaded(cell, **fields)))


def table_of(report: Report, width: int | None = 80) -> str:
    """Return what a person reads on a screen of this width."""
    return render(report, "table", width=width, color=False, unicode=True)


def screen(width: int | None = 80, cell: Any = "rnn", **fields: object) -> str:
    """Simulate, and return what a person reads who asks for all that was measured."""
    return table_of(simulation(measured(cell, **fields)).report.in_full(), width)
