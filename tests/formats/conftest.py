"""One small hand-made report with every kind of block, whose text in every format is in expected/."""

from __future__ import annotations

import pytest

from gradcli.results.model import Column, Line, Records, Report, Table, Verbatim

CURVE = [
    (0, -0.42, "-0.6 .. -0.3", 1.0, 1.0, None),
    (5, -1.23, "-1.4 .. -1.1", 0.15, 0.83, None),
    (20, -3.65, "-4.0 .. -3.4", 5.9e-4, 0.5, "< 1e-3"),
    (100, -16.5, "-17.4 .. -15.8", 8.3e-17, 0.0, "< float32"),
]


@pytest.fixture
def report() -> Report:
    """Return a report such as `gradcli simulate rnn` gives."""
    columns = [
        Column("distance", spec="d", keep=9),
        Column("log10 norm", spec=".2f", keep=9),
        Column("10-90 %", "text", keep=3),
        Column("relative to distance 0", spec=".2g", keep=8),
        Column("", "bar", keep=5),
        Column("", "flag", keep=7),
    ]
    blocks = [
        [
            Line(
                "hidden 64, input 32, T = 100, 4 trials × 16 sequences, loss mse at the last step",
                "rnn (tanh)",
                "title",
            )
        ],
        [
            Line(
                "falls by a factor 0.69 a step, exponentially\nbelow 1e-3 of its start from 19 back", "VANISHING", "bad"
            )
        ],
        [Table(columns, CURVE, title="gradient against distance", note="median over trials and sequences")],
        [
            Line("W_xh 0.031   W_hh 0.044   b_h 0.052", "parameters", "dim"),
            Line("norm 1.0: not reached. Clipping cannot bring back what has vanished.", "clipping", "dim"),
        ],
        [Verbatim("a    = W_xh @ x[t] + W_hh @ h[t-1] + b_h\nh[t] = tanh(a)\n")],
        [Line("next: gradcli paths rnn", style="dim")],
    ]
    data = {
        "schema_version": 1,
        "runs": [
            {
                "label": "rnn",
                "spec": {"cell": "rnn", "init": {"W_hh": {"orthogonal": {"gain": 1.1}}}, "clip": []},
                "curve": {"distance": [0, 5, 20, 100], "log10_norm": [-0.42, -1.23, -3.65, None]},
                "parameters": {f"layer0.{name}": {"shape": [64, 64], "log10_norm": -0.3} for name in ("W_hh", "W_xh")},
                "jacobian": [[0.9, 1.0], [0.0, 0.9]],
            }
        ],
    }
    rows = [("rnn", distance, norm) for distance, norm, *_ in CURVE]
    return Report("simulate", blocks, data, Records(("label", "distance", "log10_norm"), rows))
