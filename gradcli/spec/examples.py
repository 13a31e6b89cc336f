"""The example specs that come with gradcli: in an installed package and in a clone alike."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from gradcli.errors import UsageError, did_you_mean
from gradcli.frozen import frozen
from gradcli.spec.shown import shown

_ENDING = ".yaml"
#: Where the examples stand in the repository; the wheel has that folder within the package.
_FOLDER = "examples/configs"
_TITLE = r"# (.+?[.?])(?=\s)"
_VERDICT = r"(?m)^# Verdict: ([A-Z ]+[A-Z])\b"


@frozen
class Example:
    """What the header of an example says. title: its first sentence. verdict: its word, such as VANISHING."""

    name: str
    title: str
    verdict: str


@cache
def folder() -> Path:
    """Return the folder of the example specs."""
    package = Path(__file__).parents[1]
    return next(place for place in (package / _FOLDER, package.parent / _FOLDER) if place.is_dir())


def names() -> list[str]:
    """Return the names of the examples, sorted."""
    return sorted(path.stem for path in folder().glob(f"*{_ENDING}"))


def examples() -> list[Example]:
    """Return all examples, by their names."""
    return [_described(name) for name in names()]


def hint(target: str) -> str:
    """Return "; ..." that tells how to get the example that a name or path may mean; else an empty string."""
    name = Path(target).name.removesuffix(_ENDING)
    return f"; 'gradcli examples {name} -o {name}{_ENDING}' writes the example of this name" if name in names() else ""


def text_of(name: str) -> str:
    """Return an example as it can stand in any folder: the data that it reads are named by absolute paths.

    Raises UsageError if no example has this name.
    """
    import json

    from gradcli.spec import yaml12

    if name not in names():
        hint = did_you_mean(name, names())
        raise UsageError(f"no example is called {shown(name)}{hint} ('gradcli examples' lists them)")
    # The commands of its header are for the folder in which it will stand.
    document = yaml12.read(_source(name).replace(f"{_FOLDER}/", ""), f"{name}{_ENDING}")
    lines = list(document.lines)
    for path, place in document.values.items():
        value = document.data
        for part in path:
            value = value[part]
        if isinstance(value, str) and "\n" not in value and (file := folder() / value).is_file():
            line, start = lines[place.line - 1], place.column - 1
            end = start + len(value) + 2 * len(document.styles[path])
            lines[place.line - 1] = f"{line[:start]}{json.dumps(str(file.resolve()))}{line[end:]}"
    return "\n".join(lines)


def _source(name: str) -> str:
    return (folder() / f"{name}{_ENDING}").read_text(encoding="utf-8")


def _described(name: str) -> Example:
    text = _source(name)
    header = text[: text.index("\n#\n")].replace("\n# ", " ")
    title, verdict = re.match(_TITLE, header + " "), re.search(_VERDICT, text)
    if title is None or verdict is None:
        raise ValueError(f"the header of the example {name} has no first sentence, or no verdict")
    return Example(name, title[1].removesuffix("."), verdict[1])
