"""Sequences of different lengths from a file, each beside the same sequence alone under PyTorch's autograd."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from late_torch import torch

from gradcli.engine.run import Engine
from gradcli.prepare.build import build
from gradcli.spec.reader import load_spec

pytestmark = pytest.mark.torch

T, HIDDEN = 8, 4
LENGTHS = (8, 3, 5, 1, 6)
RNG = np.random.default_rng(0)
X = RNG.standard_normal((5, T, 3))
TARGETS = RNG.standard_normal((5, T, HIDDEN))
LABELS = RNG.integers(3, size=5)
LOSSES: dict[str, dict[str, Any]] = {
    "mse": {"kind": "mse", "at": "every", "target": {"file": {"path": "x.npz", "key": "y"}}},
    "cross_entropy": {"kind": "cross_entropy", "classes": 3, "target": {"file": {"path": "x.npz", "key": "labels"}}},
}


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_each_sequence_is_as_it_is_alone(name: str, reverse: bool, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=X, n=LENGTHS, y=TARGETS, labels=LABELS)
    data = {"kind": "file", "path": "x.npz", "key": "x", "lengths": "n", "reverse": reverse}
    spec = {"cell": "rnn", "hidden_size": HIDDEN, "seq_len": T, "trials": 1, "input": data, "loss": LOSSES[name]}
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    problem = build(load_spec(str(tmp_path / "spec.yaml"))).problem
    run = Engine(problem).run(record=False)
    weights = {key: torch.tensor(value[0]) for key, value in problem.parameters[0].items()}
    for b, length in enumerate(LENGTHS):
        order = slice(None, None, -1) if reverse else slice(None)
        x, targets = (torch.tensor(array[b, :length][order].copy()) for array in (X, TARGETS))
        states = [torch.zeros(HIDDEN, dtype=torch.float64, requires_grad=True)]
        for t in range(length):
            h = torch.tanh(weights["W_xh"] @ x[t] + weights["W_hh"] @ states[-1] + weights["b_h"])
            h.retain_grad()
            states.append(h)
        if name == "mse":
            loss = sum(((h - y) ** 2).sum() / 2 for h, y in zip(states[1:], targets, strict=True))
        else:
            logits = torch.tensor(problem.loss.W_hy[0]) @ states[-1] + torch.tensor(problem.loss.b_y[0])
            loss = torch.nn.functional.cross_entropy(logits[None], torch.tensor([LABELS[b]]))
        loss.backward()
        assert run.losses[0, b] == pytest.approx(float(loss.detach()), rel=1e-12, abs=0)
        norms = np.exp2(run.log2_norm["layer0.h"][:, 0, b])
        assert np.isnan(norms[: T - length]).all()
        expected = [float(state.grad.norm()) for state in states]
        assert norms[T - length :] == pytest.approx(expected, rel=1e-10, abs=0)
