"""The notebook of the examples runs in a kernel as it stands, and shows what it has stored; results show themselves."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import gradcli

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "examples" / "notebooks" / "first-look.ipynb"

# What the kernel's own libraries have to say is not gradcli's to mend.
pytestmark = pytest.mark.filterwarnings("default")


def executed(notebook: Any, monkeypatch: pytest.MonkeyPatch) -> list[list[Any]]:
    """Return the outputs of the code cells of a notebook, run in a kernel of its own on this gradcli."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]))
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": ROOT}}
    )
    client.execute()
    return [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]


def test_the_example_shows_what_it_has_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(stored)
    assert NOTEBOOK.stat().st_size < 20_000
    shown = [cell.outputs for cell in stored.cells if cell.cell_type == "code"]
    again = executed(nbformat.read(NOTEBOOK, as_version=4), monkeypatch)
    assert [[_words(output) for output in outputs] for outputs in again] == [
        [_words(output) for output in outputs] for outputs in shown
    ]
    assert any(shown), "it has stored what it shows"


def _words(output: Any) -> str:
    return str(output["text"] if output["output_type"] == "stream" else output["data"]["text/plain"])


def test_results_show_their_table_and_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    cells = [
        "import gradcli\ngradcli.simulate('lstm', seq_len=20, trials=1)",
        "gradcli.compare([{'cell': 'lstm'}, 'rnn'], seq_len=20, trials=1)",
        "try:\n    gradcli.simulate('none')\nexcept gradcli.GradcliError as error:\n    print(error)",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    one, both, refused = executed(notebook, monkeypatch)
    for (output,) in (one, both):
        assert set(output["data"]) >= {"text/plain", "text/html"}
        html = output["data"]["text/html"]
        assert html.startswith("<pre>")
        assert '<img alt="' in html
        assert "data:image/svg+xml;base64," in html
        assert "<script" not in html
    assert "no built-in cell is called" in refused[0]["text"]


def test_names_are_text_in_a_notebook() -> None:
    cell = {"equations": "h[t] = 0.5 * h[t-1] + x[t]", "title": "<img src=q>"}
    found = gradcli.simulate({"cell": cell}, seq_len=5, hidden_size=32)
    assert "<img src=q>" in found.to_text()
    html = found._repr_mimebundle_()["text/html"]
    assert "<img src=q>" not in html
