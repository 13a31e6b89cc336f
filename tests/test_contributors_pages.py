"""docs/architecture.md and CONTRIBUTING.md speak of what is there, and leave out no folder."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from test_architecture import ORDER

ROOT = Path(__file__).resolve().parents[1]
MAP = ROOT / "docs" / "architecture.md"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
# Folders whose files the map names without them: `engine/run.py`, and where it speaks of the engine `layer.py`.
WITHIN = (ROOT, ROOT / "gradcli", ROOT / "gradcli" / "engine", ROOT / "docs")
PLACE = re.compile(r"`(\.?[\w./-]+/[\w./-]*|[\w-]+\.(?:py|md|yaml))`")


@pytest.mark.parametrize("page", [MAP, CONTRIBUTING], ids=lambda page: page.name)
def test_every_file_and_folder_that_is_named_is_there(page: Path) -> None:
    named = [name for name in PLACE.findall(page.read_text(encoding="utf-8")) if "NAME" not in name]
    assert len(named) >= 5
    missing = [name for name in named if not any((folder / name).exists() for folder in WITHIN) and name != "utils.py"]
    assert missing == []


def test_every_folder_of_the_package_is_on_the_map() -> None:
    text = MAP.read_text(encoding="utf-8")
    folders = [path.parent for path in (ROOT / "gradcli").glob("*/__init__.py")]
    assert [str(path.name) for path in folders if f"| `gradcli/{path.name}` |" not in text] == []
    of_tests = [path for path in (ROOT / "tests").iterdir() if path.is_dir() and not any(path.glob("test_*.py"))]
    kept = [path.name for path in of_tests if not path.name.startswith((".", "__"))]
    assert [name for name in kept if f"`tests/{name}`" not in text] == []


def test_the_map_has_the_order_of_imports_that_is_enforced() -> None:
    text = MAP.read_text(encoding="utf-8")
    stated = re.search(r"^`__main__` -> .*?(?=\. A folder)", text, flags=re.MULTILINE | re.DOTALL)
    assert stated is not None
    groups = [re.findall(r"`(\w+)`", group) for group in stated[0].split("->")]
    assert groups == [[name for name in group if name != "__init__"] for group in ORDER]


def test_functions_and_tables_of_the_map_are_where_it_says() -> None:
    for name, file in re.findall(r"`(\w+)` in `(gradcli/[\w/]+\.py)`", MAP.read_text(encoding="utf-8")):
        if "NAME" in name:
            continue
        assert re.search(rf"(?m)^(def |class )?{name}\b", (ROOT / file).read_text(encoding="utf-8")), (name, file)


def test_scripts_for_contributors_can_be_run() -> None:
    for name in re.findall(r"(?m)^(\.ci/\w+)$", CONTRIBUTING.read_text(encoding="utf-8")):
        assert (ROOT / name).stat().st_mode & 0o111, name
