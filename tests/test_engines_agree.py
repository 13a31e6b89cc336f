"""Both executors run the same programs: the compiled interpreter and NumPy give the same gradients."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import pytest
from built_in_cells import hidden_size_of, states_without_gradient
from measured import SMALL, loaded, small_batch
from numpy.typing import NDArray
from test_random_cells import SEQ_LEN, Writer

from gradcli import cells
from gradcli.engine import executor
from gradcli.engine.compiled import table
from gradcli.engine.compiled.program import knows
from gradcli.engine.problem import Problem, Run
from gradcli.engine.run import Engine
from gradcli.engine.step.backward import Choices
from gradcli.engine.step_clip import StepClip
from gradcli.errors import UsageError
from gradcli.language.functions import FUNCTIONS
from gradcli.prepare.build import build
from gradcli.sources.input_source import InputSource

pytestmark = pytest.mark.skipif(not table.AVAILABLE, reason="the compiled interpreter was not built")

#: In log10 of norms, in float64.
AGREEMENT = 1e-11
#: Cells whose gradients nearly cancel: cumulated sums of slopes of a softmax, which add up to zero; a norm of few
#: numbers that are nearly the same. Both engines round, one in another order.
MAGNIFYING = {"on-lstm": 1e-9, "ttt-linear": 1e-9}
#: What all input gates share is divided out again by the normaliser, so that the gradient of this bias is rounding.
PARAMETERS_WITHOUT_GRADIENT = dict.fromkeys(("slstm", "slstm-exp"), ("layer0.b_i",))
SIZES: dict[str, Any] = {"hidden_size": 7, "input_size": 5, "seq_len": 60, "batch_size": 3, "trials": 2, "clip": []}


def run_with(monkeypatch: pytest.MonkeyPatch, engine: str, problem: Problem, **options: Any) -> Run:
    """Run a problem by one executor."""
    monkeypatch.setenv(executor.VARIABLE, engine)
    return Engine(problem).run(**options)


def largest_difference(a: Run, b: Run, rounding: Collection[str] = ()) -> float:
    """Return the largest difference of two runs in log10 of a norm; what is zero or infinite is so in both.

    Args:
        rounding: states and parameters whose gradient is zero but for rounding.
    """
    assert a.log2_norm.keys() == b.log2_norm.keys()
    assert a.gradients.keys() == b.gradients.keys()
    assert (a.overflow is None, a.backward_overflow is None) == (b.overflow is None, b.backward_overflow is None)
    pairs = [(a.log2_norm[name], b.log2_norm[name]) for name in a.log2_norm if name not in rounding]
    pairs += [
        (a.gradients[name].log2_norm(), b.gradients[name].log2_norm()) for name in a.gradients if name not in rounding
    ]
    return max((_difference(x, y) for x, y in pairs), default=0.0) * np.log10(2.0)


def _difference(x: NDArray[Any], y: NDArray[Any]) -> float:
    finite = np.isfinite(x)
    assert np.array_equal(x[~finite], y[~finite], equal_nan=True)
    return float(np.abs(x[finite] - y[finite]).max(initial=0.0))


def assert_agree(
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[], Problem],
    within: float = AGREEMENT,
    rounding: Collection[str] = (),
) -> None:
    compiled, plain = (run_with(monkeypatch, name, make()) for name in (executor.COMPILED, executor.NUMPY))
    assert largest_difference(compiled, plain, rounding) < within


def built(cell: Any, **fields: Any) -> Problem:
    sizes = SIZES if isinstance(cell, dict) else {**SIZES, "hidden_size": hidden_size_of(cell, SIZES["hidden_size"])}
    return build(loaded(cell, **{**sizes, **fields})).problem


@pytest.mark.parametrize("trials", [1, 2])
@pytest.mark.parametrize("name", cells.names())
def test_built_in_cells(name: str, trials: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Statistics of a few sequences magnify every rounding, step by step.
    sizes = {} if small_batch(name) == SMALL["batch_size"] else {"batch_size": 12, "seq_len": 12}
    rounding = [*states_without_gradient(name), *PARAMETERS_WITHOUT_GRADIENT.get(name, ())]
    within = MAGNIFYING.get(name, AGREEMENT)
    assert_agree(monkeypatch, lambda: built(name, trials=trials, **sizes), within, rounding)


@pytest.mark.parametrize("name", ["rnn", "lstm", "gru", "layer-norm-lstm", "rnn-lags", "cornn"])
def test_in_float32_they_differ_by_rounding(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_agree(monkeypatch, lambda: built(name, dtype="float32", seq_len=30), within=1e-3)


@pytest.mark.parametrize("sequences", [1, 16])
@pytest.mark.parametrize("name", ["rnn", "lstm", "gru", "rnn-lags", "lstm-peephole"])
def test_long_sequences(name: str, sequences: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Segments are computed again, in stretches.
    assert_agree(monkeypatch, lambda: built(name, seq_len=5000, trials=1, batch_size=sequences))


@pytest.mark.parametrize("number", range(40))
def test_random_cells(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    equations, _ = Writer(random.Random(7000 + number), SIZES["batch_size"]).cell()
    cell = {"equations": equations, "output": "h"}
    assert_agree(monkeypatch, lambda: built(cell, hidden_size=4, input_size=4, seq_len=SEQ_LEN))


@pytest.mark.parametrize(
    "fields",
    [{"num_layers": 3}, {"num_layers": 2, "bidirectional": True}, {"loss": {"kind": "mse", "at": "every"}}],
    ids=str,
)
@pytest.mark.parametrize("name", ["lstm", "layer-norm-lstm", "jordan-rnn"])
def test_layers_directions_and_losses(name: str, fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert_agree(monkeypatch, lambda: built(name, **fields))


@pytest.mark.parametrize("name", ["lstm", "gru", "rnn-lags"])
def test_sequences_of_different_lengths(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(InputSource, "lengths", np.array([60, 7, 31]))
    assert_agree(monkeypatch, lambda: built(name))


@pytest.mark.parametrize("method", ["step_norm", "step_value"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_clipping_inside_the_backward_pass(method: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = [StepClip(method, 1e-4) for _ in range(2)]
    compiled, plain = (
        run_with(monkeypatch, engine, built("lstm", dtype=dtype), step_clip=clip)
        for engine, clip in zip((executor.COMPILED, executor.NUMPY), clips, strict=True)
    )
    assert largest_difference(compiled, plain) < (AGREEMENT if dtype == "float64" else 1e-4)
    assert (clips[0].seen, clips[0].changed) == (clips[1].seen, clips[1].changed)
    assert 0 < clips[0].changed < clips[0].seen


def test_the_environment_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    engines = {}
    for name in (executor.COMPILED, executor.NUMPY):
        monkeypatch.setenv(executor.VARIABLE, name)
        engine = Engine(built("lstm"))
        engine.run()
        engines[name] = engine._group(0).layers[0].loop.engine
    assert engines == {executor.COMPILED: "compiled", executor.NUMPY: "numpy"}


def test_an_engine_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(executor.VARIABLE, "fast")
    with pytest.raises(UsageError, match=r"GRADCLI_ENGINE=fast: no such engine; write compiled or numpy"):
        executor.wanted()
    monkeypatch.setenv(executor.VARIABLE, "compiled")
    monkeypatch.setattr(table, "WHY_NOT", "it was not built, for want of a C compiler")
    with pytest.raises(UsageError, match=r"GRADCLI_ENGINE=compiled: there is none: it was not built.*write numpy"):
        executor.wanted()


def test_everything_that_equations_may_call_is_compiled() -> None:
    """So that a report may say which engine ran by what was chosen."""
    assert FUNCTIONS.keys() - {"identity"} <= set(table.OPERATIONS)
    for name in cells.names():
        plan = built(name).plans[0]
        back = plan.backward(Choices(plan.prefilled, "clip_norm"))
        assert all(knows(part) for part in (plan.forward, back.coefficients, back.step, back.parts.upward)), name
