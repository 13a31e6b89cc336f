"""Cells are found by the names that frameworks and papers give them, in any case, and shown by their own."""

from __future__ import annotations

import re
from pathlib import Path

import jsonschema
import pytest
from in_process import gradcli

from gradcli import cells
from gradcli.errors import SpecError, UsageError
from gradcli.results.cells import cell_in_full
from gradcli.spec.reader import load_spec
from gradcli.spec.schema import spec_schema
from gradcli.spec.starter import starter_spec

MEANT = {
    "LSTM": "lstm",
    "nn.LSTM": "lstm",
    "torch.nn.LSTM": "lstm",
    "LSTMCell": "lstm",
    "torch.nn.LSTMCell": "lstm",
    "keras.layers.LSTM": "lstm",
    "tf.keras.layers.LSTM": "lstm",
    "layers.LSTM": "lstm",
    "flax.linen.OptimizedLSTMCell": "lstm",
    "nnx.LSTMCell": "lstm",
    "hk.LSTM": "lstm",
    "CuDNNLSTM": "lstm",
    "GRU": "gru",
    "GRUCell": "gru",
    "nnx.GRUCell": "gru",
    "keras.layers.GRU": "gru",
    "hk.GRU": "gru-textbook",  # Haiku's has its reset before the product
    "RNN": "rnn",
    "nn.RNNCell": "rnn",
    "SimpleRNN": "rnn",
    "keras.layers.SimpleRNN": "rnn",
    "nnx.SimpleCell": "rnn",
    "elman": "rnn",
    "Elman": "rnn",
    "tanh-rnn": "rnn",
    "Jordan": "jordan-rnn",
    "CIFG": "lstm-coupled",
    "IndRNN": "indrnn",
    "minGRU": "mingru",
    "LSTM-Peephole": "lstm-peephole",
}


@pytest.mark.parametrize("name", MEANT)
def test_a_name_is_found_wherever_one_is_asked_for(name: str) -> None:
    own = MEANT[name]
    assert cells.find(name) == own
    loaded = load_spec(name)
    assert (loaded.label, loaded.spec.cell) == (own, own)
    assert load_spec("rnn", overrides=[f"cell={name}"]).spec.cell == own
    assert starter_spec(name) == starter_spec(own)
    assert cell_in_full(name).report.data == cell_in_full(own).report.data
    assert own in map(cells.find, cells.completions(name))
    jsonschema.validate({"cell": name}, spec_schema())


def test_a_spec_may_name_its_cell_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my.yaml").write_text("cell: keras.layers.LSTM\nhidden_size: 3\ntrials: 1\nseq_len: 4\nbatch_size: 2\n")
    (run,) = gradcli("simulate", "my.yaml", "--format", "json").report()["runs"]
    assert (run["label"], run["cell"], run["spec"]["cell"]) == ("my", "lstm", "lstm")
    Path("LSTM").write_text("a file of a cell's name loses without a path")
    assert gradcli("simulate", "LSTM", "-T", 3, "--hidden-size", 2, "--trials", 1).code == 0
    assert gradcli("simulate", "./LSTM").code == 2


def test_no_name_means_two_cells() -> None:
    every = [name.casefold() for name in cells.names()] + list(cells.aliases())
    assert len(every) == len(set(every))
    assert all(alias == alias.casefold() == alias.strip() != "" for alias in cells.aliases())


@pytest.mark.parametrize("name", cells.names())
def test_the_aliases_looked_up_are_those_of_the_file(name: str) -> None:
    assert cells.load(name).aliases == tuple(alias for alias, own in cells.aliases().items() if own == name)


@pytest.mark.parametrize(
    ("name", "near"), [("LTSM", "lstm"), ("nn.LTSM", "lstm"), ("simplernnn", "rnn"), ("GRU_cell", "gru"), ("xyz", None)]
)
def test_what_is_no_name_gets_the_near_one(name: str, near: str | None) -> None:
    hint = f"; did you mean {near!r}?" if near else ""
    with pytest.raises(UsageError, match=re.escape(f"no built-in cell is called {name!r}{hint} ('gradcli cells'")):
        load_spec(name)


def test_aliases_are_of_built_in_cells_alone() -> None:
    with pytest.raises(SpecError, match="aliases: unknown key"):
        load_spec("rnn", overrides=['cell={equations: "h[t] = tanh(W @ h[t-1])", aliases: [mine]}'])


def test_completion_offers_cells_then_aliases() -> None:
    assert cells.completions("LS") == [name for name in cells.names() if name.startswith("ls")]
    assert cells.completions("simpler") == ["simplernn", "simplernncell"]
    assert cells.completions("examples/") == []


def test_the_list_at_80_columns_keeps_what_a_cell_is() -> None:
    from gradcli.formats import render
    from gradcli.results.cells import zoo_list

    screen = render(zoo_list().report, "table", width=80, color=False, unicode=True)
    assert all(word in screen.splitlines()[0].split() for word in ("name", "title"))
    assert "no room for: state, parameters per unit, year, reference" in screen
