"""`activation` on a built-in cell: the function in the place of every tanh, and of phi."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_runs import assert_close
from in_process import gradcli
from late_torch import torch
from measured import loaded
from simulated import Simulated, simulate

from gradcli import cells
from gradcli.errors import SpecError
from gradcli.language.graph import reachable
from gradcli.prepare.sizing import parse
from gradcli.spec.reader import LoadedSpec

SIZES = {"hidden_size": 6, "input_size": 3, "seq_len": 12, "batch_size": 2, "trials": 1}
STEPPED = re.compile(r"\b(?:tanh|phi)\(")


def written_out(cell: str, activation: str) -> dict[str, Any]:
    """Return a built-in cell as equations of one's own, with the function written in."""
    block = cells.load(cell).cell
    plain = block.model_dump(mode="json", exclude_defaults=True, exclude={"activation", "name"})
    return {**plain, "equations": STEPPED.sub(f"{activation}(", block.equations)}


def computed(spec: LoadedSpec) -> list[tuple[Any, ...]]:
    """Return all that a cell computes, operation by operation."""
    nodes = reachable(parse(spec).at_sizes(4, 4).states.values())
    place = {node: index for index, node in enumerate(nodes)}
    return [(node.op, node.data, *(place[argument] for argument in node.args)) for node in nodes]


@pytest.mark.parametrize("name", cells.names())
def test_of_every_built_in_cell_it_is_what_writing_it_into_the_equations_gives(name: str) -> None:
    spec = loaded(name, activation="softsign")
    if not STEPPED.search(cells.load(name).cell.equations):
        with pytest.raises(SpecError, match=r"this cell has neither tanh\(\.\.\.\) nor phi\(\.\.\.\)"):
            parse(spec)
        return
    assert computed(spec) == computed(loaded(written_out(name, "softsign")))
    assert computed(spec) != computed(loaded(name))


def test_tanh_by_name_changes_nothing(tmp_path: Path) -> None:
    usual, named = (simulate({"cell": "lstm", **SIZES, **more}, tmp_path) for more in ({}, {"activation": "tanh"}))
    assert usual.report["curve"] == named.report["curve"]


def test_equations_of_ones_own_keep_their_tanh() -> None:
    own = {"equations": "h[t] = tanh(W_hh @ h[t-1] + b_h)"}
    with pytest.raises(SpecError, match="in equations of your own write the function itself"):
        parse(loaded(own, activation="relu"))


def test_near_names_are_told() -> None:
    refused = gradcli("simulate", "gru", "--set", "activation=rellu")
    assert refused.code == 2
    assert "did you mean 'relu'?" in refused.stderr


def redone(run: Simulated, cell: str) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """Return loss, dL/dh_t by step and parameter gradients of torch in float64, with relu in the place of tanh."""
    relu, sigmoid = torch.relu, torch.sigmoid
    parameters = {
        name.removeprefix("param.layer0."): torch.tensor(array[0], requires_grad=True)
        for name, array in run.arrays.items()
        if name.startswith("param.")
    }
    p = parameters
    x, target = torch.tensor(run.arrays["x"][0]), torch.tensor(run.arrays["target"][0, 0])
    h = torch.zeros(x.shape[1], SIZES["hidden_size"], dtype=torch.float64, requires_grad=True)
    c, states = torch.zeros_like(h), [h]

    def gate(name: str, step: Any, last: Any) -> Any:
        return step @ p[f"W_x{name}"].T + last @ p[f"W_h{name}"].T + p[f"b_{name}"]

    for step in x:
        if cell == "lstm":
            i, f, o = (sigmoid(gate(name, step, h)) for name in "ifo")
            c = f * c + i * relu(gate("g", step, h))
            h = o * relu(c)
        else:
            r, z = (sigmoid(gate(name, step, h)) for name in "rz")
            n = relu(step @ p["W_xn"].T + p["b_n"] + r * (h @ p["W_hn"].T + p["b_hn"]))
            h = (1 - z) * n + z * h
        h.retain_grad()
        states.append(h)
    losses = 0.5 * (h - target).square().sum(dim=1)
    losses.sum().backward()
    return (
        losses.detach().numpy(),
        {"h": torch.stack([h.grad for h in states]).numpy()},
        {name: value.grad.numpy() / x.shape[1] for name, value in parameters.items()},
    )


@pytest.mark.torch
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_relu_in_a_gated_cell_is_what_torch_computes(cell: str, tmp_path: Path) -> None:
    run = simulate({"cell": cell, "activation": "relu", **SIZES, "seed": 3}, tmp_path, save=True)
    losses, states, gradients = redone(run, cell)
    np.testing.assert_allclose(run.arrays["loss"][0], losses, rtol=1e-12)
    exponents = run.arrays["log2_state.layer0.h"][0][..., None]
    found = np.ldexp(run.arrays["grad_state.layer0.h"][0], exponents.astype(int))
    for step in range(SIZES["seq_len"] + 1):
        assert_close((found[step], 0), (states["h"][step], 0))
    for name, gradient in gradients.items():
        exponent = int(run.arrays[f"log2_param.layer0.{name}"][0])
        assert_close((run.arrays[f"grad_param.layer0.{name}"][0], exponent), (gradient, 0))
