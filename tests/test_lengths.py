"""Sequences of different lengths, as the commands show them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from in_process import gradcli
from numpy.typing import NDArray
from terms_by_step import in_blocks

from gradcli.diagnostics.jacobian import jacobian_spectra
from gradcli.engine.problem import Problem
from gradcli.engine.run import Engine
from gradcli.engine.step_clip import StepClip
from gradcli.engine.together import can_join
from gradcli.prepare.build import build
from gradcli.sources.input_source import InputSource
from gradcli.spec.reader import load_spec

T = 20
LENGTHS = np.array([12, 5, T, 12, 9])
OPTIONS: dict[str, object] = {"hidden_size": 4, "input_size": 3, "seq_len": T, "batch_size": len(LENGTHS), "trials": 2}
FLAGS = [f"--set={name}={value}" for name, value in OPTIONS.items()]


@pytest.fixture
def lengths(monkeypatch: pytest.MonkeyPatch) -> Callable[[NDArray[Any]], None]:
    """Give every input sequences of the lengths that are asked for."""

    def give(found: NDArray[Any]) -> None:
        monkeypatch.setattr(InputSource, "lengths", found)

    give(LENGTHS)
    return give


def problem(cell: str, *overrides: str) -> Problem:
    return build(load_spec(cell, options=OPTIONS, overrides=overrides)).problem


def alone(whole: Problem, sequence: int) -> Problem:
    """Return one sequence as a batch of its own, of its own length; the loss is at the last step."""

    class Part:
        def fill(self, start: int, stop: int) -> NDArray[Any]:
            first = T - int(LENGTHS[sequence])
            return whole.source.fill(first + start, first + stop)[..., [sequence]]

    initial = [{name: value[..., [sequence]] for name, value in table.items()} for table in whole.initial]
    length = int(LENGTHS[sequence])
    loss = type(whole.loss)([length], whole.loss.vector)  # type: ignore[call-arg,attr-defined]
    return replace(whole, source=Part(), initial=initial, seq_len=length, batch_size=1, loss=loss, starts=None)


def not_a_number(text: str) -> None:
    raise AssertionError(f"{text} is not JSON")


def json_of(*arguments: object) -> Any:
    finished = gradcli(*arguments, "--format", "json")
    assert finished.code == 0, finished.stderr
    return json.loads(finished.stdout, parse_constant=not_a_number)["runs"][0]


@pytest.mark.usefixtures("lengths")
@pytest.mark.parametrize("at", ["last", "every"])
def test_quantiles_are_over_the_sequences_that_reach_the_distance(at: str, tmp_path: Path) -> None:
    run = json_of("simulate", "lstm", *FLAGS, f"--set=loss.at={at}", "--save", tmp_path / "run.npz")
    saved = np.load(io.BytesIO((tmp_path / "run.npz").read_bytes()))
    assert saved["start"].tolist() == (T - LENGTHS).tolist()
    square = np.zeros((2, T + 1, len(LENGTHS)))
    for state in ("h", "c"):
        gradient = saved[f"grad_state.layer0.{state}"] * np.exp2(saved[f"log2_state.layer0.{state}"])[..., None]
        square += np.square(gradient).sum(axis=-1)
    assert run["curve"]["sequences"] == [int((d <= LENGTHS).sum()) for d in range(T + 1)]
    # What is saved is the gradient of the whole loss.
    found = run["curve"] if at == "last" else run["total"]
    shares = (("log10_norm_p10", 0.1), ("log10_norm", 0.5), ("log10_norm_p90", 0.9))
    for key, share in shares if at == "last" else shares[1:2]:
        expected = np.nanquantile(0.5 * np.log10(square), share, axis=(0, 2))[::-1]
        np.testing.assert_allclose(found[key], expected, rtol=1e-12, atol=1e-14)
    mean = np.log10(np.nanmean(np.sqrt(square), axis=(0, 2)))[::-1]
    np.testing.assert_allclose(found["log10_norm_mean"], mean, rtol=1e-12, atol=1e-14)
    for name in ("x", "state.layer0.h", "grad_state.layer0.c"):
        before = np.arange(saved[name].shape[1])[:, None] < T - LENGTHS
        assert np.array_equal(np.isnan(saved[name][..., 0]), np.broadcast_to(before, saved[name].shape[:3]))


@pytest.mark.usefixtures("lengths")
def test_the_table_says_how_many_sequences_a_distance_is_about() -> None:
    words = "sequences of 5 to 20 steps; distance is counted from each one's own end: 3 of 5 reach 12"
    for command in (["simulate", "lstm"], ["compare", "lstm", "rnn"], ["contributions", "lstm"]):
        finished = gradcli(*command, *FLAGS)
        assert finished.code == 0, finished.stderr
        assert words in " ".join(finished.stdout.split())
        assert "nan" not in finished.stdout
        assert "gates, paths" not in finished.stdout  # which would refuse
    assert "the longest sequence of each" in gradcli("jacobian", "rnn", *FLAGS).stdout


def test_nothing_is_said_where_all_have_the_same_length() -> None:
    assert "sequences" not in json_of("simulate", "rnn", *FLAGS)["curve"]
    assert "own end" not in gradcli("simulate", "rnn", *FLAGS).stdout


@pytest.mark.usefixtures("lengths")
@pytest.mark.parametrize("cell", ["lstm", "rnn-lags"])
def test_clipping_inside_is_that_of_each_sequence_alone(cell: str) -> None:
    whole = problem(cell, "loss=sum")
    clipper = StepClip("step_norm", 0.3)
    clipped = Engine(whole).run(step_clip=clipper)
    seen = changed = 0
    for sequence, length in enumerate(LENGTHS.tolist()):
        own = StepClip("step_norm", 0.3)
        expected = Engine(alone(whole, sequence)).run(step_clip=own)
        seen, changed = seen + own.seen, changed + own.changed
        for name, norm in expected.log2_norm.items():
            found = clipped.log2_norm[name][T - length :, :, sequence]
            np.testing.assert_allclose(np.exp2(found), np.exp2(norm[..., 0]), rtol=1e-12, atol=0)
    assert changed > 0
    assert (clipper.seen, clipper.changed) == (seen, changed)


@pytest.mark.usefixtures("lengths")
def test_the_jacobian_is_that_of_the_longest_sequence() -> None:
    whole = problem("gru", "loss=sum")
    distances = [0, 7, T]
    found = jacobian_spectra(Engine(whole), 0, distances, threshold=1e-3)
    expected = jacobian_spectra(Engine(alone(whole, int(LENGTHS.argmax()))), 0, distances, threshold=1e-3)
    np.testing.assert_allclose(10.0**found.frobenius, 10.0**expected.frobenius, rtol=1e-11, atol=0)


@pytest.mark.usefixtures("lengths")
def test_terms_of_the_parameters_gradient_are_those_of_the_sequences_that_reach_a_step() -> None:
    whole = problem("lstm", "loss=sum")
    terms: dict[int, NDArray[Any]] = {}
    for _, group in Engine(whole, at_once=2).groups():
        terms = {step: found["W_hi"].value() for step, found in in_blocks(group, 0)}
    expected = {step: np.zeros_like(term) for step, term in terms.items()}
    for sequence, length in enumerate(LENGTHS.tolist()):
        for _, group in Engine(alone(whole, sequence), at_once=2).groups():
            for step, found in in_blocks(group, 0):
                expected[T - length + step] += found["W_hi"].value() / len(LENGTHS)
    for step, term in terms.items():
        assert np.linalg.norm(term - expected[step]) <= 1e-10 * np.linalg.norm(expected[step])


def test_arms_of_different_lengths_are_not_run_together(lengths: Callable[[NDArray[Any]], None]) -> None:
    first, same = problem("rnn"), problem("rnn", "seed=4")
    lengths(LENGTHS[::-1].copy())
    other = problem("rnn")
    assert can_join(first, same)
    assert not can_join(first, other)
    assert not can_join(first, replace(first, starts=None))


@pytest.mark.usefixtures("lengths")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["simulate", "dense-block-bn", "--set=tied=true", "--set=input_at=every"], "batch_norm takes its statistics"),
        (["simulate", "rnn", "--set=loss.at=[3,15]"], "when a sequence of 5 steps has not begun"),
        (["simulate", "rnn", "--set=seq_len=30"], "set seq_len to 20"),
        (["gates", "lstm"], "gradcli simulate"),
        (["paths", "lstm"], "gradcli simulate"),
    ],
)
def test_what_does_not_go_together_is_refused(arguments: list[str], message: str) -> None:
    finished = gradcli(*arguments[:2], *FLAGS, *arguments[2:])
    assert finished.code == 2
    assert message in " ".join(finished.stderr.split())


@pytest.mark.usefixtures("lengths")
def test_formulas_are_those_of_any_length() -> None:
    assert gradcli("paths", "lstm", *FLAGS, "--format=latex").code == 0
