"""What a new built-in cell needs beside its file, gradcli/cells/NAME.yaml. No PyTorch.

    python tests/new_cell.py NAME

Checks the file, redoes a small run of it by complex steps (reference/complex_step.py), holds the engine against that
run, and stores it as tests/fixtures/zoo-NAME.npz; adds a row to the table of its family in docs/cells.md and counts the
cell where cells are counted. All tests over the built-in cells then find it by itself.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the cells of this folder, wherever gradcli is installed

from engine_runs import problem_of, recorded, vectors_of, vectors_saved  # noqa: E402
from reference.compare_run import redo_by_complex_steps  # noqa: E402
from reference.fixture_file import read_fixture, write_fixture  # noqa: E402
from reference.make_fixtures import fixture, stored_at, stream, zoo_spec  # noqa: E402

from gradcli import cells  # noqa: E402
from gradcli.errors import GradcliError  # noqa: E402
from gradcli.prepare.sizing import parse  # noqa: E402
from gradcli.spec.models import FAMILIES  # noqa: E402
from gradcli.spec.reader import load_spec  # noqa: E402

RELATIVE_ERROR = 1e-10
PAGE = ROOT / "docs" / "cells.md"
COUNTED_IN = (ROOT / "README.md", ROOT / "CHANGELOG.md")


def store(name: str) -> float:
    """Store a run of the cell; return how far the engine is from it, the largest relative error of any vector.

    ValueError where that is more than rounding: nothing is stored then.
    """
    spec = zoo_spec(ROOT / "gradcli" / "cells" / f"{name}.yaml")
    path = stored_at(spec)
    write_fixture(path, spec, fixture(spec, stream(spec), redo_by_complex_steps))
    spec, stored = read_fixture(path)
    errors = vectors_of(recorded(problem_of(spec, stored))).errors(vectors_saved(stored))
    worst = max(errors, key=lambda key: errors[key])
    if not errors[worst] < RELATIVE_ERROR:
        path.unlink()
        raise ValueError(f"the engine and complex steps differ by {errors[worst]:.1e} in {worst}")
    return errors[worst]


def row_of(name: str) -> str:
    """Return the cell's row in docs/cells.md, to be put into better words by hand."""
    block = cells.load(name).cell
    equations = [re.sub(r"\s+", " ", line) for line in block.equations.splitlines() if re.match(r"\w+\[t\]", line)]
    return f"| `{name}` | {block.title} | {'; '.join(equations)} |"


def list_on_the_page(name: str) -> bool:
    """Add a row at the end of the table of the cell's family in docs/cells.md; tell whether there was none."""
    text = PAGE.read_text(encoding="utf-8")
    if f"\n| `{name}` |" in text:
        return False
    before, heading, after = text.partition(f"\n### {cells.load(name).cell.family}\n")
    table = re.search(r"(?:^\|.*\n)+", after, flags=re.MULTILINE)
    if table is None:
        raise ValueError(f"{PAGE}: no table under a heading {heading.strip()!r}")
    PAGE.write_text(f"{before}{heading}{after[: table.end()]}{row_of(name)}\n{after[table.end() :]}", encoding="utf-8")
    return True


def count() -> None:
    """Write the number of built-in cells where it is said."""
    for path in COUNTED_IN:
        text = path.read_text(encoding="utf-8")
        path.write_text(re.sub(r"\d+(\s+)built-in cells", rf"{len(cells.names())}\1built-in cells", text), "utf-8")


def main(arguments: list[str]) -> int:
    """Run the script."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python tests/new_cell.py NAME\n")
        return 2
    (name,) = arguments
    try:
        if name not in cells.names():
            raise ValueError(cells.unknown(name))
        parse(load_spec(name))  # with every mistake at its line and column
        if cells.load(name).cell.family is None:
            raise ValueError(f"gradcli/cells/{name}.yaml: family: say which it belongs to: {', '.join(FAMILIES)}")
        error = store(name)
    except (GradcliError, ValueError) as problem:
        sys.stderr.write(f"{problem}\n")
        return 2
    added = list_on_the_page(name)
    count()
    sys.stdout.write(f"{name}: the engine agrees with complex steps to {error:.1e}; stored as a fixture\n")
    if added:
        sys.stdout.write(
            "docs/cells.md: a row was added to the table of its family; move it where it belongs and say it better\n"
        )
    sys.stdout.write(f"now: pytest -k {name}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
