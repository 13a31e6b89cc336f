"""The keys of the JSON as the pages list them: tables made of what is declared, between two comments.

    <!-- keys of GatesOfLayer -->
    | key | value |
    ...
    <!-- end of keys -->

"keys of Simulation beyond Run" leaves those of Run out. After a change of a declaration:

    python -m tests.doc_snippets
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import gradcli.commands
import gradcli.results
from gradcli.results.declared import keys_of
from gradcli.results.norm_curve import Curve
from gradcli.results.result import OneRun, Result
from gradcli.results.run import BatchCurve, Run, Verdict

DOCS = Path(__file__).parent.parent / "docs"
_MARKED = re.compile(r"(<!-- keys of (\w+)(?: beyond (\w+))? -->\n)(.*?)(<!-- end of keys -->)", re.DOTALL)
#: Classes that many keys have: their own keys are listed where this link leads.
ELSEWHERE: dict[type[Any], str] = {
    Verdict: "scripting.md#a-verdict",
    Curve: "scripting.md#a-curve",
    BatchCurve: "scripting.md#a-curve",
    Run: "scripting.md#a-run",
}


@cache
def declared_classes() -> dict[str, type[Any]]:
    """Return every class with declared fields, by name."""
    found: dict[str, type[Any]] = {}
    for module in (*_modules_of(gradcli.results), *_modules_of(gradcli.commands)):
        for name, value in vars(module).items():
            if isinstance(value, type) and is_dataclass(value) and keys_of(value):
                assert found.setdefault(name, value) is value, f"two classes are called {name}"
    return found


def _modules_of(package: ModuleType) -> Iterator[ModuleType]:
    """Yield the modules of a package."""
    for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        yield importlib.import_module(found.name)


def documents() -> list[type[Result]]:
    """Return what commands hand back, each a document of the JSON."""
    return [kind for kind in declared_classes().values() if issubclass(kind, Result) and "command" in vars(kind)]


def inner(kind: type[Any], name: str) -> tuple[str, type[Any] | None]:
    """Return what a field is made of: how its entries are reached ("", "[]" or ".*"), and their class if declared."""
    annotation = annotation_of(kind, name)
    found = re.search(r"^(Mapping\[str, |Sequence\[)?(\w+)", annotation)
    assert found is not None, annotation
    owner = next(base for base in kind.__mro__ if name in vars(base).get("__annotations__", {}))
    entry = vars(sys.modules[owner.__module__]).get(found[2])
    is_declared = isinstance(entry, type) and is_dataclass(entry) and bool(keys_of(entry))
    reached = {"Mapping[str, ": ".*", "Sequence[": "[]"}.get(found[1] or "", "")
    return reached, entry if is_declared else None


def annotation_of(kind: type[Any], name: str) -> str:
    """Return the annotation of a field as it is written."""
    return str(next(each.type for each in fields(kind) if each.name == name))


def rows(kind: type[Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Yield (key, what it is) for all keys of a class, those of the classes within it too."""
    for name, declared in keys_of(kind).items():
        reached, within = inner(kind, name)
        path = f"{before}{name}"
        link = None if within is None else ELSEWHERE.get(within)
        keys = f" ([keys]({link}))" if link else ""
        yield path, declared.doc + keys + ("; left out where there is none" if declared.optional else "")
        if within is not None and link is None:
            yield from rows(within, f"{path}{reached}.")


def table(kind: type[Any], base: type[Any] | None, page: str) -> str:
    """Return the keys of a class, without those of its base, as a table of a page."""
    lines = ["| key | value |", "|---|---|"]
    known = {path for path, _ in rows(base)} if base is not None else set()
    for path, doc in rows(kind):
        if path in known:
            continue
        here = doc.replace(f"]({page}#", "](#").replace("|", r"\|")
        lines.append(f"| `{path}` | {here} |")
    return "\n".join([*lines, ""])


def with_keys(text: str, page: str) -> str:
    """Return a page with all its tables of keys as they are declared now."""
    known = declared_classes()
    return _MARKED.sub(lambda m: f"{m[1]}{table(known[m[2]], known.get(m[3]), page)}{m[5]}", text)


def listed(page: Path) -> list[str]:
    """Return the names of the classes that a page lists the keys of."""
    return [found[2] for found in _MARKED.finditer(page.read_text(encoding="utf-8"))]


def refresh(page: Path) -> None:
    """Write the tables of a page anew."""
    text = page.read_text(encoding="utf-8")
    page.write_text(with_keys(text, page.name), encoding="utf-8")


def undeclared(kind: type[Any], data: Any, path: str = "") -> Iterator[str]:
    """Yield what of a JSON object is not as the class declares it: keys too many or missing, objects that are none."""
    if not isinstance(data, dict):
        yield f"{path}: no object"
        return
    declared = keys_of(kind)
    yield from (f"{path}.{name} is not declared" for name in data.keys() - declared.keys())
    yield from (f"{path}.{name} is missing" for name in declared if name not in data and not declared[name].optional)
    for name in declared.keys() & data.keys():
        yield from _undeclared_within(kind, name, data[name], f"{path}.{name}")


def _undeclared_within(kind: type[Any], name: str, value: Any, path: str) -> Iterator[str]:
    reached, within = inner(kind, name)
    if value is None or "[str, Any]" in annotation_of(kind, name):  # a spec, which has a schema of its own
        return
    entries = value.values() if reached == ".*" and isinstance(value, dict) else value if reached == "[]" else [value]
    if within is not None:
        for entry in entries:
            yield from undeclared(within, entry, f"{path}{reached}")
    elif any(isinstance(entry, dict) for entry in entries):
        yield f"{path}{reached} is an object, whose keys are not declared"


def undeclared_in(kind: type[Result], document: dict[str, Any]) -> list[str]:
    """Return what of a whole document is not declared."""
    from gradcli.results.envelope import Envelope

    opening = keys_of(Envelope)
    wanted = [name for name, key in opening.items() if not key.optional or (name == "engine" and kind.runs_engine)]
    found = [f"{name} is missing" for name in wanted if name not in document]
    rest = {name: value for name, value in document.items() if name not in opening}
    if not issubclass(kind, OneRun):
        return found + list(undeclared(kind, rest))
    found += [f"{name} is not declared" for name in rest if name != "runs"]
    return found + [wrong for run in rest.get("runs", [None]) for wrong in undeclared(kind, run, "runs[]")]
