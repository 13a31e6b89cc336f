"""What must hold of any run: how the work is cut up changes nothing, and the backward pass is the transpose of the forward one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_runs import Given, problem_of, recorded, vectors_of
from numpy.typing import NDArray
from reference.fixture_file import FOLDER, read_fixture
from simulated import ONE_SEQUENCE, Simulated, simulate

from gradcli.engine.loss import CrossEntropy, Linear, Loss, SquaredError
from gradcli.engine.run import Engine, Problem

ROUNDING = 1e-11
STORED = sorted(path.stem for path in FOLDER.glob("*.npz"))
T = 12
LENGTHS = [1, 2, 3, 7, T]
#: One of each kind: gates, lags, states that feed each other or only others, layers, hoisted parts, a readout.
VARIED = ["torch-lstm", "torch-gru", "third-order", "delay-line", "readout-state", "normalised-average", "low-rank"]


def stored_problem(name: str) -> Problem:
    return problem_of(*read_fixture(FOLDER / f"{name}.npz"))


def assert_same(found: Any, expected: Any) -> None:
    errors = vectors_of(found).errors(vectors_of(expected))
    assert {key: error for key, error in errors.items() if not error < ROUNDING} == {}


# --- how the work is cut up --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VARIED)
@pytest.mark.parametrize("segment", LENGTHS)
def test_neither_segment_nor_block_changes_anything(name: str, segment: int) -> None:
    problem = stored_problem(name)
    whole = recorded(problem, segment=T, block=T)
    for block in LENGTHS:
        assert_same(recorded(problem, segment=segment, block=block), whole)


@pytest.mark.parametrize("name", STORED)
@pytest.mark.parametrize(("segment", "block"), [(5, 2), (7, 3), (1, 1)])
def test_short_segments_and_blocks_suit_every_cell(name: str, segment: int, block: int) -> None:
    problem = stored_problem(name)
    assert_same(recorded(problem, segment=segment, block=block), recorded(problem))


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


@pytest.mark.parametrize("name", STORED)
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


def assert_close(found: tuple[NDArray[Any], int], expected: tuple[NDArray[Any], int]) -> None:
    """Compare two vectors in norm, relatively."""
    mantissa = np.ldexp(found[0], found[1] - expected[1])
    assert np.linalg.norm(mantissa - expected[0]) <= ROUNDING * np.linalg.norm(expected[0])


def test_a_block_in_which_gradients_leave_the_range_is_halved_until_it_fits() -> None:
    spec = {
        "cell": {"equations": "s[t] = 1e-60 * s[t-1]\nh[t] = 1e60 * h[t-1] + s[t-1]"},
        "hidden_size": 1,
        "seq_len": 40,
        "loss": {"kind": "sum", "at": "last"},
    }
    shape = (1, 41, 1, 1)
    start = {"x": np.zeros((1, 40, 1, 1)), "state.layer0.s": np.zeros(shape), "state.layer0.h": np.zeros(shape)}
    run = Engine(problem_of(spec, start), block=40).run()
    distance = np.arange(40, -1, -1)
    np.testing.assert_allclose(run.log2_norm["layer0.h"].ravel(), distance * np.log2(1e60), rtol=1e-14)


# --- the transpose -----------------------------------------------------------------------------------------------------


def loss_at(problem: Problem) -> float:
    losses, overflow = Engine(problem).losses()
    assert overflow is None
    return float(losses.mean())


def moved(problem: Problem, direction: Mapping[str, list[dict[str, NDArray[Any]]]], step: float) -> Problem:
    """Return the problem with its parameters and initial states moved along a direction."""
    return replace(
        problem,
        **{
            field: [
                {name: value + step * towards[name] for name, value in table.items()}
                for table, towards in zip(getattr(problem, field), tables, strict=True)
            ]
            for field, tables in direction.items()
        },
    )


@pytest.mark.parametrize("field", ["parameters", "initial"])
@pytest.mark.parametrize("name", STORED)
def test_backward_is_the_transpose_of_forward(name: str, field: str) -> None:
    """<J' u, v> = <u, J v>, with v a direction of all parameters, or of all initial states three steps back."""
    problem = stored_problem(name)
    rng = np.random.default_rng(5)
    if field == "initial":  # further back the gradient may be lost in the rounding of a difference of two losses
        plan = problem.plans[-1]
        u = rng.normal(size=(problem.trials, plan.cell.shapes.states[plan.cell.output]))
        problem = replace(problem, seq_len=3, loss=Linear([3], u))
    tables = getattr(problem, field)
    if not any(tables):
        pytest.skip("the cell has no parameters")
    direction = {field: [{name: rng.normal(size=value.shape) for name, value in table.items()} for table in tables]}
    run = recorded(problem)
    assert run.recording is not None
    product = 0.0
    for i, table in enumerate(direction[field]):
        for key, towards in table.items():
            if field == "parameters":
                gradient = run.gradients[f"layer{i}.{key}"].value()
            else:
                exponent = run.recording.exponents[f"layer{i}.{key}"][0][:, None, :]
                gradient = np.ldexp(run.recording.adjoints[f"layer{i}.{key}"][0], exponent) / problem.batch_size
            product += float((gradient * towards).sum())

    def slope(width: float) -> float:
        ahead, behind = (moved(problem, direction, sign * width) for sign in (1, -1))
        return (loss_at(ahead) - loss_at(behind)) / (2 * width)

    # Extrapolated: the error that is left is of the fourth order in the step, which is short because some cells have kinks.
    step = 2e-5
    assert product == pytest.approx((4 * slope(step) - slope(2 * step)) / 3, rel=1e-7)


# --- clipping, against PyTorch -----------------------------------------------------------------------------------------

CLIPPED_CELLS = ["torch-lstm", "torch-gru", "second-order"]


@pytest.mark.parametrize("threshold", [0.05, 1.0])
@pytest.mark.parametrize("method", ["step_value", "step_norm"])
@pytest.mark.parametrize("name", CLIPPED_CELLS)
def test_clipping_inside_is_what_hooks_on_every_state_do(name: str, method: str, threshold: float) -> None:
    torch = pytest.importorskip("torch")
    from reference.compare_run import redo

    from gradcli.diagnostics.clipping import StepClipper

    def clip(gradient: Any) -> Any:  # (size, batch)
        if method == "step_value":
            return gradient.clamp(-threshold, threshold)
        norm = torch.linalg.vector_norm(gradient, dim=0, keepdim=True)
        return gradient * torch.clamp(threshold / norm, max=1.0)

    spec, stored = read_fixture(FOLDER / f"{name}.npz")
    expected = redo({key: value[0] for key, value in stored.items()}, spec, spec["cell"], on_state_gradient=clip)
    problem = problem_of(spec, stored)
    clipper = StepClipper(method, threshold, problem.trials, problem.batch_size)
    run = Engine(problem, block=5).run(record=True, step_clip=clipper)
    assert 0 < clipper.changed <= clipper.seen
    assert run.recording is not None
    for key, gradients in expected.grad_states.items():
        exponents = run.recording.exponents[key][:, 0, None, :]
        found = np.ldexp(run.recording.adjoints[key][:, 0], exponents).transpose(0, 2, 1)
        assert_close((found, 0), (gradients, 0))
        for step in np.ndindex(gradients.shape[:2]):
            assert_close((found[step], 0), (gradients[step], 0))
    for key, gradient in expected.grad_params.items():
        assert_close((run.gradients[key].value()[0], 0), (gradient, 0))


@pytest.mark.parametrize("method", ["step_value", "step_norm"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (3, 1), (2, 3)], ids=str)
def test_clipping_inside_does_the_same_for_any_number_of_trials_and_sequences(
    method: str, shape: tuple[int, int], tmp_path: Path
) -> None:
    spec = {"cell": "lstm", "hidden_size": 6, "input_size": 3, "seq_len": 20, "clip": [{method: 0.02}]}
    many = simulate({**spec, "trials": shape[0], "batch_size": shape[1]}, tmp_path)
    curve = many.report["clip"][0]["curve"]["log10_norm"]
    assert 0 < many.report["clip"][0]["fraction_clipped"] < 1
    limit = np.log10(0.02 * np.sqrt(2 * (6 if method == "step_value" else 1)))  # the states h and c, joined
    assert max(curve) <= limit + 1e-12
    assert np.all(np.array(curve) <= many.curve() + 1e-12)


@pytest.mark.parametrize(
    "loss", [{"kind": "mse", "at": "every"}, {"kind": "cross_entropy", "at": "last", "classes": 3}]
)
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn-lags"])
def test_clipping_after_and_the_step_are_those_of_torch(cell: str, loss: dict[str, Any], tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    import yaml
    from reference.compare_run import redo

    from gradcli import cells

    rate, norm, value = 0.5, 0.2, 0.01
    spec = {
        "cell": cell,
        "hidden_size": 5,
        "input_size": 3,
        "seq_len": 10,
        "batch_size": 4,
        "trials": 1,
        "loss": loss,
        "learning_rate": rate,
        "clip": [{"norm": norm}, {"value": value}],
    }
    simulated = simulate(spec, tmp_path, save=True)
    block = yaml.safe_load((Path(cells.__file__).parent / f"{cell}.yaml").read_text(encoding="utf-8"))
    saved = {key: array[0] for key, array in simulated.arrays.items() if key != "at"}
    names = [key.removeprefix("param.") for key in saved if key.startswith("param.")]
    gradients = redo(saved, simulated.report["spec"], block).grad_params

    def leaves() -> list[Any]:
        found = [torch.tensor(saved[f"param.{name}"], requires_grad=True) for name in names]
        for name, leaf in zip(names, found, strict=True):
            leaf.grad = torch.tensor(gradients[name])
        return found

    def together(parameters: list[Any]) -> Any:
        return torch.cat([parameter.grad.ravel() for parameter in parameters])

    def loss_after_step(parameters: list[Any]) -> float:
        torch.optim.SGD(parameters, lr=rate).step()
        stepped = {f"param.{name}": leaf.detach().numpy() for name, leaf in zip(names, parameters, strict=True)}
        return float(redo({**saved, **stepped}, simulated.report["spec"], block).losses.mean())

    plain, by_norm, by_value = leaves(), leaves(), leaves()
    torch.nn.utils.clip_grad_norm_(by_norm, norm)
    torch.nn.utils.clip_grad_value_(by_value, value)
    whole = together(plain)
    for row, parameters, tolerance in zip(
        simulated.report["clip"], (by_norm, by_value), (1e-5, ROUNDING), strict=True
    ):  # clip_grad_norm_ divides by the norm plus 1e-6
        clipped = together(parameters)
        assert 0 < row["fraction_clipped"] <= 1
        assert 10 ** row["log10_norm_before"] == pytest.approx(float(whole.norm()), rel=ROUNDING)
        assert 10 ** row["log10_norm_after"] == pytest.approx(float(clipped.norm()), rel=tolerance)
        assert row["scale"] == pytest.approx(float(clipped.norm() / whole.norm()), rel=tolerance)
        assert row["cosine"] == pytest.approx(float(whole @ clipped / whole.norm() / clipped.norm()), rel=ROUNDING)
        assert row["loss_before"] == pytest.approx(float(saved["loss"].mean()), rel=ROUNDING)
        assert row["loss_after_clipped"] == pytest.approx(loss_after_step(parameters), rel=tolerance)
        assert row["loss_after_unclipped"] == pytest.approx(loss_after_step(leaves()), rel=ROUNDING)
    entries = int((whole.abs() > value).sum())
    assert simulated.report["clip"][1]["fraction_clipped"] == pytest.approx(entries / len(whole), rel=ROUNDING)


# --- what is drawn -----------------------------------------------------------------------------------------------------

DRAWN = {
    "cell": {"equations": "h[t] = tanh(W_xh @ x[t] + W_hh @ h[t-1] + b_h)"},
    "hidden_size": 4,
    "input_size": 3,
    "seq_len": 6,
    "batch_size": 2,
    "trials": 2,
    "seed": 11,
    "h_0": {"normal": {"std": 1.0}},
    "loss": {"kind": "mse", "at": "every"},
}


def drawn(folder: Path, **changes: Any) -> Simulated:
    return simulate({**DRAWN, **changes}, folder, save=True)


def assert_drawn_alike(found: Simulated, expected: Simulated) -> None:
    """Compare all that is drawn, bit for bit, in the trials, steps and sequences that both runs have."""
    for name in ("x", "target", "param.layer0.W_xh", "param.layer0.W_hh", "param.layer0.b_h", "state.layer0.h"):
        mine, theirs = found.arrays[name], expected.arrays[name]
        if name == "state.layer0.h":
            mine, theirs = mine[:, 0], theirs[:, 0]
        common = tuple(slice(min(sizes)) for sizes in zip(mine.shape, theirs.shape, strict=True))
        np.testing.assert_array_equal(mine[common], theirs[common], err_msg=name)


@pytest.mark.parametrize(
    "changes",
    [
        {"seq_len": 3000},
        {"trials": 5},
        {"cell": {"equations": "h[t] = tanh(W_xh @ x[t] + A @ h[t-1] + W_hh @ h[t-1] + b_h + p)"}},
        {"cell": {"equations": "h[t] = sigmoid(b_h + W_hh @ h[t-1] + W_xh @ x[t])\nz[t] = 0.5 * z[t-1] + q * h[t]"}},
        {"num_layers": 2},
        {"clip": [{"step_norm": 0.1}], "learning_rate": 1.0},
        {"init": {"b_h": 0.0}, "params": {"b_h": 0.25}},
    ],
    ids=lambda changes: ", ".join(changes),
)
def test_a_change_elsewhere_leaves_what_is_drawn_alone(changes: dict[str, Any], tmp_path: Path) -> None:
    expected, found = drawn(tmp_path), drawn(tmp_path, **changes)
    if "params" in changes:
        assert np.all(found.arrays["param.layer0.b_h"] == 0.25)
        found.arrays["param.layer0.b_h"] = expected.arrays["param.layer0.b_h"]
    assert_drawn_alike(found, expected)


def test_another_seed_changes_everything_that_is_drawn(tmp_path: Path) -> None:
    one, other = drawn(tmp_path), drawn(tmp_path, seed=12)
    for name in ("x", "target", "param.layer0.W_xh", "param.layer0.W_hh", "param.layer0.b_h"):
        assert not np.any(one.arrays[name] == other.arrays[name]), name


def test_the_same_command_gives_the_same_numbers(tmp_path: Path) -> None:
    one, other = drawn(tmp_path), drawn(tmp_path)
    assert one.report == other.report
    assert one.arrays.keys() == other.arrays.keys()
    for name, array in one.arrays.items():
        np.testing.assert_array_equal(array, other.arrays[name], err_msg=name)


def test_float32_follows_float64(tmp_path: Path) -> None:
    spec = {"hidden_size": 8, "input_size": 4, "seq_len": 100, **ONE_SEQUENCE}
    for cell in ("rnn", "lstm", "gru"):
        exact, rounded = (
            simulate({"cell": cell, "dtype": dtype, **spec}, tmp_path) for dtype in ("float64", "float32")
        )
        assert np.max(np.abs(rounded.curve() - exact.curve())) < 1e-4 / np.log(10)
