"""The notebook of the examples runs in a kernel as it stands, and shows what it has stored; results show themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from doc_snippets import NOTEBOOKS, executed

import gradcli

pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")

# What the kernel's own libraries have to say is not gradcli's to mend.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_an_example_shows_what_it_has_stored(path: Path) -> None:
    stored = nbformat.read(path, as_version=4)
    nbformat.validate(stored)
    assert path.stat().st_size < 20_000
    shown = outputs_of(stored)
    assert outputs_of(executed(path)) == shown, "to take over what it shows: python -m tests.doc_snippets"
    assert any(shown), "it has stored what it shows"


def outputs_of(notebook: Any) -> list[list[str]]:
    """Return what the code cells of a notebook show, as text."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [
        [output.text if "text" in output else output.data["text/plain"] for output in cell.outputs] for cell in code
    ]


def test_results_show_their_table_and_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    cells = [
        "import gradcli\ngradcli.simulate('lstm', seq_len=20, trials=1)",
        "gradcli.compare([{'cell': 'lstm'}, 'rnn'], seq_len=20, trials=1)",
        "try:\n    gradcli.simulate('none')\nexcept gradcli.GradcliError as error:\n    print(error)",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbformat.write(notebook, tmp_path / "results.ipynb")
    one, both, refused = (cell.outputs for cell in executed(tmp_path / "results.ipynb").cells)
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
