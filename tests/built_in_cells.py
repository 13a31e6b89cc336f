"""One layer of a built-in cell, run by the engine on given numbers, and its Jacobian over some steps."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from gradcli import cells
from gradcli.engine.loss import Linear, Loss
from gradcli.engine.problem import Problem, Run
from gradcli.engine.run import Engine
from gradcli.engine.step.plan import LayerPlan
from gradcli.language.cell import ParsedCell, SizedCell, parse_cell
from gradcli.language.sizes import HIDDEN, INPUT, size_at
from gradcli.spec.constants import Constants, constants_of

Array = NDArray[np.float64]
Key = tuple[object, ...]
T = TypeVar("T")

HIDDEN_SIZE, INPUT_SIZE = 5, 3

#: Cells that span the kinds there are: plain, gated, normalised, linear, in depth; one state or several, numbers,
#: vectors and matrices; lags and earlier inputs, slices and concatenations; spikes, constants that are vectors,
#: parameters that are not trained. What tries each cell in many settings takes these in all of them, and every other
#: cell in one (`in_turn`): a cell more costs one run more, and what goes wrong goes wrong in a kind of cell.
SPANNING = (
    *("rnn", "rnn-lags", "indrnn", "clockwork-rnn", "esn"),
    *("lstm", "lstm-peephole", "slstm", "nru", "gru", "gru-textbook", "skip-gru"),
    *("batch-norm-lstm", "layer-norm-lstm", "mingru", "lru", "typed-gru", "lem", "ltc"),
    *("lmu", "s5", "mamba", "matrix-lstm", "rwkv-6", "gated-deltanet", "srwm", "lif", "residual-stack"),
)

#: States whose gradient is 0 but for rounding, once the other states follow them (see test_zoo_by_hand.py).
WITHOUT_GRADIENT = dict.fromkeys(("abc", "matrix-lstm", "matrix-lstm-exp", "slstm", "slstm-exp"), "m")


#: Laws of initial states of which not every number makes sense: a phase is from 0 to 1, and D of the mesa layer is part
#: of an inverse.
STARTS: dict[str, Any] = {"clock": "zeros", "D": "zeros"}


def random_starts(states: Iterable[str], std: float = 0.5) -> dict[str, Any]:
    """Return initial states at random, as fields of a spec: h_0, c_0, ..."""
    return {f"{state}_0": STARTS.get(state, {"normal": {"std": std}}) for state in states}


def in_turn(names: Iterable[str], settings: Sequence[T]) -> list[tuple[str, T]]:
    """Return names of cells with settings: the `SPANNING` ones with each, every other with one, in turn."""
    others = itertools.cycle(settings)
    return [(name, setting) for name in names for setting in (settings if name in SPANNING else [next(others)])]


def states_without_gradient(name: str) -> list[str]:
    """Return those of the states of a stored run, such as zoo-slstm, by full name."""
    state = WITHOUT_GRADIENT.get(name.removeprefix("zoo-"))
    return [f"layer0.{state}"] if state else []


def without_gradients_of(states: Sequence[str], errors: Mapping[Key, float]) -> dict[Key, float]:
    """Return the errors of vectors without those of the gradients of some states: both would be rounding."""
    return {key: error for key, error in errors.items() if key[0] not in ("grad_state", "norm") or key[1] not in states}


def constants(name: str) -> Constants:
    """Return the constants of a built-in cell: numbers, and arrays, which are parameters that no training changes."""
    return constants_of(cells.load(name).cell, {})


def hidden_size_of(name: str, at_least: int = HIDDEN_SIZE) -> int:
    """Return the next larger size at which a cell can be: one of hidden_size / 4 is whole at some only."""
    sizes = [size for shape in cells.load(name).cell.shapes.values() for size in shape]
    return next(size for size in itertools.count(at_least) if all(_is_whole(each, size) for each in sizes))


def _is_whole(size: int | str, hidden_size: int) -> bool:
    try:
        return size_at(size, {HIDDEN: hidden_size, INPUT: INPUT_SIZE}) > 0
    except ValueError:
        return False


def parsed(name: str, *, output: str | None = None, activation: str | None = None) -> ParsedCell:
    block, known = cells.load(name).cell, constants(name)
    return parse_cell(
        block.equations,
        output=output or block.output,
        constants=known.numbers,
        shapes=block.shapes,
        arrays=known.sizes,
        fixed=known.fixed,
        activation=activation or block.activation,
    )


def at_sizes(name: str, hidden_size: int | None = None) -> SizedCell:
    """Return a built-in cell at a size that suits it, or at this one."""
    return parsed(name).at_sizes(hidden_size or hidden_size_of(name), INPUT_SIZE)


def drawn(name: str, rng: np.random.Generator, std: float, *, hidden_size: int, input_size: int) -> dict[str, Array]:
    """Return a cell's parameters, all of them normal; constants that are arrays with their own values."""
    shapes = parsed(name).at_sizes(hidden_size, input_size).shapes.parameters
    arrays = {
        key: np.broadcast_to(np.asarray(value, float), shapes[key]) for key, value in constants(name).arrays.items()
    }
    return {key: rng.normal(0.0, std, shape) for key, shape in shapes.items()} | arrays


@dataclass(frozen=True)
class _Held:
    """An input held in memory: x is (T, R, size, B)."""

    x: Array

    def fill(self, start: int, stop: int) -> Array:
        return self.x[start:stop]


def run(
    cell: ParsedCell,
    params: Mapping[str, Any],
    x: Array,
    loss: Loss,
    initial: Mapping[str, Array],
    hidden_size: int | None = None,
) -> Run:
    """Run one layer of a cell on x (T, R, size, B) and record all adjoints.

    params: values for all trials alike; those not given are zero. initial: state -> (R, entries, B).
    hidden_size: as many as the first state has entries, if not given.
    """
    seq_len, trials, input_size, batch_size = x.shape
    plan = LayerPlan(cell.at_sizes(hidden_size or next(iter(initial.values())).shape[1], input_size))
    shapes = plan.cell.shapes.parameters
    assert params.keys() <= shapes.keys()
    values = {
        name: np.broadcast_to(np.asarray(params.get(name, 0.0), dtype=np.float64), (trials, *shape)).copy()
        for name, shape in shapes.items()
    }
    problem = Problem([plan], [values], [initial], _Held(x), loss, seq_len, trials, batch_size)
    result = Engine(problem).run(record=True)
    assert result.overflow is None
    return result


def adjoints(result: Run, state: str) -> Array:
    """Return dL/ds_t by step t, (T+1, R, size, B)."""
    assert result.recording is not None
    key = f"layer0.{state}"
    return np.ldexp(result.recording.adjoints[key], result.recording.exponents[key][:, :, None, :])


def jacobian(
    name: str,
    params: Mapping[str, Any],
    *,
    hidden_size: int = HIDDEN_SIZE,
    initial: Mapping[str, Any] | None = None,
    steps: int = 1,
    activation: str | None = None,
    x: float = 0.0,
) -> Array:
    """Return ds_T/ds_0 of all states joined, in the order of the equations, at the state `initial`, zero by default.

    initial: state -> a number, or its entries. x: what every entry of the input is at every step.
    Every trial carries one row: its loss is one entry of one state after `steps` steps.
    """
    states = at_sizes(name, hidden_size).shapes.states
    rows = []
    for output, size in states.items():
        start = {state: np.zeros((size, entries, 1)) for state, entries in states.items()}
        for state, value in (initial or {}).items():
            start[state] += np.reshape(value, (-1, 1))
        result = run(
            parsed(name, output=output, activation=activation),
            params,
            np.full((steps, size, INPUT_SIZE, 1), x),
            Linear([steps], np.eye(size)),
            start,
            hidden_size,
        )
        rows.append(np.concatenate([adjoints(result, state)[0, :, :, 0] for state in states], axis=1))
    return np.concatenate(rows)
