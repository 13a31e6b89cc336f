"""The starter spec: the same as the bare cell as it stands, and still a spec when its comments are used."""

from __future__ import annotations

import re

import pytest
from reading import spec_of

from gradcli import cells
from gradcli.errors import UsageError
from gradcli.spec.models import CellBlock, Spec
from gradcli.spec.reader import load_spec
from gradcli.spec.starter import starter_spec


@pytest.mark.parametrize("name", cells.names())
def test_it_reads_as_the_bare_cell(name: str) -> None:
    loaded = spec_of(starter_spec(name))
    assert loaded.spec == load_spec(name).spec
    assert loaded.cell == cells.load(name).cell


@pytest.mark.parametrize("name", cells.names())
def test_its_commented_cell_is_the_cell(name: str) -> None:
    text = re.sub(r"^cell: .*\n", "", starter_spec(name), flags=re.MULTILINE)
    block = re.search(r"^# cell:\n(# .*\n)+", text, flags=re.MULTILINE)
    assert block
    written = "".join(line.removeprefix("# ") for line in block.group().splitlines(keepends=True))
    about = {"title", "family", "reference", "year", "notes"}
    cell = spec_of(text.replace(block.group(), written)).spec.cell
    assert isinstance(cell, CellBlock)
    assert cell.model_dump(exclude=about) == cells.load(name).cell.model_dump(exclude=about)


@pytest.mark.parametrize("name", cells.names())
def test_its_commented_init_is_the_cells_own(name: str) -> None:
    text = re.sub(r"^# (init:|  .*)$", r"\1", starter_spec(name).partition("\nhidden_size")[2], flags=re.MULTILINE)
    assert spec_of(f"cell: {name}\nhidden_size{text}").spec.init == cells.load(name).cell.init


def test_every_line_is_short_and_every_field_there() -> None:
    text = starter_spec("lstm")
    assert max(map(len, text.splitlines())) <= 120
    absent = {"activation", "constants", "params", "initial_states"}
    assert set(re.findall(r"^(?:# )?(\w+): ?", text, flags=re.MULTILINE)) >= set(Spec.model_fields) - absent


def test_an_unknown_cell() -> None:
    with pytest.raises(UsageError, match="no built-in cell is called 'gur'"):
        starter_spec("gur")
