"""Code of remedies, a statement a line: the same statements, in the same loops, with their comments."""

from __future__ import annotations

import ast

import pytest
from measured import measured

from gradcli.diagnostics.remedies import find_remedies
from gradcli.diagnostics.remedy_code import clip_steps, one_a_line


@pytest.mark.parametrize(
    ("line", "lines"),
    [
        ("a = 1", ["a = 1"]),
        ("a = 1; b = 'x; y'; c(b)", ["a = 1", "b = 'x; y'", "c(b)"]),
        ("for s in (1, 2): a = s; b(a)", ["for s in (1, 2):", "    a = s", "    b(a)"]),
        ("u = 1; for_all(u)  # and so on", ["u = 1", "for_all(u)  # and so on"]),
    ],
)
def test_a_statement_a_line(line: str, lines: list[str]) -> None:
    assert one_a_line(line).splitlines() == lines


@pytest.mark.parametrize("fields", [{}, {"bidirectional": True, "num_layers": 2}, {"num_layers": 5}])
def test_it_is_the_same_program(fields: dict[str, object]) -> None:
    found = find_remedies(measured("lstm", hidden_size=8, input_size=4, seq_len=30, trials=1, batch_size=2, **fields))
    codes = [code for remedy in found.found for code in remedy.edit.code.values()] + list(
        clip_steps(None, 0.5).values()
    )
    assert len(codes) > 2
    for code in codes:
        assert ast.dump(ast.parse(one_a_line(code))) == ast.dump(ast.parse(code))
        assert all(";" not in line for line in one_a_line(code).splitlines())
