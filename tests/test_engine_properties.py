"""What must hold of any run: how the work is cut up changes nothing, and backward is the transpose of forward."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from built_in_cells import in_turn, states_without_gradient, without_gradients_of
from engine_runs import ROUNDING, Given, assert_close, problem_of, recorded, vectors_of
from numpy.typing import NDArray
from reference.equations import has_another_slope
from reference.fixture_file import FOLDER, read_fixture

from gradcli import cells
from gradcli.engine import sizes
from gradcli.engine.loss import CrossEntropy, Linear, Loss, SquaredError
from gradcli.engine.problem import Problem
from gradcli.engine.run import Engine
from gradcli.engine.step import rewrite
from gradcli.engine.together import apart, can_join, joined

Tables = list[dict[str, NDArray[Any]]]

STORED = sorted(path.stem for path in FOLDER.glob("*.npz"))
T = 12
LENGTHS = [1, 2, 3, 7, T]
SHORT = [(5, 2), (1, 1), (7, 3)]
#: One of each kind: gates, lags, states that feed each other or only others, layers, hoisted parts, a readout.
VARIED = ["torch-lstm", "torch-gru", "third-order", "delay-line", "readout-state", "normalised-average", "low-rank"]
VARIED += ["layer-norm-gates", "softmax-gate", "norm-as-state", "batch-norm-cascade", "norm-of-norms"]


@cache
def equations_of(name: str) -> str:
    equations: str = read_fixture(FOLDER / f"{name}.npz")[0]["cell"]["equations"]
    return equations


def short_segments() -> Iterator[tuple[str, int, int]]:
    """Yield stored cells with lengths of segment and block: those of the tests with all, built-in ones in turn."""
    of_tests = [name for name in STORED if not name.startswith("zoo-")]
    yield from ((name, *lengths) for name in of_tests for lengths in SHORT)
    yield from ((f"zoo-{name}", *lengths) for name, lengths in in_turn(cells.names(), SHORT))


#: With batch normalisation the sequences of a batch depend on each other.
COUPLED = [name for name in STORED if "batch_norm" in equations_of(name)]
#: How many steps the initial states are away, where of three steps a difference of two losses has too few digits: the
#: gradient of this one falls by two sigmoids a step, to 1e-5 at three.
STEPS_BACK = {"zoo-jordan-rnn": 1}
#: How far to the sides that difference is taken where that is not the usual one: ReBased divides by little at first.
WIDTHS = {"zoo-rebased": 5e-6}


def stored_problem(name: str) -> Problem:
    return problem_of(*read_fixture(FOLDER / f"{name}.npz"))


def assert_same(found: Any, expected: Any, rounding: Sequence[str] = (), within: float = ROUNDING) -> None:
    """Compare all vectors but the gradients of the states that have none but for `rounding`."""
    errors = without_gradients_of(rounding, vectors_of(found).errors(vectors_of(expected)))
    assert {key: error for key, error in errors.items() if not error < within} == {}


# --- how the work is cut up ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VARIED)
@pytest.mark.parametrize("segment", LENGTHS)
def test_neither_segment_nor_block_changes_anything(name: str, segment: int) -> None:
    problem = stored_problem(name)
    whole = recorded(problem, segment=T, block=T)
    for block in LENGTHS:
        assert_same(recorded(problem, segment=segment, block=block), whole)


@pytest.mark.parametrize(("name", "segment", "block"), list(short_segments()))
def test_short_segments_and_blocks_suit_every_cell(name: str, segment: int, block: int) -> None:
    problem = stored_problem(name)
    found = recorded(problem, segment=segment, block=block)
    assert_same(found, recorded(problem), states_without_gradient(name))


@pytest.mark.parametrize("name", ["neighbouring-lags", "second-order", "zoo-rnn-lags"])
def test_products_with_neighbouring_lags_as_one_or_each_by_itself(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = stored_problem(name)
    together = recorded(problem)
    monkeypatch.setattr(rewrite, "_MOST_JOINED", 0)
    apart = stored_problem(name)
    assert_same(recorded(apart), together)
    assert products(problem) < products(apart)


def products(problem: Problem) -> int:
    """Return how many products a step of the lowest layer has, of one trial."""
    return sum(instruction.op == "product" for instruction in problem.plans[0].windowed.forward)


def several_trials(name: str, trials: int = 3) -> Problem:
    """Return the problem of a stored run with further trials, whose numbers are all a little different."""
    spec, stored = read_fixture(FOLDER / f"{name}.npz")
    kept = {key: value for key, value in stored.items() if not key.startswith(("grad_", "log2_"))}
    rng = np.random.default_rng(3)
    for key, value in kept.items():
        copies = np.repeat(value, trials, axis=0)
        kept[key] = copies if value.dtype.kind == "i" else copies + 0.1 * rng.normal(size=copies.shape)
    return problem_of(spec, kept)


def part(problem: Problem, trials: slice, sequences: slice) -> Problem:
    """Return the same problem for some of the trials and sequences alone."""
    source = problem.source
    assert isinstance(source, Given)
    return replace(
        problem,
        parameters=[{name: value[trials] for name, value in table.items()} for table in problem.parameters],
        initial=[{name: value[trials, :, sequences] for name, value in table.items()} for table in problem.initial],
        source=Given(source.x[:, trials, :, sequences]),
        loss=_part_of_loss(problem.loss, trials, sequences),
        trials=len(range(problem.trials)[trials]),
        batch_size=len(range(problem.batch_size)[sequences]),
    )


def _part_of_loss(loss: Loss, trials: slice, sequences: slice) -> Loss:
    steps = loss.steps.tolist()
    match loss:
        case SquaredError():
            return SquaredError(steps, loss.target[:, trials, :, sequences])
        case CrossEntropy():
            return CrossEntropy(steps, loss.target[:, trials, sequences], loss.W_hy[trials], loss.b_y[trials])
        case Linear():
            return Linear(steps, loss.vector[trials])
    raise AssertionError(f"no loss is a {type(loss).__name__}")


@pytest.mark.parametrize("name", [name for name in STORED if name not in COUPLED])
def test_trials_and_sequences_do_not_know_of_each_other(name: str) -> None:
    problem = several_trials(name)
    together = recorded(problem)
    everything = vectors_of(together).table
    summed: dict[tuple[object, ...], NDArray[Any]] = {}
    for trial in range(problem.trials):
        for sequence in range(problem.batch_size):
            alone = vectors_of(recorded(part(problem, slice(trial, trial + 1), slice(sequence, sequence + 1)))).table
            for key, (mantissa, exponent) in alone.items():
                if key[0] == "grad_param":
                    place = (*key[:2], trial)
                    summed[place] = summed.get(place, np.zeros(mantissa.shape)) + np.ldexp(mantissa, exponent)
                    continue
                place = ("loss", trial, sequence) if key[0] == "loss" else (*key[:3], trial, sequence)
                assert_close(everything[place], (mantissa, exponent))
    for place, total in summed.items():
        assert_close(everything[place], (total / problem.batch_size, 0))


@pytest.mark.parametrize("name", COUPLED)
def test_with_batch_normalisation_trials_do_not_know_of_each_other_and_the_order_of_sequences_is_nothing(
    name: str,
) -> None:
    problem = several_trials(name)
    whole = recorded(problem)
    together, last = vectors_of(whole).table, problem.batch_size - 1
    for trial in range(problem.trials):
        alone = vectors_of(recorded(part(problem, slice(trial, trial + 1), slice(None, None, -1)))).table
        for key, value in alone.items():
            place = (*key[:2], trial) if key[0] == "grad_param" else (*key[:-2], trial, last - key[-1])  # type: ignore[operator]
            assert_close(together[place], value)


@pytest.mark.parametrize("name", STORED)
def test_sequences_are_said_to_be_coupled_where_they_are(name: str) -> None:
    assert any(plan.couples_sequences for plan in stored_problem(name).plans) == (name in COUPLED)


@pytest.mark.parametrize("name", VARIED)
@pytest.mark.parametrize("at_once", [1, 2, 3, 5])
def test_trials_may_run_in_any_groups(name: str, at_once: int) -> None:
    problem = several_trials(name, trials=5)
    assert_same(recorded(problem, at_once=at_once), recorded(problem, at_once=5))


@pytest.mark.parametrize("at_once", [1, 2, 5])
def test_progress_runs_once_through_all_that_is_to_do(at_once: int) -> None:
    told: list[tuple[str, int, int]] = []
    engine = Engine(
        several_trials("torch-lstm", trials=5), at_once=at_once, segment=4, progress=lambda *now: told.append(now)
    )
    for work in (engine.run, engine.losses):
        told.clear()
        work()
        for stage in dict.fromkeys(stage for stage, _, _ in told):
            steps = [(done, total) for name, done, total in told if name == stage]
            assert steps == sorted(steps)
            assert steps[-1][0] == steps[-1][1]
        assert len({total for _, _, total in told}) == 1


@pytest.mark.parametrize("name", VARIED)
def test_problems_of_the_same_cell_run_as_one_and_come_apart_again(name: str) -> None:
    problem = several_trials(name, trials=3)
    parts = [part(problem, trials, slice(None)) for trials in (slice(0, 1), slice(1, 3))]
    assert can_join(*parts)
    for run, alone in zip(apart(recorded(joined(parts)), parts), map(recorded, parts), strict=True):
        assert_same(run, alone)


def test_only_problems_of_the_same_cell_sizes_and_loss_run_as_one() -> None:
    lstm = stored_problem("torch-lstm")
    assert can_join(lstm, stored_problem("torch-lstm"))
    assert not can_join(lstm, stored_problem("torch-gru"))
    assert not can_join(lstm, replace(lstm, tied=False))
    assert not can_join(lstm, replace(lstm, seq_len=T - 1))
    assert not can_join(lstm, replace(lstm, dtype=np.dtype(np.float32)))
    assert not can_join(lstm, replace(lstm, loss=Linear([T], np.ones((1, 1)))))
    assert not can_join(lstm, replace(lstm, loss=SquaredError([T - 1], np.zeros((1, 1, 1, 1)))))
    two, three = (
        replace(lstm, loss=CrossEntropy([T], np.zeros((1, 1, 1), int), np.ones((1, n, 1)), np.ones((1, n))))
        for n in (2, 3)
    )
    assert can_join(two, two)
    assert not can_join(two, three)


def test_problems_built_with_more_or_less_memory_free_run_as_one_in_the_least() -> None:
    lstm = stored_problem("torch-lstm")
    parts = [replace(lstm, tape_bytes=free) for free in (3000, 1000, 2000)]
    assert can_join(*parts[:2])
    assert joined(parts).tape_bytes == 1000


def long_problem(name: str, seq_len: int) -> Problem:
    """Return the problem of a stored run, its input gone through again and again."""
    problem = stored_problem(name)
    source = problem.source
    assert isinstance(source, Given)
    x = np.resize(source.x, (seq_len, *source.x.shape[1:]))
    output = problem.plans[-1].cell.shapes.states[problem.plans[-1].cell.output]
    return replace(problem, source=Given(x), seq_len=seq_len, loss=Linear([seq_len], np.ones((problem.trials, output))))


@pytest.mark.parametrize("name", VARIED)
def test_a_tape_filled_by_copies_is_the_same_as_one_written_at_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = long_problem(name, seq_len=300)
    copied = recorded(problem)
    for segment in (7, 64, 150, 299):
        assert_same(recorded(problem, segment=segment), copied)
    monkeypatch.setattr(sizes, "_COPIED_STEP_BYTES", -1)
    assert_same(recorded(problem), copied)


def test_a_chaotic_cell_is_computed_again_along_the_trajectory_that_it_took() -> None:
    """Every rounding grows by e^0.5 a step here: what is summed in another order ends elsewhere after 60 steps."""
    size, steps = 48, 2048
    rng = np.random.default_rng(5)
    spec = {
        "cell": {"equations": "h[t] = tanh(W @ h[t-1])"},
        "hidden_size": size,
        "seq_len": steps,
        "loss": {"kind": "sum", "at": "last"},
    }
    start = {
        "x": np.zeros((1, steps, 1, 1)),
        "param.layer0.W": 5.0 / np.sqrt(size) * rng.standard_normal((1, size, size)),
        "state.layer0.h": np.repeat(rng.standard_normal((1, 1, 1, size)), steps + 1, axis=1),
    }
    whole = Engine(problem_of(spec, start)).run().log2_norm["layer0.h"]
    assert whole[0, 0, 0] > 300
    segmented = Engine(problem_of(spec, start), segment=1024).run().log2_norm["layer0.h"]
    np.testing.assert_allclose(segmented, whole, rtol=1e-12, atol=1e-9)


def test_in_float32_a_state_far_below_its_neighbour_does_not_vanish() -> None:
    # dL/ds is 1e-24 dL/dh at every distance, and both fall by half a step through the whole range of float32.
    spec = {
        "cell": {
            "equations": "h[t] = 0.5 * h[t-1] + 1e-24 * s[t-1]\ns[t] = 0.5 * s[t-1] + 1e-24 * h[t-1]",
            "output": "h",
        },
        "hidden_size": 1,
        "seq_len": 300,
        "loss": {"kind": "sum", "at": "last"},
    }
    zeros = np.zeros((1, 301, 1, 1))
    problem = problem_of(spec, {"x": zeros[:, 1:], "state.layer0.h": zeros, "state.layer0.s": zeros})
    problem = replace(problem, dtype=np.dtype(np.float32))
    run = Engine(problem).run()
    distance = np.arange(300, 0, -1)
    expected = -(distance - 1.0) + np.log2(1e-24) + np.log2(distance)
    np.testing.assert_allclose(run.log2_norm["layer0.s"].ravel()[:-1], expected, atol=1e-4)


# --- the transpose ---------------------------------------------------------------------------------------------------


def loss_at(problem: Problem) -> float:
    losses, overflow = Engine(problem).losses()
    assert overflow is None
    return float(losses.mean())


def moved(problem: Problem, field: str, direction: Tables, step: float) -> Problem:
    """Return the problem with its parameters or initial states moved along a direction."""
    tables = [
        {name: value + step * towards[name] for name, value in table.items()}
        for table, towards in zip(getattr(problem, field), direction, strict=True)
    ]
    return replace(problem, parameters=tables) if field == "parameters" else replace(problem, initial=tables)


@pytest.mark.parametrize("field", ["parameters", "initial"])
@pytest.mark.parametrize("name", [name for name in STORED if not has_another_slope(equations_of(name))])
def test_backward_is_the_transpose_of_forward(name: str, field: str) -> None:
    """<J' u, v> = <u, J v>, with v a direction of all parameters, or of all initial states some steps back.

    It is not where a spike has the slope of its surrogate, and `stop` none: these are held against PyTorch.
    """
    problem = stored_problem(name)
    rng = np.random.default_rng(5)
    if field == "initial":  # further back the gradient may be lost in the rounding of a difference of two losses
        plan = problem.plans[-1]
        u = rng.normal(size=(problem.trials, plan.cell.shapes.states[plan.cell.output]))
        steps = STEPS_BACK.get(name, 3)
        problem = replace(problem, seq_len=steps, loss=Linear([steps], u))
    tables = getattr(problem, field)
    if not any(tables):
        pytest.skip("the cell has no parameters")
    direction = [{name: rng.normal(size=value.shape) for name, value in table.items()} for table in tables]
    run = recorded(problem)
    assert run.recording is not None
    product = 0.0
    for i, table in enumerate(direction):
        for key, towards in table.items():
            if field == "parameters":
                gradient = run.gradients[f"layer{i}.{key}"].value()
            else:
                exponent = run.recording.exponents[f"layer{i}.{key}"][0][:, None, :]
                gradient = np.ldexp(run.recording.adjoints[f"layer{i}.{key}"][0], exponent) / problem.batch_size
            product += float((gradient * towards).sum())

    def slope(width: float) -> float:
        ahead, behind = (moved(problem, field, direction, sign * width) for sign in (1, -1))
        return (loss_at(ahead) - loss_at(behind)) / (2 * width)

    # Extrapolated: what is left is of the fourth order in the step, which is short because some cells have kinks. The
    # outputs of two sequences that are normalised together may cancel, and the slope is nothing but rounding.
    step, rounding = WIDTHS.get(name, 2e-5), 1e-11 if name in COUPLED else None
    assert product == pytest.approx((4 * slope(step) - slope(2 * step)) / 3, rel=1e-7, abs=rounding)
