"""Nothing is read before it is written: a run gives the same bits whatever its memory held before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from built_in_cells import hidden_size_of, in_turn
from measured import loaded

from gradcli import cells
from gradcli.engine.arrays import Arrays
from gradcli.engine.run import Engine
from gradcli.prepare.build import build

pytestmark = pytest.mark.engine

SIZES: dict[str, Any] = {"seq_len": 9, "batch_size": 3, "trials": 2, "loss": "sum", "clip": []}
TEST_CELLS = {path.stem: path for path in sorted((Path(__file__).parent / "cells").glob("*.yaml"))}
ODD = (0.0, 1e300)


def bits(cell: Any, fields: dict[str, Any], held: float, parameters: bool, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Return what a run gives, where memory that is taken is full of one number."""
    empty = Arrays.empty

    def full(self: Arrays, *given: Any) -> Any:
        array = empty(self, *given)
        array[...] = held if array.dtype.kind == "f" else 7
        return array

    with monkeypatch.context() as patch:
        patch.setattr(Arrays, "empty", full)
        run = Engine(build(loaded(cell, **{**SIZES, **fields})).problem).run(parameters=parameters)
    found = [*run.log2_norm.values(), *(g.log2_norm() for g in run.gradients.values()), run.losses]
    return b"".join(np.ascontiguousarray(array).tobytes() for array in found)


@pytest.mark.parametrize(("name", "parameters"), in_turn(cells.names(), [True, False]))
def test_built_in_cells(name: str, parameters: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {"hidden_size": hidden_size_of(name, 4), "input_size": 3}
    first, second = (bits(name, fields, held, parameters, monkeypatch) for held in ODD)
    assert first == second


@pytest.mark.parametrize(("name", "parameters"), in_turn(TEST_CELLS, [True, False]))
def test_cells_of_the_tests(name: str, parameters: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = yaml.safe_load(TEST_CELLS[name].read_text(encoding="utf-8"))
    fields = {key: value for key, value in spec.items() if key not in ("cell", "clip", *SIZES)}
    first, second = (bits(spec["cell"], fields, held, parameters, monkeypatch) for held in ODD)
    assert first == second
