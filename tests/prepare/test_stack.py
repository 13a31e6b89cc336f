"""A stack of layers: those of the same sizes are planned once."""

from __future__ import annotations

from measured import loaded

from gradcli.prepare.build import build


def test_layers_of_the_same_sizes_share_a_plan() -> None:
    first, *others = build(loaded("lstm", num_layers=5, hidden_size=4, input_size=3, seq_len=2)).problem.plans
    assert len({id(plan) for plan in others}) == 1
    assert first is not others[0]
    assert first.cell.shapes.parameters["W_xf"] == (4, 3)
    assert others[0].cell.shapes.parameters["W_xf"] == (4, 4)
