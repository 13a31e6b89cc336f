"""The pages of `gradcli report`: of every kind of verdict, of comparisons and checkpoints; their words and numbers."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hostile_text import HOSTILE, SHOWN
from html_document import Element, read
from in_process import gradcli as run

import gradcli
from gradcli import cells
from gradcli.errors import OutputError, UsageError
from gradcli.language.parser import parse_equations

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "examples" / "configs"
CHECKPOINT = ROOT / "tests" / "checkpoints" / "pytorch-lstm.pt"
SMALL = {"hidden_size": 8, "input_size": 4, "seq_len": 30, "trials": 2, "batch_size": 3}
MOST_BYTES = 500_000

EXPLODING = {"cell": "rnn", "activation": "relu", "init": {"W_hh": {"orthogonal": {"gain": 4}}}, **SMALL}
NONFINITE = {"cell": {"equations": "h[t] = exp(W @ h[t-1]) + x[t]"}, **SMALL, "input_size": 8, "hidden_size": 8}
SPECS: dict[str, Any] = {
    "vanishing": {"cell": "lstm", **SMALL},
    "stable": {"cell": "rnn", "init": {"W_hh": "orthogonal"}, "activation": "identity", **SMALL},
    "exploding": EXPLODING,
    "transient": str(EXAMPLES / "jordan-block.yaml"),
    "dead": str(EXAMPLES / "nilpotent-shift.yaml"),
    "nonfinite": NONFINITE,
}
MORE: dict[str, Any] = {
    "two layers": {"cell": "gru", "num_layers": 2, **SMALL},
    "both ways": {"cell": "lstm", "bidirectional": True, **SMALL},
    "losses": {"cell": "lstm", "loss": {"kind": "mse", "at": "every"}, **SMALL},
    "clipped inside": {"cell": "rnn", "clip": [{"step_norm": 0.1}], **SMALL},
    "float32": {"cell": "rnn", "dtype": "float32", **SMALL},
    "in depth": str(EXAMPLES / "deep-residual.yaml"),
    "no input": {"cell": {"equations": "h[t] = tanh(W @ h[t-1])"}, "h_0": {"normal": {"std": 1}}, **SMALL},
    "no parameters": {"cell": {"equations": "h[t] = 0.5 * h[t-1] + x[t]"}, **SMALL, "input_size": 8},
}


@cache
def page(name: str) -> Element:
    return read(html(name))


@cache
def html(name: str) -> str:
    found: str = gradcli.report([(SPECS | MORE)[name]]).html
    return found


def section(root: Element, title: str) -> Element | None:
    found = [part for part in root.all("section") if heading(part) == title]
    return found[0] if found else None


def heading(part: Element) -> str:
    first = part.children[1]
    assert isinstance(first, Element)
    return first.text


def table(root: Element, *columns: str) -> list[dict[str, str]]:
    """Return the rows of the table that has these columns, by column."""
    for found in root.all("table"):
        header, *rows = found.all("tr")
        names = [cell.text for cell in header.all("th", "td")]
        if set(columns) <= set(names):
            return [dict(zip(names, [cell.text for cell in row.all("th", "td")], strict=True)) for row in rows]
    raise AssertionError(f"no table with {columns}")


@pytest.mark.parametrize("name", [*SPECS, *MORE])
def test_every_page_is_sound_and_small(name: str) -> None:
    root = page(name)
    assert len(html(name).encode()) < MOST_BYTES
    assert root.one("h1").text
    assert all(part.text != heading(part) for part in root.all("section")), "a heading with nothing under it"


@pytest.mark.parametrize("name", SPECS)
def test_the_verdict_comes_first_and_is_that_of_simulate(name: str) -> None:
    found = gradcli.simulate(SPECS[name])
    assert found.verdict.kind == name
    main = page(name).one("main")
    first = [part for part in main.children if isinstance(part, Element)][1]
    word = "REACHES THE BEGINNING" if name == "stable" else name.upper()
    assert first.all("dt")[0].text == word
    assert squeezed(first.all("dd")[0].text) in squeezed(found.to_text(width=None))


@pytest.mark.parametrize("name", ["vanishing", "exploding", "transient", "dead", "stable"])
def test_the_curve_is_that_of_the_json(name: str) -> None:
    curve = gradcli.simulate(SPECS[name]).to_dict()["runs"][0]["curve"]
    several = "log10 mean norm" if name not in ("transient", "dead") else "log10 norm"
    rows = table(page(name), "distance", several, "relative")
    assert len(rows) > 5
    for row in rows:
        expected = curve["log10_norm_mean"][int(row["distance"])]
        if expected is None:
            assert row[several] == "0 exactly"
        else:
            assert float(row[several]) == pytest.approx(expected, abs=0.0501)


def test_remedies_and_clipping_are_those_of_the_json() -> None:
    found = gradcli.simulate(SPECS["vanishing"]).to_dict()["runs"][0]
    rows = table(page("vanishing"), "try", "horizon with it")
    assert len(rows) == len(found["remedies"]) > 0
    for row, remedy in zip(rows, found["remedies"], strict=True):
        assert row["try"] == " ".join(f"--set {text}" for text in remedy["set"])
        kinds = [
            {"stable": "reaches the beginning"}.get(kind, kind) for kind in ("vanishing", remedy["verdict"]["kind"])
        ]
        assert [row["verdict"], row["with it"]] == kinds
        assert row["horizon"] == str(remedy["horizon"]["before"])
        after = remedy["horizon"]["after"]
        assert row["horizon with it"] == (">= 30" if after is None else str(after))
    code = [part.raw.strip() for part in page("vanishing").all("code")]
    for remedy in found["remedies"]:
        for lines in remedy["code"].values():
            if lines:
                assert lines.split("; ") in [part.split("\n") for part in code]
    [clipping] = table(page("vanishing"), "clipping", "norm before")
    assert float(clipping["scale"]) == pytest.approx(found["clip"][0]["scale"], rel=2e-3)


def squeezed(text: str) -> str:
    return re.sub(r"\s+", "", text)


@pytest.mark.parametrize("name", ["vanishing", "exploding", "transient", "two layers", "losses", "clipped inside"])
def test_the_page_has_no_words_of_its_own(name: str) -> None:
    """What stands there as a sentence or a note, a command prints, but for what the page says of the page."""
    spec = (SPECS | MORE)[name]
    commands = (gradcli.simulate, gradcli.gates, gradcli.paths, gradcli.contributions, gradcli.jacobian)
    printed = squeezed("".join(command(spec).to_text(width=None, full=True) for command in commands))
    own = ("Equations", "What would help", "Left out", "From every step to every step")
    texts = [
        part.text
        for each in page(name).all("section", "main")
        if each.tag == "main" or heading(each) not in own
        for part in (
            p for child in each.children if isinstance(child, Element) and child.tag != "section" for p in child.walk()
        )
        if part.tag in ("p", "dd", "caption")
    ]
    assert len(texts) > 12
    ours = {"Versions", "By ", "What clipping would do"}
    for text in texts:
        assert squeezed(text) in printed or any(text.startswith(word) for word in ours), text


def test_the_same_spec_gives_the_same_bytes() -> None:
    assert gradcli.report([SPECS["vanishing"]]).html == html("vanishing")


def test_equations_are_set_and_have_their_text_beside_them() -> None:
    [found] = [t for t in page("vanishing").all("table") if t.one("caption").text == "The cell"]
    alternatives = [math.attributes["alttext"] for math in found.all("math")]
    equations, _ = parse_equations(cells.load("lstm").cell.equations)
    assert [text.removesuffix(" =") for text in alternatives[::2]] == [equation.left_side for equation in equations]
    assert alternatives[-1] == "o tanh(c[t])"
    assert found.all("math")[1].text.replace(" ", "") == "σ\u2061(Wxixt+Whiht−1+bi)"


def test_what_a_network_has_no_answer_to_is_said() -> None:
    left_out = section(page("both ways"), "Left out")
    assert left_out is not None
    for command in ("gates", "paths", "contributions"):
        assert f"gradcli {command} does not go back through bidirectional layers" in left_out.text
    assert section(page("both ways"), "Gates and activations") is None
    assert section(page("vanishing"), "Left out") is None


def test_sequences_of_different_lengths(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(3, 12, 2)))
    spec = tmp_path / "s.yaml"
    sizes = "hidden_size: 6\ntrials: 2\nseq_len: 12\nbatch_size: 3\ninput_size: 2\n"
    spec.write_text(f"cell: lstm\n{sizes}input: {{kind: file, path: x.npy, lengths: [6, 9, 12]}}\n")
    assert "their lengths differ" in read(gradcli.report([spec]).html).text


def test_the_spec_runs_again(tmp_path: Path) -> None:
    found = section(page("vanishing"), "The spec")
    assert found is not None
    again = tmp_path / "again.yaml"
    again.write_text(found.one("code").raw)
    first, second = gradcli.simulate(SPECS["vanishing"]), gradcli.simulate(again)
    assert first.curve.log10_norm.tolist() == second.curve.log10_norm.tolist()


# Several, and checkpoints.


@cache
def comparison() -> tuple[str, Element]:
    found = gradcli.report(["lstm", "gru", "rnn"], **SMALL).html
    return found, read(found)


def test_a_comparison_is_ranked_as_compare_ranks() -> None:
    found = gradcli.compare(["lstm", "gru", "rnn"], **SMALL)
    written, root = comparison()
    ranking = [place.label for place in found.ranking]
    assert [row["cell"] for row in table(root, "rank", "cell", "horizon")] == ranking
    cells = section(root, "Cell by cell")
    assert cells is not None
    assert [part.text for part in cells.all("h3")] == ranking
    assert len(root.all("svg")) == 1
    first = [part for part in root.one("main").children if isinstance(part, Element)][1].text
    assert first.startswith("The gradient reaches")
    assert first in found.to_text(width=None)
    assert len(written.encode()) < MOST_BYTES


def test_a_comparison_of_eight_cells() -> None:
    names = ["lstm", "gru", "rnn", "mgu", "scrn", "brc", "light-gru", "peephole-lstm"]
    found = gradcli.report(names, **SMALL).html
    assert len(found.encode()) < MOST_BYTES
    assert len(table(read(found), "rank", "cell")) == 8


@pytest.mark.slow
def test_long_sequences_make_no_long_page() -> None:
    found = gradcli.report(["lstm"], hidden_size=8, input_size=4, seq_len=10_000, trials=2, batch_size=2).html
    assert len(found.encode()) < MOST_BYTES
    assert "up to 1,000 steps, and here are 10,000" in read(found).text


def test_large_matrices_in_a_spec_are_cut_short() -> None:
    values = [[0.1234567890123456] * 64] * 64
    found = gradcli.report([{"cell": "rnn", "params": {"W_hh": values}, **SMALL, "hidden_size": 64}]).html
    assert len(found.encode()) < MOST_BYTES
    assert "lines more, in the JSON of gradcli simulate" in found


def test_a_checkpoint_is_inspected() -> None:
    found = read(gradcli.report([CHECKPOINT], seq_len=20).html)
    about = section(found, "The checkpoint")
    assert about is not None
    [layer] = gradcli.inspect(CHECKPOINT).to_dict()["layers"]
    rows = table(about, "matrix", "spectral radius")
    for row in rows:
        [direction] = layer["directions"].values()
        matrix = next(each for name, each in direction["matrices"].items() if row["matrix"] in name)
        assert float(row["spectral radius"]) == pytest.approx(matrix["spectral_radius"], rel=2e-2)
    assert len(rows) == 4


# What users named.


def test_names_and_words_of_a_spec_are_shown_and_not_obeyed(tmp_path: Path) -> None:
    words = HOSTILE.replace("\x00", "")
    cell = {
        "name": "mine",
        "title": words,
        "reference": words,
        "notes": words,
        "equations": "h[t] = tanh(W @ h[t-1])",
    }
    found = read(gradcli.report([{"cell": cell, **SMALL}]).html)
    assert found.text.count(SHOWN) >= 3
    file = tmp_path / "<img src=x onerror=alert(1)>\u202e.yaml"
    file.write_text("cell: rnn\nhidden_size: 4\nseq_len: 10\n")
    named = read(gradcli.report([file]).html)
    assert named.one("h1").text.startswith("<img src=x onerror=alert(1)>")


# The command.


def test_the_command_writes_what_the_function_returns(tmp_path: Path) -> None:
    output = tmp_path / "page.html"
    options = ("--hidden-size", 4, "-T", 10, "--trials", 1)
    done = run("report", "rnn", *options, "-o", output)
    assert (done.code, done.stdout) == (0, "")
    assert done.stderr == f"wrote {output}\n"
    assert output.read_text() == gradcli.report("rnn", hidden_size=4, seq_len=10, trials=1).html
    assert run("report", "rnn", *options).stdout == output.read_text()


def test_a_terminal_gets_no_page() -> None:
    with patch("gradcli.cli.delivery.shows_no_document", return_value=True):
        done = run("report", "rnn")
    assert done.refused()
    assert "write it to a file with -o FILE" in done.stderr


def test_without_matplotlib_nothing_is_computed() -> None:
    with (
        patch("gradcli.formats.drawing.find_spec", return_value=None),
        pytest.raises(UsageError, match=r"gradcli\[plot\]"),
    ):
        gradcli.report(["no-such-cell"])


def test_a_page_saves_itself(tmp_path: Path) -> None:
    found = gradcli.report("rnn", hidden_size=4, seq_len=10, trials=1)
    found.save(tmp_path / "a.html")
    assert (tmp_path / "a.html").read_text() == found.html
    assert len(repr(found)) < 100
    with pytest.raises(OutputError):
        found.save(tmp_path / "no" / "a.html")
