"""Which biases chrono sets: those that the cell names, else the usual ones of its gates."""

from __future__ import annotations

import numpy as np
import pytest
from measured import loaded

from gradcli.errors import SpecError
from gradcli.prepare.build import build

EQUATIONS = """
f = sigmoid(W_hf @ h[t-1] + b_f)
i = sigmoid(W_hi @ h[t-1] + b_i)
h[t] = f * h[t-1] + i * tanh(b_g)
"""
GATES = {"name": "gates", "equations": EQUATIONS}
SIZES = {"hidden_size": 200, "seq_len": 50, "trials": 1, "batch_size": 1}


def test_a_cell_that_does_not_say_has_a_forget_and_an_input_bias() -> None:
    (values,) = build(loaded(GATES, **SIZES, init={"b_[fi]": "chrono"})).problem.parameters
    assert 0 <= values["b_f"].min() < 1 < 3.5 < values["b_f"].max() <= np.log(49)
    np.testing.assert_array_equal(values["b_i"], -values["b_f"])


def test_what_a_cell_says_takes_the_place_of_the_usual() -> None:
    said = GATES | {"chrono": {"b_f": -1}}
    (usual,) = build(loaded(GATES, **SIZES, init={"b_f": "chrono"})).problem.parameters
    (values,) = build(loaded(said, **SIZES, init={"b_f": "chrono"})).problem.parameters
    np.testing.assert_array_equal(values["b_f"], -usual["b_f"])
    with pytest.raises(SpecError, match=r"set the memory \(b_f\), not for b_i; if b_i is one, the cell block must say"):
        build(loaded(said, **SIZES, init={"b_i": "chrono"}))


def test_other_biases_are_refused_with_what_to_do() -> None:
    with pytest.raises(
        SpecError, match=r"not for b_g; if b_g is one, the cell block must say so: 'chrono: \{b_g: 1\}'"
    ):
        build(loaded(GATES, **SIZES, init={"b_g": "chrono"}))
