"""Terms of products: what is found without making them, against the terms themselves."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from built_in_cells import in_turn
from measured import SMALL, loaded, small
from numpy.typing import NDArray

from gradcli import cells
from gradcli.diagnostics import term_sums
from gradcli.diagnostics.contributions import Contributions, measure_contributions
from gradcli.diagnostics.term_sums import Sums, TermsOfProducts, sums_of_terms
from gradcli.engine.backward import BackwardPass, Products
from gradcli.engine.run import Engine
from gradcli.engine.scaled import Scaled
from gradcli.prepare.build import build

Array = NDArray[Any]
FIELDS = ("log10_norm", "log10_relative", "share", "kept", "norm_kept", "cosine", "bias")


def taken_apart(monkeypatch: pytest.MonkeyPatch, *, made: bool, **fields: Any) -> Contributions:
    with monkeypatch.context() as patch:
        if made:
            patch.setattr(term_sums, "factors_of", lambda plan: [])
        return measure_contributions(build(loaded(**fields)), 0)


@pytest.mark.parametrize(("name", "dtype"), in_turn(cells.names(), ["float64", "float32"]))
def test_every_cell_has_the_terms_that_are_made(name: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = small(name, seq_len=140, cell=name, dtype=dtype)
    expected, found = (taken_apart(monkeypatch, made=made, **fields) for made in (True, False))
    assert expected.parameters is not None
    assert found.parameters is not None
    digits = 1e-9 if dtype == "float64" else 2e-3
    for parameter, terms in expected.parameters.items():
        for field in FIELDS:
            values, of_made = getattr(found.parameters[parameter], field), getattr(terms, field)
            # Windows may be many times larger than the whole gradient, which then has fewer digits.
            rounding = 0.1 * digits * max(1.0, 0.1 * np.abs(of_made[np.isfinite(of_made)]).max(initial=0.0))
            np.testing.assert_allclose(values, of_made, rtol=digits, atol=rounding, err_msg=f"{parameter} {field}")


@pytest.mark.parametrize(("name", "count"), [("lstm", 12), ("gru", 10), ("rnn", 3)])
def test_no_term_of_a_plain_cell_is_made(name: str, count: int) -> None:
    backward, whole = pass_of(name)
    assert len(TermsOfProducts(backward, whole, 1, 1).names) == len(whole) == count


@pytest.mark.parametrize(
    ("equations", "plain"),
    [
        ("h[t] = tanh(W @ h[t-1] + V @ x[t] + b + c)", {"W", "V", "b", "c"}),
        ("h[t] = tanh(W @ h[t-1] - V @ x[t] - b)", {"W", "V", "b"}),
        ("h[t] = tanh(W @ h[t-1] + W.T @ h[t-1] + V @ x[t] + b)", {"V", "b"}),
        ("h[t] = tanh(W @ h[t-1] + V @ x[t] + b) + b", {"W", "V"}),
        ("h[t] = tanh(W @ h[t-1] + V @ x[t] * k + b)", {"W"}),
        ("h[t] = tanh(2 * W @ h[t-1] + a * h[t-1] + b)", {"a", "b"}),
    ],
)
def test_a_parameter_that_is_used_otherwise_has_its_terms_made(
    equations: str, plain: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = {"name": "own", "equations": equations}
    backward, whole = pass_of(cell)
    assert TermsOfProducts(backward, whole, 1, 1).names == plain
    expected, found = (taken_apart(monkeypatch, made=made, cell=cell, **SMALL) for made in (True, False))
    assert expected.joint is not None
    assert found.joint is not None
    assert found.joint.bias == pytest.approx(expected.joint.bias, rel=1e-9, abs=1e-12)
    assert found.joint.log10_norm == pytest.approx(expected.joint.log10_norm, rel=1e-10)


def pass_of(cell: Any, **fields: Any) -> tuple[BackwardPass, dict[str, Scaled]]:
    """Return a backward pass over a layer, and gradients of its parameters."""
    engine = Engine(build(loaded(cell, **{**SMALL, **fields})).problem)
    ((_, group),) = engine.groups()
    gradients = engine.run().gradients
    return group.passes(parameters=True)[0], {n.removeprefix("layer0."): g for n, g in gradients.items() if "0." in n}


# --- random numbers --------------------------------------------------------------------------------------------------

STEPS, TRIALS, BATCH = 90, 2, 3


class Numbers:
    """Adjoints of an LSTM's products and the vectors of them, at random; a case changes them."""

    def __init__(self) -> None:
        self.backward, _ = pass_of("lstm", trials=TRIALS, batch_size=BATCH)
        self.weights = self.backward.weights[0]
        random = np.random.default_rng(7)
        rows = sum(self.weights.factors.heights)
        self.lanes = random.normal(size=(STEPS, TRIALS, rows, BATCH))
        self.exponent = np.full((TRIALS, BATCH), -40)
        sizes = [self.backward.plan.size(node) for node in self.weights.factors.vectors]
        self.vectors = [random.normal(size=(STEPS, TRIALS, size, BATCH)) for size in sizes]
        self.change: Array = random.normal(size=self.lanes.shape)

    def terms(self) -> dict[str, Scaled]:
        """Return the terms themselves, (n, R, rows, columns)."""
        return {node.data: g for node, g in self.weights.of_steps(self.lanes, self.exponent, self.vectors)}


def plain(numbers: Numbers) -> None:
    pass


def powers_of_two(numbers: Numbers) -> None:
    numbers.exponent = np.array([[-5000, -5003, -5001], [4000, 4000, 4001]])


def zeros(numbers: Numbers) -> None:
    numbers.lanes[[3, 40, 41]] = 0.0
    numbers.vectors[0][0] = 0.0
    numbers.vectors[1][50:55, 1] = 0.0


def nothing_but_zeros(numbers: Numbers) -> None:
    numbers.lanes[:] = 0.0


def a_small_sequence_behind_a_zero(numbers: Numbers) -> None:
    numbers.exponent = np.array([[0, -2000, -2000], [0, 0, 0]])
    numbers.vectors[0][20:30, :, :, 0] = 0.0


def falling_fast(numbers: Numbers) -> None:
    numbers.lanes *= 2.0 ** (-10.0 * np.arange(STEPS))[:, None, None, None]


def growing_fast(numbers: Numbers) -> None:
    numbers.lanes *= 2.0 ** (8.0 * np.arange(STEPS))[:, None, None, None]


def tiny_vectors(numbers: Numbers) -> None:
    numbers.vectors[0][10:] *= 2.0**-600
    numbers.vectors[0][::7] *= 2.0**-532  # their squares have a few digits
    numbers.vectors[1] *= 2.0**-900


def sequences_that_cancel(numbers: Numbers) -> None:
    numbers.vectors[0][..., 1] = numbers.vectors[0][..., 0]
    numbers.lanes[..., 1] = -numbers.lanes[..., 0] * (1 + 2.0**-20)
    numbers.lanes[..., 2] *= 2.0**-30


def sequences_that_cancel_at_some_steps(numbers: Numbers) -> None:
    some = slice(35, 40)
    numbers.vectors[0][some, ..., 1] = numbers.vectors[0][some, ..., 0]
    numbers.lanes[some, ..., 1] = -numbers.lanes[some, ..., 0] * (1 + 2.0**-20)
    numbers.lanes[some, ..., 2] *= 2.0**-30


def steps_that_cancel(numbers: Numbers) -> None:
    odd = slice(1, STEPS, 2)
    even = slice(0, STEPS - STEPS % 2, 2)
    numbers.lanes[odd] = -numbers.lanes[even] + 2.0**-30 * numbers.change[even]
    for vector in numbers.vectors:
        vector[odd] = vector[even]


def a_sum_of_nearly_nothing(numbers: Numbers) -> None:
    half = STEPS // 2
    numbers.lanes[half : 2 * half] = -numbers.lanes[:half] + 2.0**-40 * numbers.change[:half]
    for vector in numbers.vectors:
        vector[half : 2 * half] = vector[:half]


CASES = [
    plain,
    powers_of_two,
    zeros,
    nothing_but_zeros,
    a_small_sequence_behind_a_zero,
    falling_fast,
    growing_fast,
    tiny_vectors,
    sequences_that_cancel,
    sequences_that_cancel_at_some_steps,
    steps_that_cancel,
    a_sum_of_nearly_nothing,
]


@pytest.mark.parametrize("columns", [1, 12, 96])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_random_numbers(case: Any, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(term_sums, "_COLUMNS", columns)
    numbers = Numbers()
    case(numbers)
    terms = numbers.terms()
    whole = {name: summed(term) for name, term in terms.items()}
    found = {name: Sums.of_size(TRIALS, STEPS) for name in whole}
    products = TermsOfProducts(numbers.backward, whole, STEPS, 1)
    assert products.names == set(whole)
    for first, last in ((60, STEPS), (0, 60)):  # two blocks
        part = slice(first, last)
        made = Products(numbers.lanes[part], numbers.exponent, [v[part] for v in numbers.vectors])
        block: Any = SimpleNamespace(steps=(first, last))
        monkeypatch.setattr(numbers.backward, "products", lambda block, found, made=made: [made])
        products.add(numbers.backward, block, STEPS - last)
    products.put(found, slice(TRIALS))
    for name, term in terms.items():
        window = np.zeros((TRIALS, whole[name].mantissa[0].size))
        with np.errstate(all="ignore"):
            expected = sums_of_terms(term, whole[name], window)
        sums = found[name]
        squared = np.square(whole[name].mantissa).sum(axis=(1, 2))
        scale = np.where(squared > 0, squared, 1.0)
        np.testing.assert_allclose(sums.log2_norm, expected[0], rtol=1e-12, atol=1e-9, err_msg=name)
        largest = np.sqrt(scale * np.maximum(expected[2], expected[3]).max(axis=0))
        assert (np.abs(sums.dot - expected[1]) <= 1e-11 * (largest + scale)).all(), name
        for square, of_terms in ((sums.kept, expected[2]), (sums.missing[:-1], expected[3][:-1])):
            # What is missing is known to the rounding of the sum of the largest windows.
            noise = 1e-14 * np.sqrt(expected[2].max(axis=0))
            np.testing.assert_allclose(np.sqrt(square), np.sqrt(of_terms), rtol=1e-9, atol=noise.max(), err_msg=name)


def summed(terms: Scaled) -> Scaled:
    """Return the sum over steps, (R, rows, columns)."""
    total = Scaled(terms.mantissa[0], terms.exponent[0])
    for mantissa, exponent in zip(terms.mantissa[1:], terms.exponent[1:], strict=True):
        total = total.add(Scaled(mantissa, exponent))
    return total.normalised()
