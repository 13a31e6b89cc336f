"""The list of the example specs as a report."""

from __future__ import annotations

from gradcli.diagnostics.verdict_words import KIND_WORDS
from gradcli.results.model import Column, Line, Records, Report, Table, envelope
from gradcli.spec.examples import examples

_COMMAND = "examples"
_LISTED = ("name", "verdict", "title")
_KINDS = {word.upper(): kind for kind, word in KIND_WORDS.items()}


def examples_report() -> Report:
    """Return the list of all examples; data and records have the kind of each verdict, people read its word."""
    found = examples()
    rows = [[example.name, _KINDS[example.verdict], example.title] for example in found]
    columns = [Column("name", "text", keep=9), Column("verdict", "text", keep=8), Column("shows", "text", keep=9)]
    # The first word of each is enough where it stands in a column: "reaches".
    shown = [[example.name, example.verdict.split()[0].lower(), example.title] for example in found]
    hint = Line("gradcli examples NAME -o my.yaml writes one of them, to run as it is and to change", style="dim")
    data = envelope(_COMMAND) | {"examples": [dict(zip(_LISTED, row, strict=True)) for row in rows]}
    return Report(_COMMAND, [[Table(columns, shown)], [hint]], data, Records(_LISTED, rows))
