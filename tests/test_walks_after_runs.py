"""A walk after a run takes the values that the run left, unless something has changed since."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from measured import SMALL, loaded
from numpy.typing import NDArray

from gradcli.engine.blocks import walk_adjoints
from gradcli.engine.group import TrialGroup
from gradcli.engine.run import Engine
from gradcli.prepare.build import build


def walked(engine: Engine) -> NDArray[np.float64]:
    """Return log2 of the norms of h at all steps and trials, from walks."""
    found = []
    for _, group in engine.groups():
        blocks = [visit.blocks[0].log2_norm["h"].copy() for visit in walk_adjoints(group)]
        found.append(np.concatenate(blocks[::-1]))
    return np.concatenate(found, axis=1)


def test_nothing_is_computed_again_for_a_walk(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(build(loaded("gru", **SMALL)).problem)
    expected = engine.run().log2_norm["layer0.h"][1:]
    forward: list[Any] = []
    monkeypatch.setattr(TrialGroup, "forward", lambda *args, **options: forward.append(args))
    assert walked(engine) == pytest.approx(expected, rel=1e-12)
    assert not forward


@pytest.mark.parametrize("change", ["parameters", "loss"])
@pytest.mark.parametrize("at_once", [None, 1, 2])
def test_a_walk_sees_what_has_changed_since(change: str, at_once: int | None) -> None:
    problem = build(loaded("gru", **SMALL)).problem
    engine = Engine(problem, at_once=at_once)
    engine.run()
    if change == "parameters":
        tables = [{name: 1.5 * values for name, values in table.items()} for table in problem.parameters]
        engine.set_parameters(tables)
        changed = replace(problem, parameters=tables)
    else:
        loss = build(loaded("gru", **SMALL, loss={"kind": "projection"})).problem.loss
        engine.set_loss(loss)
        changed = replace(problem, loss=loss)
    before, after = (Engine(p).run().log2_norm["layer0.h"][1:] for p in (problem, changed))
    assert np.abs(before - after).max() > 1e-3
    assert walked(engine) == pytest.approx(after, rel=1e-10)
