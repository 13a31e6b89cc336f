"""A gradient of the output from a file: its forms, its alignment with the input, its verdicts, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import gradcli
from gradcli.results.simulate import Simulation

Array = NDArray[np.float64]
B, T, F, H = 3, 6, 2, 4
DRAWN = np.random.default_rng(5)
G = DRAWN.normal(size=(B, T, H))


def run(folder: Path, loss: dict[str, Any] | None = None, **options: Any) -> Simulation:
    """Run a GRU on a spec in a folder, where the files are."""
    given = {"kind": "given", "file": "g.npy"} if loss is None else loss
    spec = folder / "given.yaml"
    lines = {"cell": "gru", "hidden_size": H, "batch_size": B, "seq_len": T, "trials": 2, "loss": given}
    spec.write_text("".join(f"{name}: {str(value).replace(chr(39), '')}\n" for name, value in lines.items()))
    return gradcli.simulate(spec, remedies=False, **options)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    np.save(tmp_path / "g.npy", G)
    return tmp_path


def refused(folder: Path, loss: dict[str, Any], **options: Any) -> str:
    with pytest.raises(gradcli.GradcliError) as error:
        run(folder, loss, **options)
    return str(error.value)


def test_other_files_are_read_alike(folder: Path) -> None:
    expected = run(folder).to_dict()["runs"][0]
    np.savez(folder / "g.npz", g=G, other=G[0])
    np.save(folder / "turned.npy", G.swapaxes(0, 1))
    np.save(folder / "single.npy", G.astype(np.float32))
    for loss in ({"file": "g.npz", "key": "g"}, {"file": "turned.npy", "layout": "time_first"}):
        found = run(folder, {"kind": "given", **loss}).to_dict()["runs"][0]
        assert found["curve"] == expected["curve"]
        assert found["parameters"] == expected["parameters"]
    rounded = run(folder, {"kind": "given", "file": "single.npy"})
    assert np.abs(rounded.curve.log10_norm_mean - np.array(expected["curve"]["log10_norm_mean"])).max() < 1e-5


def test_of_a_single_sequence_a_table_is_enough(folder: Path) -> None:
    np.savetxt(folder / "g.csv", G[0], delimiter=",")
    np.save(folder / "one.npy", G[:1])
    table, array = (run(folder, {"kind": "given", "file": name}, batch_size=1) for name in ("g.csv", "one.npy"))
    assert table.curve.log10_norm_mean == pytest.approx(array.curve.log10_norm_mean, rel=1e-12)


def test_a_loss_of_the_library_gives_its_own_gradient_back(folder: Path) -> None:
    """With G = (h - y) / B of a squared error at every step, all is that of this loss."""
    whole = {"set": {"loss": {"kind": "mse", "at": "every"}}, "trials": 1}
    own = run(folder, record=True, **whole)
    outputs = own.arrays["state.layer0.h"][0, 1:]
    given = (outputs - own.arrays["target"][0]).swapaxes(0, 1)
    np.save(folder / "own.npy", given / B)
    found = run(folder, {"kind": "given", "file": "own.npy"}, trials=1)
    assert found.total is not None
    assert own.total is not None
    # The curve is of each sequence's own loss there, and of the batch's here, which is a third of their sum.
    assert found.total.log10_norm == pytest.approx(own.total.log10_norm - np.log10(B), abs=1e-12)
    assert found.curve.log10_norm_mean == pytest.approx(own.curve.log10_norm_mean - np.log10(B), abs=1e-12)
    assert found.verdict.rate_per_step == pytest.approx(own.verdict.rate_per_step, rel=1e-9)
    for name, parameter in own.parameters.items():
        assert found.parameters[name].log10_norm == pytest.approx(parameter.log10_norm, abs=1e-12), name


def test_the_parts_of_contributions_add_up_to_the_whole(folder: Path) -> None:
    given = np.zeros_like(G)
    given[:, -1] = G[:, -1]
    np.save(folder / "last.npy", given)
    spec = {"cell": "gru", "hidden_size": H, "trials": 1, "loss": {"kind": "given", "file": str(folder / "last.npy")}}
    found = gradcli.contributions(spec, batch_size=B, seq_len=T)
    whole = gradcli.simulate(spec, batch_size=B, seq_len=T, remedies=False)
    for name, parameter in found.parameters.items():
        assert parameter.log10_norm == pytest.approx(whole.parameters[f"layer0.{name}"].log10_norm, abs=1e-12), name


def test_lengths_put_each_sequence_own_steps_first(folder: Path) -> None:
    lengths = [T, 2, 4]
    x = DRAWN.normal(size=(B, T, F))
    padded = np.where(np.arange(T)[None, :, None] < np.array(lengths)[:, None, None], G, np.nan)
    np.save(folder / "x.npy", x)
    np.save(folder / "padded.npy", padded)
    inputs = {"input": {"kind": "file", "path": "x.npy", "lengths": lengths}}
    found = run(folder, {"kind": "given", "file": "padded.npy"}, set=inputs, record=True, trials=1)
    assert found.notes == ()
    for sequence, length in enumerate(lengths):
        alone = gradcli.simulate(
            "gru",
            inputs=x[[sequence], :length],
            output_gradient=G[[sequence], :length],
            params={
                name.removeprefix("param."): value[0]
                for name, value in found.arrays.items()
                if name.startswith("param.")
            },
            hidden_size=H,
            trials=1,
            record=True,
            remedies=False,
        )
        mine = gradient_of(found)[T - length :, sequence]
        for step, expected in enumerate(gradient_of(alone)[:, 0]):
            assert np.linalg.norm(mine[step] - expected) < 1e-12 * np.linalg.norm(expected)


def gradient_of(result: Simulation) -> Array:
    """Return dL/dh[t] of the first trial, (T+1, B, H)."""
    saved = result.arrays
    return np.asarray(saved["grad_state.layer0.h"][0] * 2.0 ** saved["log2_state.layer0.h"][0][..., None])


def test_both_directions_count_the_sequences_that_each_one_ends_with(folder: Path) -> None:
    given = np.zeros((B, T, 2 * H))
    given[0, 1] = given[1, 1] = given[1, 4] = given[2, 4] = 1.0
    np.save(folder / "both.npy", given)
    found = run(folder, {"kind": "given", "file": "both.npy"}, set={"bidirectional": True})
    assert found.notes == (
        "both.npy: at step 5, the last with a gradient, it is zero in 1 of 3 sequences; the curve is of the other 2",
        "both.npy: at step 2, the first with a gradient, it is zero in 1 of 3 sequences; the curve is of the other 2",
    )


def test_a_gradient_that_is_zero_everywhere_is_dead(folder: Path) -> None:
    np.save(folder / "zeros.npy", np.zeros_like(G))
    found = run(folder, {"kind": "given", "file": "zeros.npy"})
    assert found.verdict.kind == "dead"
    assert "its gradient with respect to the output is zero" in found.verdict.reason
    assert found.notes == ()
    assert found.curve.zero_from == 0
    assert all(parameter.log10_norm == -np.inf for parameter in found.parameters.values())


def test_sequences_that_are_coupled_all_have_a_curve(folder: Path) -> None:
    given = np.zeros_like(G)
    given[0, -1] = 1.0
    cell = {"equations": "h[t] = tanh(batch_norm(W @ h[t-1] + U @ x[t]))", "init": {"*": "torch"}}
    found = gradcli.simulate({"cell": cell}, hidden_size=H, output_gradient=given, trials=1, remedies=False)
    assert found.notes == ()


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (G[:2], "expected an array (3, 6, 4): sequences, steps, outputs; got shape (2, 6, 4)"),
        (G[:, :5], "expected an array (3, 6, 4): sequences, steps, outputs; got shape (3, 5, 4)"),
        (G[:, :, :3], "expected an array (3, 6, 4): sequences, steps, outputs; got shape (3, 6, 3)"),
        (G[0], "expected an array (3, 6, 4): sequences, steps, outputs; got shape (6, 4)"),
        (G.swapaxes(0, 1), "got shape (6, 3, 4); with its steps first it fits: say layout: time_first"),
        (np.where(G[1, 2, 3] == G, np.nan, G), "sequence 2, step 3, output 4: expected a finite number; got nan"),
    ],
)
def test_an_array_that_does_not_fit_is_refused(array: Array, words: str, folder: Path) -> None:
    np.save(folder / "wrong.npy", array)
    said = refused(folder, {"kind": "given", "file": "wrong.npy"})
    assert words in said
    assert "given.yaml:6:27: loss.file: " in said


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        ({"kind": "given"}, "the key 'file' is missing"),
        ({"kind": "given", "file": 3}, "loss.file: expected a text; got 3"),
        ({"kind": "given", "file": "g.npy", "at": "last"}, "loss.at: unknown key; known: kind, file, key, layout"),
        ({"kind": "given", "file": "g.npy", "reduction": "mean"}, "loss.reduction: unknown key"),
        ({"kind": "given", "file": "g.npy", "key": "g"}, "loss.key: g.npy is no .npz, and has no keys"),
        ({"kind": "given", "file": "nothing.npy"}, "nothing.npy: no such file"),
        ({"kind": "given", "file": "g.pkl"}, "g.pkl: expected a file that ends in .csv, .npy or .npz"),
        ({"kind": "given", "file": {"given": [3, 6, 4]}}, "stands for an array that Python gave"),
    ],
)
def test_mistakes_are_told_at_their_place(loss: dict[str, Any], words: str, folder: Path) -> None:
    assert words in refused(folder, loss)
