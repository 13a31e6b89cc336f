"""The JSON Schema of the spec, for editors: derived from the models that read it, with a line on each field."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from gradcli import cells
from gradcli.spec.json_schema import json_schema
from gradcli.spec.models import Spec
from gradcli.spec.verdict_kinds import VERDICT_KINDS

DIALECT = "https://json-schema.org/draft/2020-12/schema"

# The one place that says in a line what a field is for; the starter spec repeats it as comments.
SPEC_NOTES: Mapping[str, str] = {
    "cell": "a built-in cell by name, or a block with equations",
    "activation": "the function that phi stands for in the equations; in a built-in cell without phi, every tanh",
    "constants": "numbers, vectors and matrices that the equations use by name; nothing trains them",
    "hidden_size": "units of each state",
    "input_size": "features of x[t]",
    "num_layers": "stacked layers",
    "bidirectional": "a second direction in every layer, which reads the sequence from its end",
    "seq_len": "steps T of each sequence",
    "tied": "false draws new weights at every step: the recurrence is then a network in depth",
    "input_at": "every step, or the first alone, with x[t] zero after it; first where tied is false",
    "batch_size": "sequences in each trial",
    "trials": "independent draws of the weights",
    "seed": "of everything that is drawn",
    "dtype": "float64, or float32 to see what training sees",
    "init": "initialisers by parameter name or glob, the last match wins",
    "params": "exact values by parameter name or glob, which win over init and weights",
    "weights": "trained weights from a checkpoint, which win over init",
    "initial_states": "the state before the first step, h_0 for h, c_0 for c; zeros unless given",
    "input": "what x[t] is: zeros, constant, normal, uniform, sine, one_hot, file, text or tokens",
    "loss": "mse, cross_entropy, binary_cross_entropy, projection, sum or given; at: last, final, every, or steps",
    "clip": "methods to try: norm, value, step_norm, step_value",
    "thresholds": "of the mean norm relative to that at distance 1",
    "learning_rate": "of the gradient descent step that the clipping rows take",
    "expect": "what `gradcli check` asserts of the run",
}
CELL_NOTES: Mapping[str, str] = {
    "name": "what messages and tables call the cell",
    "equations": "one equation a line; a name with [t-1] is a state and needs a line that gives its [t]",
    "output": "the state that feeds the loss and the next layer; by default h, else the first state given",
    "activation": "the function that phi stands for in the equations",
    "constants": SPEC_NOTES["constants"],
    "fixed": "the parameters that are drawn but never trained: constants, without a gradient",
    "shapes": "the shape of a state or parameter that its use does not settle; [] is one number",
    "init": "the usual initialisation: " + SPEC_NOTES["init"],
    "chrono": "bias -> sign of the chrono initialisation: 1 for gates that keep, -1 for gates that write",
    "twice": "torch or keras -> the biases that it has twice, and whose sum is the cell's",
    "tied": SPEC_NOTES["tied"],
    "input_at": SPEC_NOTES["input_at"],
    "title": "what the cell is, in a line",
    "family": "which of the built-in cells it belongs to: 'gradcli cells' lists them by it",
    "reference": "authors and year of the publication",
    "year": "of the publication",
    "notes": "which variant this is",
}
EXPECT_NOTES: Mapping[str, str] = {
    "verdict": f"the kind of verdict, or a list of those that will do: {', '.join(VERDICT_KINDS)}",
    "horizon": 'steps back until the norm is below the vanishing threshold, such as ">= 50"; unbounded if it never is',
    "rate_per_step": 'the factor a step, such as "0.9..1.1"',
    "half_life": 'steps in which the gradient halves, such as "> 20"; unbounded where it does not fall',
    "peak": 'the largest norm relative to that at distance 1, such as "< 1e3"',
    "finite": "whether every number of the forward and the backward pass is finite",
    "certificate": "whether the weights alone prove that the gradient vanishes in the long run, whatever the input",
    "lyapunov": 'the leading Lyapunov exponent in nats a step, such as "<= 0.05"',
    "clip_fraction": 'the share that the first method under `clip` clips, such as "< 0.5"',
}

_INITIAL_STATE_KEY = "^[A-Za-z_][A-Za-z0-9_]*_0$"


def spec_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a spec file."""
    body = json_schema(Spec)
    fields = body["properties"]
    initial_state = next(iter(fields.pop("initial_states")["patternProperties"].values()))
    _describe(fields, SPEC_NOTES)
    _describe(body["$defs"]["CellBlock"]["properties"], CELL_NOTES)
    _describe(body["$defs"]["Expect"]["properties"], EXPECT_NOTES)
    body["$defs"]["Expect"]["minProperties"] = 1
    body["patternProperties"] = {_INITIAL_STATE_KEY: initial_state | {"description": SPEC_NOTES["initial_states"]}}
    name, block = fields["cell"].pop("anyOf")
    fields["cell"]["anyOf"] = [
        {"type": name["type"], "enum": cells.names()},
        {"type": name["type"], "pattern": _any_case(), "description": "or what a framework calls it, in any case"},
        block,
    ]
    _close_tables(body)
    # The layer of a checkpoint brings its cell.
    body.pop("required")
    body["anyOf"] = [{"required": ["cell"]}, {"required": ["weights"]}]
    return {"$schema": DIALECT, **body, "title": "gradcli spec"}


def _any_case() -> str:
    """Return the pattern of the names that the reader finds; JSON Schema knows no flag that ignores case."""

    def one_of(words: Iterable[str]) -> str:
        letters = ("".join(f"[{c}{c.upper()}]" if c.isalpha() else re.escape(c) for c in word) for word in words)
        return f"({'|'.join(letters)})"

    return f"^{one_of(cells.FRAMEWORKS)}?{one_of([*cells.names(), *cells.aliases()])}$"


def _describe(fields: dict[str, Any], notes: Mapping[str, str]) -> None:
    for name, field in fields.items():
        field["description"] = notes[name]


def _close_tables(node: Any) -> None:
    """Refuse keys that no pattern of a table matches, as the reader does."""
    if isinstance(node, dict):
        if "patternProperties" in node:
            node.setdefault("additionalProperties", False)
        for inner in node.values():
            _close_tables(inner)
    elif isinstance(node, list):
        for inner in node:
            _close_tables(inner)
