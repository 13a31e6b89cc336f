"""An engine that is given another loss finds what a new one with that loss finds, for every cell and in any order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from measured import loaded, small

from gradcli import cells
from gradcli.engine.run import Engine
from gradcli.prepare.build import build


@pytest.mark.parametrize("cell", cells.names())
def test_another_loss_on_the_same_engine(cell: str) -> None:
    options = small(cell, seq_len=3, loss={"kind": "sum", "at": "every"})
    problem = build(loaded(cell, **options)).problem
    losses = [problem.loss, problem.loss.last_alone()]
    alone = [Engine(replace(problem, loss=loss)).run().log2_norm for loss in losses]
    engine = Engine(problem)
    for place, parameters in ((0, True), (1, False), (0, False), (1, True)):
        engine.set_loss(losses[place])
        found = engine.run(parameters=parameters).log2_norm
        for name, norm in alone[place].items():
            np.testing.assert_allclose(found[name], norm, rtol=1e-12, err_msg=f"{name}, {place}, {parameters}")
