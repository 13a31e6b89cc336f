"""Routes of states beside the output's: where their gradient begins, and where it is nothing but rounding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from measured import SMALL, loaded, table_of
from path_graphs import network, traced

from gradcli.commands.paths import paths
from gradcli.diagnostics.paths import Paths, trace_paths
from gradcli.engine.run import Engine
from gradcli.prepare.build import Network

T = 12
FIELDS: dict[str, Any] = {"hidden_size": 4, "input_size": 4, "batch_size": 3, "trials": 3, "seq_len": T}
DELAYED = "h[t] = tanh(W @ m[t-1])\nm[t] = 0.9 * m[t-1] + x[t]"


def cell(equations: str, output: str = "h") -> dict[str, Any]:
    return {"name": "beside", "equations": equations, "output": output}


def found_in(net: Network, end: str, distance: int = 1) -> Paths:
    return trace_paths(net, layer=0, distance=distance, start="h", ends=[end])


def at_the_end(net: Network) -> tuple[Any, Any]:
    """Return h at the last step and dL/dh there, (R, size, B)."""
    recording = Engine(net.problem).run(record=True).recording
    assert recording is not None
    exponents = recording.exponents["layer0.h"][T][:, None, :]
    return recording.states["layer0.h"][T], np.ldexp(recording.adjoints["layer0.h"][T], exponents)


# Where the gradient begins.


def test_the_direct_route_is_followed_from_where_its_gradient_begins() -> None:
    """dL/dm[T] = 0, as h[T] is made of m[T-1]; from there on 0.9 a step is all that there is."""
    net = network(cell(DELAYED), **FIELDS)
    h, dh = at_the_end(net)
    W = net.problem.parameters[0]["W"]
    norms = np.linalg.norm(np.einsum("rij,rib->rjb", W, (1 - h**2) * dh), axis=1)
    [curve] = found_in(net, "m").direct
    assert (curve.start, curve.carries_to) == (1, T)
    assert np.isneginf(curve.log10_direct[0])
    expected = np.log10(np.median(norms)) + np.log10(0.9) * np.arange(T)
    assert curve.log10_direct[1:] == pytest.approx(expected, rel=1e-12)
    assert curve.projection[1:] == pytest.approx(np.ones(T), rel=1e-12)


def test_what_enters_farther_back_is_no_direct_route() -> None:
    """With V @ m[t-2] beside it the direct route is W'a 0.9^(d-1), and the whole (0.9 W'a + V'a) 0.9^(d-2)."""
    net = network(cell("h[t] = tanh(W @ m[t-1] + V @ m[t-2])\nm[t] = 0.9 * m[t-1] + x[t]"), **FIELDS)
    h, dh = at_the_end(net)
    w, v = (
        np.einsum("rij,rib->rjb", net.problem.parameters[0][name], (1 - h**2) * dh).transpose(0, 2, 1) for name in "WV"
    )
    direct, whole = 0.9 * w, 0.9 * w + v
    shares = (direct * whole).sum(axis=2) / (whole**2).sum(axis=2)
    [curve] = found_in(net, "m").direct
    assert curve.start == 1
    assert curve.projection[1] == pytest.approx(1.0, rel=1e-12)
    assert curve.projection[2:] == pytest.approx(np.full(T - 1, np.median(shares)), rel=1e-10)


def test_every_sequence_begins_where_its_own_gradient_does() -> None:
    """Where relu is off at the last step, only what is taken a step later is left."""
    fields = FIELDS | {"hidden_size": 1, "input_size": 1, "batch_size": 40}
    net = network(cell("m[t] = 0.9 * m[t-1] + x[t]\nh[t] = relu(m[t]) + 0.5 * m[t-1]"), **fields)
    recording = Engine(net.problem).run(record=True).recording
    assert recording is not None
    off = recording.states["layer0.m"][T][:, 0] < 0
    assert off.any()
    assert not off.all()
    tracer = traced(net, 1)
    assert np.array_equal(tracer.direct[0].start, np.where(off, 1, 0))
    with np.errstate(invalid="ignore"):
        shares = tracer.direct[0].cosine[T] * np.exp2(tracer.direct[0].log2_direct[T] - tracer.direct[0].log2_total[T])
    assert shares == pytest.approx(np.where(off, 1.0, 0.9 / 1.4), rel=1e-12)


def test_the_sentence_says_where_it_begins() -> None:
    found = paths(loaded(cell(DELAYED), **FIELDS))
    screen = table_of(found.report, width=None)
    assert (
        "The gradient of m begins 1 step back: the route is followed from there. It carries the gradient of m" in screen
    )
    assert "not carry" not in screen
    assert found.direct[0].start == 1


@pytest.mark.parametrize(("name", "state"), [("plif", "v"), ("rwkv-5", "S"), ("nru", "m")])
def test_built_in_cells_whose_output_is_made_of_earlier_states(name: str, state: str) -> None:
    small = FIELDS | ({} if name == "plif" else {"hidden_size": 8})
    [curve] = [c for c in found_in(network(name, **small), state).direct if c.route.label == state]
    assert curve.start == 1
    assert curve.projection[1] == pytest.approx(1.0, rel=1e-9)
    assert curve.carries_to > 1


# Where it is rounding.


def last_h(p: dict[str, Any], x: Any, nudged: str, by: float) -> Any:
    """Run an sLSTM of one sequence, with one state nudged after the step before the last."""
    state = {name: np.zeros(4, np.longdouble) for name in "mcnh"}
    for step, value in enumerate(x.astype(np.longdouble)):
        a_i, a_f, z, o = (p[f"W_x{g}"] @ value + p[f"W_h{g}"] @ state["h"] + p[f"b_{g}"] for g in "ifzo")
        m, log_f = state["m"], -np.log1p(np.exp(-a_f))
        new = np.maximum(log_f + m, a_i)
        # What step T-1 makes of m[T-1] within the step counts: c, n and h take the nudge with it.
        if nudged == "m" and step == len(x) - 2:
            new = new + by
        f, i = np.exp(log_f + m - new), np.exp(a_i - new)
        c, n = f * state["c"] + i * np.tanh(z), f * state["n"] + i
        if nudged == "c" and step == len(x) - 2:
            c = c + by
        state = {"m": new, "c": c, "n": n, "h": 1 / (1 + np.exp(-o)) * c / n}
    return state["h"]


def test_the_stabiliser_of_an_slstm_has_no_gradient_but_rounding() -> None:
    """In extended precision, h does not change with m at all, and does with c: m's gradient cancels."""
    net = network("slstm", **FIELDS | {"batch_size": 1, "trials": 1})
    p = {name: value[0].astype(np.longdouble) for name, value in net.problem.parameters[0].items()}
    x = net.problem.source.fill(0, T)[:, 0, :, 0]
    moved = {name: np.abs(last_h(p, x, name, 0.01) - last_h(p, x, name, 0.0)).max() for name in "mc"}
    assert moved["m"] < 1e-16
    assert moved["c"] > 1e-5
    for distance in (1, 10):
        found = found_in(net, "m", distance)
        [table] = found.tables
        assert table.rounding + table.zeros == 1.0
        assert max(share.log10_norm for share in table.shares) > -6
        assert all(share.projection is share.log10_relative is None for share in table.shares)
        of_m, of_c, _ = found.direct
        assert of_m.start is None
        assert np.isnan(of_m.projection).all()
        assert not of_c.rounding.any()


@pytest.mark.parametrize("name", ["slstm", "slstm-exp", "matrix-lstm", "matrix-lstm-exp", "abc"])
def test_no_ratio_to_rounding_is_printed(name: str) -> None:
    found = paths(loaded(name, **FIELDS | {"hidden_size": 8}), end="m", distance=2)
    [routes] = found.routes
    assert routes.fraction_rounding > 0
    assert routes.fraction_rounding + routes.fraction_zero == pytest.approx(1.0)
    assert all(share.log10_relative is share.projection is share.cosine is None for share in routes.shares)
    screen = table_of(found.report, width=None)
    assert "the routes cancel to zero but for rounding" in screen
    assert "but the gradient of m is nothing but rounding of routes that cancel" in screen
    assert "e15" not in screen


@pytest.mark.parametrize("scale", [1e-20, 1e-100])
def test_a_small_gradient_of_a_state_on_its_own_scale_is_a_measurement(scale: float) -> None:
    equations = f"h[t] = tanh(W @ h[t-1] + {scale} * s[t-1])\ns[t] = 0.5 * s[t-1] + {1 / scale} * x[t]"
    net = network(cell(equations), **FIELDS)
    found = found_in(net, "s")
    h, dh = at_the_end(net)
    expected = np.log10(scale) + np.log10(np.median(np.linalg.norm((1 - h**2) * dh, axis=1)))
    [table] = found.tables
    assert (table.rounding, table.zeros) == (0.0, 0.0)
    assert table.log10_norm == pytest.approx(expected, rel=1e-12)
    assert [share.projection for share in table.shares] == [pytest.approx(1.0, rel=1e-12)]


def test_routes_that_cancel_to_a_millionth_still_have_shares() -> None:
    net = network(cell("p = 3 * m[t-1]\nq = 2.999997 * m[t-1]\nh[t] = p - q\nm[t] = 0.5 * m[t-1] + x[t]"), **FIELDS)
    [table] = found_in(net, "m").tables
    assert table.rounding == 0.0
    assert sorted(share.projection or 0.0 for share in table.shares) == pytest.approx([-999999, 1e6], rel=1e-8)


# What the tables say.


def test_the_table_says_which_numbers_are_means_and_which_medians() -> None:
    screen = table_of(paths(loaded("lstm", **SMALL)).report, width=None)
    assert "projection is the mean, and norm, relative and cosine are medians" in screen


def test_very_long_names_on_routes_are_cut_on_the_screen_alone() -> None:
    found = paths(loaded("nru", **FIELDS), end="h")
    short, full = (table_of(report, width=None) for report in (found.report, found.report.in_full()))
    names = [part for share in found.routes[0].shares for part in share.route.split(" -> ")]
    long = [name for name in names if len(name) > 40]
    assert long
    rows = short[short.index("All ") : short.index("all together")].splitlines()[2:]
    shown = [part for row in rows for part in row.split("  ")[0].split(" -> ")]
    assert max(map(len, shown)) == 40
    for name in long:
        assert name in full
        assert name not in short
        assert f"{name[:19]}...{name[-18:]}" in short
