"""What somebody writes who uses gradcli from Python: every function, and attributes down to the numbers.

`tests/test_python_types.py` checks it with mypy --strict, and runs it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import gradcli

EXAMPLES = Path(__file__).parent.parent / "examples"

Array = np.ndarray[Any, Any]


def simulated() -> int:
    run = gradcli.simulate("lstm", seq_len=20, hidden_size=4, batch_size=2, trials=2, set={"init.b_f": 1})
    kind: str = run.verdict.kind
    reach: int | None = run.verdict.horizon.threshold
    norms: Array = run.curve.log10_norm
    first: float = float(run.curve.log10_norm_mean[1] - run.states["layer0.c"].log10_norm_mean[1])
    rows: Sequence[int] = run.parameters["layer0.W_hf"].shape
    helped = [(remedy.name, remedy.horizon.after) for remedy in run.remedies]
    scales = [clipped.scale for clipped in run.clip]
    document: dict[str, Any] = run.to_dict()
    text: str = run.to_text(width=80)
    assert kind
    assert len(norms) == run.seq_len + 1
    assert len(rows) == 2
    assert math.isfinite(first)
    assert len(helped) <= len(document["runs"][0]["remedies"])
    assert len(scales) == 1
    assert text
    return run.seq_len if reach is None else reach


def compared() -> list[str]:
    both = gradcli.compare(["lstm", "gru"], seq_len=10, hidden_size=4, trials=1, clip="norm=0.1")
    shares: list[float] = [clipped.fraction_clipped for run in both.runs for clipped in run.clip]
    assert len(shares) == 2
    return [place.label for place in both.ranking]


def directions() -> float:
    found = gradcli.jacobian("rnn", seq_len=10, hidden_size=4, trials=1, exponents="all")
    largest: Array = found.singular_values.log10_largest
    leading: float = float(found.lyapunov.exponents[0])
    names: list[str] = [matrix.name for matrix in found.matrices]
    bound: float | None = None if found.certificate is None else found.certificate.bound_per_step
    assert len(largest) == len(found.singular_values.distance)
    assert names == ["W_hh"]
    assert bound
    assert found.peak.distance <= found.seq_len
    assert found.frobenius.log10_norm.shape == (11,)
    return leading


def routed() -> list[str]:
    found = gradcli.paths("lstm", seq_len=5, hidden_size=4, trials=1, distance=2, end="c")
    shares = [share for routes in found.routes for share in routes.shares]
    total: float = sum(share.projection or 0.0 for share in shares)
    latex: list[str] = [term.latex for block in found.jacobian.blocks for term in block.terms]
    carried: list[int] = [curve.carries_to for curve in found.direct]
    assert abs(total - 1.0) < 1e-6
    assert latex
    assert carried
    return [share.route for share in shares]


def contributed() -> Array:
    found = gradcli.contributions("gru", seq_len=8, hidden_size=4, trials=1)
    enough: list[int | None] = [window.by_bias for window in found.joint.smallest_window]
    assert enough
    assert found.parameters["W_hn"].truncated.bias.shape == (8,)
    return found.joint.terms.share


def opened() -> Array:
    found = gradcli.gates("lstm", seq_len=8, hidden_size=4, trials=1)
    cause: str = "" if found.cause is None else found.cause.kind
    run = found.runs[0]
    assert cause
    assert run.rates.rate.shape == (8,)
    assert run.direct_routes[0].factor == "f"
    return run.activations["f"].mean


def inspected() -> float:
    found = gradcli.inspect(EXAMPLES / "checkpoints" / "digits-lstm.safetensors")
    layer = found.layers[0]
    spec: str = gradcli.inspect(EXAMPLES / "checkpoints" / "digits-lstm.safetensors", spec=layer.name).text
    matrices = layer.directions["layer0"].matrices
    assert layer.cell == "lstm"
    assert "weights:" in spec
    assert not found.not_finite
    return matrices["W_hf"].spectral_norm


def checked(folder: Path) -> str:
    spec = folder / "model.yaml"
    spec.write_text("cell: rnn\nseq_len: 10\nhidden_size: 4\ntrials: 1\nexpect: {finite: true}\n", encoding="utf-8")
    found = gradcli.check([spec], jobs=1)
    messages: list[str] = [check.message for file in found.files for check in file.checks]
    assert messages
    return found.status


def page(folder: Path) -> None:
    """Write what is drawn; takes matplotlib."""
    gradcli.report("lstm", seq_len=10).save(folder / "page.html")
    gradcli.simulate("lstm", seq_len=10).plot(folder / "curve.svg")


def refused() -> str:
    try:
        gradcli.simulate("lsmt")
    except gradcli.GradcliError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    assert simulated() > 0
    assert compared() == ["gru", "lstm"] or compared() == ["lstm", "gru"]
    assert directions() < 0
    assert routed()
    assert contributed().sum() > 0.99
    assert 0 < float(opened()[0]) < 1
    assert inspected() > 0
    assert checked(Path(sys.argv[1])) == "passed"
    assert "lstm" in refused()
