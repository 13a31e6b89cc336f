"""What `gradcli cells NAME --program` prints is what is computed: worked out by hand, its lines give the run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from in_process import gradcli
from measured import loaded
from numpy.typing import NDArray

from gradcli.engine.layer import Layer
from gradcli.engine.parameters import LayerParameters
from gradcli.engine.run import Engine
from gradcli.engine.step.listing import listing
from gradcli.language.graph import Dependence
from gradcli.prepare.build import build

Array = NDArray[np.float64]

SIZES = {"hidden_size": 4, "input_size": 3, "batch_size": 1, "trials": 1, "seq_len": 5}
FUNCTIONS = {
    "tanh": np.tanh,
    "sigmoid": lambda a: 1 / (1 + np.exp(-a)),
    "relu": lambda a: np.maximum(a, 0.0),
    "exp": np.exp,
    "_positive": lambda a: (a > 0) * 1.0,
}
OPERATORS = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "**": np.power,
    "@": np.matmul,
}
PART = re.compile(r"(.*)\[(\d+):(\d+)\]")
TIME = re.compile(r"(\w+)\[t(?:-(\d+))?\]")


class Paper:
    """Works out printed lines: what stands on it at a step, and what the states and their adjoints are at each."""

    def __init__(self, over_time: Mapping[str, Array], lag: int) -> None:
        self.over_time, self.lag, self.step = over_time, lag, 0
        self.written: dict[str, Any] = {}

    def read(self, text: str) -> Any:
        text = text.removesuffix(" for each")
        part = PART.fullmatch(text)
        if part is not None:
            whole = self.read(part[1])
            time = TIME.fullmatch(part[1])
            if time is not None and int(part[3]) > len(whole):  # several steps as one vector
                first = self.step - int(time[2]) + self.lag
                whole = self.over_time[time[1]][first : first + int(part[3]) // len(whole)].ravel()
            return whole[int(part[2]) : int(part[3])]
        if text in self.written:
            return self.written[text]
        if text.startswith("("):
            return np.concatenate([self.read(name) for name in text.strip("()").split(", ")])
        time = TIME.fullmatch(text)
        return float(text) if time is None else self.over_time[time[1]][self.step - int(time[2] or 0) + self.lag]

    def value(self, text: str) -> Any:
        call = re.fullmatch(r"(\w+)\((.*)\)", text)
        if call is not None:
            return FUNCTIONS[call[1]](self.value(call[2]))
        for sign, operator in OPERATORS.items():
            left, found, right = text.partition(f" {sign} ")
            if found:
                a, b = self.read(left), self.read(right)
                return operator(a, np.tile(b, len(a) // len(b)) if right.endswith(" for each") else b)
        return -self.read(text[1:]) if text.startswith("-") else self.read(text)

    def write(self, text: str, value: Any) -> None:
        part, time = PART.fullmatch(text), TIME.fullmatch(text)
        if part is not None and TIME.fullmatch(part[1]):
            time, first = TIME.fullmatch(part[1]), self.step + self.lag
            assert time is not None
            array = self.over_time[time[1]]
            many = len(value) // array.shape[1]
            array[first - int(time[2]) : first - int(time[2]) + many] = value.reshape(many, -1)
        elif part is not None:
            there = self.written.get(part[1], np.zeros(0))
            there = np.concatenate([there, np.zeros(max(0, int(part[3]) - len(there)))])
            there[int(part[2]) : int(part[3])] = value
            self.written[part[1]] = there
        elif text.startswith("("):
            names = text.strip("()").split(", ")
            self.written |= dict(zip(names, np.split(value, len(names)), strict=True))
        elif time is not None and time[1] in self.over_time:
            self.over_time[time[1]][self.step - int(time[2] or 0) + self.lag] = value
        else:
            self.written[text] = np.array(value)


@pytest.mark.parametrize(
    "name", ["rnn", "irnn", "lstm", "gru", "mgu", "indrnn", "rnn-lags", "lem", "lstm-peephole", "cornn", "minlstm"]
)
def test_the_lines_worked_out_by_hand_give_the_run(name: str) -> None:
    problem = build(loaded(name, **SIZES)).problem
    run = Engine(problem).run(record=True)
    assert run.recording is not None
    plan = problem.plans[0].windowed
    parameters = LayerParameters(plan, problem.parameters[0], trials=1, dtype=np.dtype(np.float64))
    layer = Layer(plan, parameters, trials=1, batch_size=1, dtype=np.dtype(np.float64), segment=problem.seq_len)
    start = {state: np.zeros((plan.lag, *array.shape[1:])) for state, array in layer.states.items()}
    for state, value in problem.initial[0].items():
        start[state][-1] = value
    layer.forward(problem.source.fill(0, problem.seq_len), start)
    states = {state: np.concatenate([past[:, 0, :, 0], np.zeros((5, past.shape[2]))]) for state, past in start.items()}
    adjoints = {f"d{state}": np.zeros_like(array) for state, array in states.items()}
    paper = Paper(states | adjoints, plan.lag - 1)
    known = given(plan, layer)
    parts = [lines for _, lines in listing(plan)]
    forward, *between, backward = parts
    tape = {}
    for paper.step in range(1, problem.seq_len + 1):
        paper.written = known(paper.step)
        for out, expression in [*forward, *(between[0] if between else [])]:
            paper.write(out, paper.value(expression))
        tape[paper.step] = paper.written
    output = plan.cell.output
    outputs = states[output][plan.lag :, None, :, None]
    entering = problem.loss.gradient(outputs, 1)
    assert entering is not None
    adjoints[f"d{output}"][-1] += entering[-1, 0, :, 0]
    for paper.step in reversed(range(1, problem.seq_len + 1)):
        paper.written = tape[paper.step]
        for out, expression in backward:
            paper.write(out, paper.value(expression))
    for state in states:
        np.testing.assert_allclose(
            states[state][plan.lag - 1 :], run.recording.states[f"layer0.{state}"][:, 0, :, 0], rtol=1e-12
        )
        mantissa = run.recording.adjoints[f"layer0.{state}"][:, 0, :, 0]
        exponent = run.recording.exponents[f"layer0.{state}"][:, 0]
        expected, found = np.ldexp(mantissa, exponent), adjoints[f"d{state}"][plan.lag - 1 :]
        assert np.abs(expected).max() > 0
        for step in range(problem.seq_len + 1):
            assert np.linalg.norm(found[step] - expected[step]) <= 1e-11 * np.linalg.norm(expected[step])


def given(plan: Any, layer: Layer) -> Any:
    """Return what gives, for a step, all that the lines take without computing it."""
    layout, values = plan.layout, layer.parameters
    fixed: dict[str, Any] = {}
    for stack in layout.stacks:
        number = stack.group.number
        fixed[f"matrix{number}"] = values.known(layout.matrix(stack, signed=True))[0]
        fixed[f"matrix{number}.T"] = values.known(layout.matrix(stack))[0].T
    constants = [node for node in (*plan.order, *plan.linear.coefficients) for node in (node, *node.args)]
    for node in constants:
        if node.dependence is Dependence.PARAMETERS and not node.is_number and node not in plan.cell.shapes.matrices:
            fixed[layout.word(node)] = np.ravel(values.known(node)[0])

    def at(step: int) -> dict[str, Any]:
        found = dict(fixed)
        for number, buffer in layout.known.items():
            found[f"known{number}"] = layer.arrays[buffer][step - 1, 0, :, 0]
        for node in (*layout.hoisted, *plan.linear.leaf_edges):
            if node.dependence is Dependence.INPUT:
                found[layout.word(node)] = layer.array(node)[step - 1, 0, :, 0]
        return found

    return at


def test_a_line_is_what_the_page_says_it_is() -> None:
    found = gradcli("cells", "rnn", "--program").stdout
    lines = [" ".join(line.split()) for line in found.splitlines() if "=" in line]
    assert lines == [
        "products0 = matrix0 @ h[t-1]",
        "products0 = products0 + known0",
        "h[t] = tanh(products0)",
        "factor1 = h[t] * h[t]",
        "dh/dproducts0 = 1 - factor1",
        "dproducts0 = dh/dproducts0 * dh[t]",
        "dh[t-1] = matrix0.T @ dproducts0",
    ]
